/**
 * Which lines are shown while groups are folded: rows, counted from 0, and line numbers, counted from 1.
 *
 * Folded groups hide ranges of lines. The ranges are kept sorted and apart, each with the lines hidden before it, so
 * that both ways take a binary search.
 */

import { bisect } from "../bisect.js";

/**
 * @typedef {object} Hidden
 * @property {number} from the first hidden line
 * @property {number} to the last one; Infinity while the group is open
 * @property {number} before lines hidden before `from`
 */

export class Folds {
  constructor() {
    /** @type {Hidden[]} */
    this._hidden = [];
  }

  /**
   * Hide the lines after the first one of each group.
   *
   * @param {Iterable<{line: number, end: number | null}>} groups
   */
  hide(groups) {
    const ranges = Array.from(groups, ({ line, end }) => ({ from: line + 1, to: end ?? Infinity, before: 0 }))
      .filter(({ from, to }) => to >= from)
      .sort((one, other) => one.from - other.from);
    this._hidden = [];
    let before = 0;
    for (const range of ranges) {
      const last = this._hidden.at(-1);
      if (last && range.from <= last.to + 1) {
        last.to = Math.max(last.to, range.to);
        continue;
      }
      if (last) before += last.to - last.from + 1;
      this._hidden.push({ ...range, before });
    }
  }

  /**
   * Return how many rows there are.
   *
   * @param {number} total lines
   */
  rowCount(total) {
    const last = this._hidden[bisect(this._hidden, ({ from }) => from > total) - 1];
    return last ? total - last.before - (Math.min(last.to, total) - last.from + 1) : total;
  }

  /**
   * Return the line that stands in a row.
   *
   * @param {number} row
   */
  lineOf(row) {
    const line = row + 1;
    const last = this._hidden[bisect(this._hidden, ({ from, before }) => from - before > line) - 1];
    return last ? line + last.before + (last.to - last.from + 1) : line;
  }

  /**
   * Return the row of a line, or of the folded group that hides it.
   *
   * @param {number} line
   */
  rowOf(line) {
    const last = this._hidden[bisect(this._hidden, ({ from }) => from > line) - 1];
    if (!last) return line - 1;
    if (line <= last.to) return last.from - 2 - last.before;
    return line - 1 - last.before - (last.to - last.from + 1);
  }

  /**
   * Tell whether a folded group hides a line.
   *
   * @param {number} line
   */
  isHidden(line) {
    const last = this._hidden[bisect(this._hidden, ({ from }) => from > line) - 1];
    return last !== undefined && line <= last.to;
  }
}
