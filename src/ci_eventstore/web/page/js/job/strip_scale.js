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
 * Return how much of the job's time each row took, from 0 to 1 of the slowest one, by the outline's index.
 *
 * @param {{line: number, at: number}[]} index lines and their times in milliseconds, in order
 * @param {number} total
 * @param {number} height
 * @returns {number[]}
 */
export function paceOf(index, total, height) {
  const rows = new Array(height).fill(0);
  for (let n = 1; n < index.length; n += 1) {
    const [from, to] = [index[n - 1], index[n]];
    const milliseconds = Math.max(0, to.at - from.at) || 0;
    const [first, last] = [rowOf(from.line, total, height), rowOf(to.line, total, height)];
    for (let row = first; row <= last; row += 1) rows[row] += milliseconds / (last - first + 1);
  }
  const slowest = Math.max(...rows, 1);
  return rows.map((milliseconds) => milliseconds / slowest);
}
