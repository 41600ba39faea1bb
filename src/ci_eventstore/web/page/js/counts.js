/**
 * Counts as people read them. Pure.
 */

/**
 * Return a whole number with commas between thousands. `Intl` would take tens of milliseconds at its first use.
 *
 * @param {number} number
 */
export function formatCount(number) {
  return String(number).replace(/\B(?=(?:\d{3})+$)/gu, ",");
}

/**
 * Return a number of things: `1 line`, `2,000 lines`.
 *
 * @param {number} number
 * @param {string} word
 */
export function countOf(number, word) {
  return `${formatCount(number)} ${word}${number === 1 ? "" : "s"}`;
}
