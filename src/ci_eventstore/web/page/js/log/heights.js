/**
 * How high wrapped rows are: measured where they were in the page, estimated from their length elsewhere.
 */

/** More measured heights than these aren't remembered. */
const MOST_HEIGHTS = 20_000;

export class Heights {
  constructor() {
    /** @type {Map<number, number>} by line */
    this._measured = new Map();
    /** Characters that a row has on one line. */
    this.columns = 80;
    this.rowHeight = 20;
  }

  /** Forget all heights: the width or what a row shows is another. */
  clear() {
    this._measured.clear();
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
    if (this._measured.size >= MOST_HEIGHTS) this._measured.clear();
    this._measured.set(line, height);
    return Math.abs(thought - height) > 0.5;
  }
}
