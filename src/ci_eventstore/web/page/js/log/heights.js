/**
 * How high wrapped rows are: measured where they were in the page, estimated from their length elsewhere.
 */

/** More measured heights than these aren't remembered. */
const MOST_HEIGHTS = 20_000;

export class Heights {
  constructor() {
    /** @type {Map<number, number>} by line */
    this._measured = new Map();
    this._sum = 0;
    /** Characters that a row has on one line. */
    this.columns = 80;
    this.rowHeight = 20;
  }

  /** Forget all heights: the width or what a row shows is another. */
  clear() {
    this._measured.clear();
    this._sum = 0;
  }

  /** The height of the rows that were measured, on average. */
  get average() {
    return this._measured.size > 0 ? this._sum / this._measured.size : this.rowHeight;
  }

  /**
   * Return the height of a line's row.
   *
   * @param {number} line
   * @param {number | null} length of its text; null: unknown
   */
  of(line, length) {
    const measured = this._measured.get(line);
    if (measured !== undefined) return measured;
    return this.rowHeight * (length === null ? 1 : Math.max(1, Math.ceil(length / this.columns)));
  }

  /**
   * Note a height; true if it isn't the one that was thought.
   *
   * @param {number} line
   * @param {number} height
   * @param {number | null} length
   */
  note(line, height, length) {
    const thought = this.of(line, length);
    if (this._measured.size >= MOST_HEIGHTS) this.clear();
    this._sum += height - (this._measured.get(line) ?? 0);
    this._measured.set(line, height);
    return Math.abs(thought - height) > 0.5;
  }
}
