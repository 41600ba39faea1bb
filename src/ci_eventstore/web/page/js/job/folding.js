/**
 * Which groups are folded when a job's page opens. Pure.
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
