/**
 * Which groups are folded when a job's page opens, and while one follows. Pure.
 */

/**
 * @typedef {{line: number, end: number|null, is_open: boolean}} Group
 * @typedef {{line: number, kind: string}} Mark
 */

/**
 * Return the lines of the groups to fold: those that are over, but for what went wrong, which one came to see.
 *
 * @param {Group[]} groups in the order of their lines
 * @param {Mark[]} marks
 * @param {boolean} hasFailed whether the job has
 * @returns {Set<number>}
 */
export function foldedAtFirst(groups, marks, hasFailed) {
  const errors = marks.filter(({ kind }) => kind === "error").map(({ line }) => line);
  const isWithin = (/** @type {number} */ line, /** @type {Group} */ { line: from, end }) =>
    line >= from && line <= (end ?? Infinity);
  const last = hasFailed && errors.length === 0 ? groups.at(-1) : undefined;
  const wrong = last ? [last.line] : errors;
  const over = groups.filter(({ end, is_open: isOpen }) => end !== null && !isOpen);
  return new Set(over.filter((group) => !wrong.some((line) => isWithin(line, group))).map(({ line }) => line));
}

/** Folds groups that end well while somebody follows, each once, so that the one that runs has the screen. */
export class FoldsWhileFollowing {
  constructor() {
    /**
     * Groups that were folded or left open for good.
     *
     * @type {Set<number>}
     */
    this._settled = new Set();
    /**
     * Groups that somebody opened or folded.
     *
     * @type {Set<number>}
     */
    this._chosen = new Set();
  }

  /**
   * Note that somebody opened or folded groups: they stay so, and so do those around them.
   *
   * @param {Iterable<number>} lines of the groups
   */
  choose(lines) {
    for (const line of lines) this._chosen.add(line);
  }

  /**
   * Return the groups to fold now. Those that ended otherwise, or while nobody followed, stay open from then on.
   *
   * @param {Group[]} groups
   * @param {Mark[]} marks
   * @param {{isFollowing: boolean, total: number, looked: {from: number, to: number}|null}} reader whether one follows,
   *   how many lines there are, and those that are chosen
   * @returns {Set<number>}
   */
  next(groups, marks, { isFollowing, total, looked }) {
    // A group that nothing follows yet has the end of the log, which one looks at.
    const over = groups.filter(({ line, end, is_open: isOpen }) =>
      !this._settled.has(line) && end !== null && !isOpen && end < total);
    for (const { line } of over) this._settled.add(line);
    if (!isFollowing) return new Set();
    const errors = marks.filter(({ kind }) => kind === "error").map(({ line }) => line);
    const kept = [...errors, ...this._chosen];
    const isWell = (/** @type {Group} */ { line, end }) =>
      !kept.some((one) => one >= line && one <= (end ?? 0))
      && !(looked && looked.from <= (end ?? 0) && looked.to >= line);
    return new Set(over.filter(isWell).map(({ line }) => line));
  }
}

/**
 * Return the line that a job's page opens at, if its address names none; null: at the end, following.
 *
 * @param {{isRunning: boolean, hasFailed: boolean, firstError: number|null, total: number}} job
 * @returns {number|null}
 */
export function firstLineOf({ isRunning, hasFailed, firstError, total }) {
  if (isRunning) return null;
  if (hasFailed) return firstError ?? total;
  return 1;
}
