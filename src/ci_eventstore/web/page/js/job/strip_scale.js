/**
 * Which pixel of the strip beside the scrollbar stands for which line, and what each pixel shows. Pure.
 */

/**
 * @param {number} line
 * @param {number} total
 * @param {number} height
 * @returns {number} the pixel's row
 */
export function rowOf(line, total, height) {
  return total <= 1 ? 0 : Math.min(height - 1, Math.floor(((line - 1) / total) * height));
}

/**
 * @param {number} row
 * @param {number} total
 * @param {number} height
 * @returns {number} the first line that the row stands for
 */
export function lineOf(row, total, height) {
  return Math.min(Math.max(total, 1), Math.max(1, Math.ceil((row / height) * total) + 1));
}

/**
 * Return the rows that have at least one of some lines, each once, in order.
 *
 * @param {Iterable<number>} lines in order
 * @param {number} total
 * @param {number} height
 * @returns {number[]}
 */
export function rowsOf(lines, total, height) {
  /** @type {number[]} */
  const rows = [];
  for (const line of lines) {
    const row = rowOf(line, total, height);
    if (rows.at(-1) !== row) rows.push(row);
  }
  return rows;
}

/**
 * Return when lines were written, in order: by an outline's index, which short logs don't have, by its groups, and by
 * when the job began and ended. Nothing if neither index nor groups say anything.
 *
 * @param {{index: {line: number, at: number}[], groups: {line: number, end: number|null, t: string|null,
 *   seconds: number|null}[]}} outline
 * @param {{start: number, end: number, total: number}} job in milliseconds; NaN: not known
 * @returns {{line: number, at: number}[]}
 */
export function timesOf({ index, groups }, { start, end, total }) {
  const known = [...index];
  for (const { line, end: last, t, seconds } of groups) {
    const began = Date.parse(t ?? "");
    known.push({ line, at: began }, { line: last ?? line, at: began + (seconds ?? 0) * 1000 });
  }
  if (!known.some(({ at }) => Number.isFinite(at))) return [];
  const times = [{ line: 1, at: start }, ...known, { line: total, at: end }].filter(({ at }) => Number.isFinite(at));
  times.sort((one, other) => one.line - other.line || one.at - other.at);
  let latest = -Infinity;
  return times.map(({ line, at }) => ({ line, at: (latest = Math.max(latest, at)) }));
}

/**
 * Return how much of the job's time each row took, from 0 to 1 for the slowest one: by its square root, so that what is
 * spread over many rows is seen beside a pause.
 *
 * @param {{line: number, at: number}[]} times of lines, in milliseconds, in order
 * @param {number} total
 * @param {number} height
 * @returns {number[]}
 */
export function paceOf(times, total, height) {
  const rows = new Array(height).fill(0);
  for (let n = 1; n < times.length; n += 1) {
    const [from, to] = [times[n - 1], times[n]];
    const milliseconds = Math.max(0, to.at - from.at) || 0;
    const [first, last] = [rowOf(from.line, total, height), rowOf(to.line, total, height)];
    for (let row = first; row <= last; row += 1) rows[row] += milliseconds / (last - first + 1);
  }
  const slowest = Math.max(...rows, 1);
  return rows.map((milliseconds) => Math.sqrt(milliseconds / slowest));
}
