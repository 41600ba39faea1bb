/**
 * Which rows a scroll box shows, when there are more of them than a browser can be high.
 *
 * Browsers stop at some millions of pixels (Firefox at 17.9). So the box scrolls over a spacer of at most eight
 * million, and the place is kept as a row and pixels of it. Steps of up to two screens move the place by as many
 * pixels: wheel, fingers and keys feel native, in a log of any length. Bigger ones, such as dragging the thumb, go to
 * the same share of the log. At rest the scroll bar is put where the place is. Heights of rows that nobody has
 * measured are estimated; the row at the top stays where it is when they turn out to be wrong.
 */

/** The highest spacer in pixels. */
export const MOST_PIXELS = 8_000_000;
/** Near both ends the scroll bar moves with the log, pixel by pixel, so that each end is reached exactly. */
const NEAR_END = 100_000;
const SMALL_STEP_SCREENS = 2;

/** @typedef {{row: number, pixel: number}} Place a row, and how much of it is above the upper edge */

export class Viewport {
  constructor() {
    this.rowCount = 0;
    this.rowHeight = 20;
    /** The height of rows on average, as far as that is known. */
    this.average = 20;
    this.screen = 600;
    /** @type {Place} */
    this.place = { row: 0, pixel: 0 };
    /** Where the scroll box was when the place was made. */
    this.top = 0;
    /** @type {((row: number) => number) | null} */
    this._heightOf = null;
  }

  /**
   * Let rows have heights of their own, or all the same.
   *
   * @param {((row: number) => number) | null} heightOf null: all are `rowHeight` high
   */
  useHeights(heightOf) {
    this._heightOf = heightOf;
  }

  /**
   * Return the height of a row.
   *
   * @param {number} row
   */
  heightOf(row) {
    return this._heightOf ? this._heightOf(row) : this.rowHeight;
  }

  /** The height of all rows, as far as that is known. */
  get whole() {
    return this.rowCount * (this._heightOf ? this.average : this.rowHeight);
  }

  /** The height of what is scrolled over. */
  get spacer() {
    return Math.max(this.screen, Math.min(this.whole, MOST_PIXELS));
  }

  /** The furthest that the box scrolls. */
  get most() {
    return this.spacer - this.screen;
  }

  /** The place at which the last row ends at the lower edge. */
  get last() {
    let [row, room] = [this.rowCount, this.screen];
    while (row > 0 && room > 0) {
      row -= 1;
      room -= this.heightOf(row);
    }
    return { row, pixel: Math.max(0, -room) };
  }

  /** Whether the last row is seen wholly, but for a pixel or two. */
  get isAtEnd() {
    const { row, pixel } = this.last;
    const { place } = this;
    return place.row > row || (place.row === row && place.pixel >= pixel - 2);
  }

  /**
   * Return the rows on the screen, and some more on both sides.
   *
   * @param {number} [more]
   */
  rows(more = 0) {
    let [row, room] = [this.place.row, this.screen + this.place.pixel];
    while (row < this.rowCount && room > 0) {
      room -= this.heightOf(row);
      row += 1;
    }
    return { first: Math.max(0, this.place.row - more), last: Math.min(this.rowCount, row + more) - 1 };
  }

  /**
   * Follow the scroll box to where somebody has scrolled it.
   *
   * @param {number} top its `scrollTop`
   */
  scrolled(top) {
    const step = top - this.top;
    if (step === 0) return;
    this.top = top;
    if (Math.abs(step) > SMALL_STEP_SCREENS * this.screen) {
      this.place = top >= this.most ? this.last : this._placeAt(top);
      return;
    }
    this.move(step);
    // Where heights were estimated, the bar may reach an end a little before the rows do.
    const near = { ...this.place };
    if (top <= 0) this.move(-SMALL_STEP_SCREENS * this.screen);
    else if (top >= this.most) this.move(SMALL_STEP_SCREENS * this.screen);
    if (!this._isAtAnEnd) this.place = near;
  }

  /**
   * Move by pixels, and not beyond the ends.
   *
   * @param {number} pixels
   */
  move(pixels) {
    let { row, pixel } = this.place;
    pixel += pixels;
    while (pixel < 0 && row > 0) {
      row -= 1;
      pixel += this.heightOf(row);
    }
    while (row < this.rowCount - 1 && pixel >= this.heightOf(row)) {
      pixel -= this.heightOf(row);
      row += 1;
    }
    this.place = { row, pixel: Math.max(0, pixel) };
    this.clamp();
  }

  /** Keep the place within the rows that there are. */
  clamp() {
    const { last, place } = this;
    if (place.row > last.row || (place.row === last.row && place.pixel > last.pixel)) this.place = last;
  }

  /**
   * Go to a row.
   *
   * @param {number} row
   * @param {"start" | "center" | "end" | "nearest"} [align] where on the screen it shall be
   */
  goTo(row, align = "start") {
    if (align === "nearest") {
      const { first, last } = this.rows();
      const isWhole = row > first || (row === first && this.place.pixel === 0);
      if (isWhole && row < last) return;
    }
    this.place = { row: Math.max(0, Math.min(row, this.rowCount - 1)), pixel: 0 };
    const room = this.screen - this.heightOf(this.place.row);
    if (align === "end") this.move(-room);
    else if (align === "center" || align === "nearest") this.move(-Math.max(0, room / 2));
    this.clamp();
  }

  get _isAtAnEnd() {
    return (this.place.row === 0 && this.place.pixel === 0) || this.isAtEnd;
  }

  /** Go to the last row. */
  goToEnd() {
    this.place = this.last;
  }

  /** Return where the scroll box stands at rest, and take it as its place. */
  rest() {
    const { row, pixel } = this.place;
    const far = SMALL_STEP_SCREENS * this.screen;
    const [above, below] = [this._room(far, -1), this._room(far, 1)];
    const mapped = this._topAt(((row + pixel / this.heightOf(row)) * this.whole) / Math.max(1, this.rowCount));
    // Near an end the bar is as far from its own; elsewhere there is always room for a step.
    if (above + below > this.most) this.top = (this.most * above) / Math.max(1, above + below);
    else if (above < far) this.top = above;
    else if (below < far) this.top = this.most - below;
    else this.top = Math.max(far, Math.min(mapped, this.most - far));
    return this.top;
  }

  /**
   * Return how far it is to the first or the last row, in pixels, but no more than `most`.
   *
   * @param {number} most
   * @param {number} direction below 0: to the first
   */
  _room(most, direction) {
    const { last, place } = this;
    let room = direction < 0 ? place.pixel : last.pixel - place.pixel;
    const [from, to] = direction < 0 ? [place.row - 1, 0] : [last.row - 1, place.row];
    for (let row = from; row >= to && room < most; row -= 1) room += this.heightOf(row);
    return Math.max(0, Math.min(room, most));
  }

  /** How much of the ends is scrolled pixel by pixel, and what is between them. */
  get _parts() {
    const whole = Math.max(this.whole - this.screen, 0);
    const near = this.whole <= MOST_PIXELS ? whole / 2 : NEAR_END;
    return { near, middle: this.most - 2 * near, content: whole - 2 * near, whole };
  }

  /**
   * Return where the box stands for a place, in pixels of all rows.
   *
   * @param {number} place
   */
  _topAt(place) {
    const { near, middle, content, whole } = this._parts;
    const bounded = Math.max(1, Math.min(place, whole - 1));
    if (bounded <= near) return bounded;
    if (bounded >= whole - near) return this.most - (whole - bounded);
    return near + ((bounded - near) * middle) / content;
  }

  /**
   * Return the place for where the box stands.
   *
   * @param {number} top
   * @returns {Place}
   */
  _placeAt(top) {
    const { near, middle, content, whole } = this._parts;
    let place = near + ((top - near) * content) / middle;
    if (top <= near) place = top;
    else if (top >= this.most - near) place = whole - (this.most - top);
    const rows = Math.max(0, (place * this.rowCount) / Math.max(1, this.whole));
    const row = Math.min(Math.floor(rows + 1e-6), this.rowCount - 1);
    return { row: Math.max(0, row), pixel: Math.max(0, Math.min(rows - row, 0.999)) * this.heightOf(row) };
  }
}
