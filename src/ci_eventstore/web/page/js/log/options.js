/** What people choose for the view of a log, and what the page tells it. */

/**
 * @typedef {object} Options
 * @property {boolean} wrap long lines go on below
 * @property {import("./times.js").TimeMode} times
 * @property {boolean} isScreenReader plain lines, some hundred at a time, in place of a scroll box
 * @property {number} start when the job began, in milliseconds since 1970; elapsed times count from it
 * @property {(n: number) => string} lineHref the address of a line
 * @property {(n: number) => string} textHref where all of a line's text is
 */

/** @type {Options} */
export const DEFAULTS = {
  wrap: false,
  times: "none",
  isScreenReader: false,
  start: NaN,
  lineHref: (n) => `#line=${n}`,
  textHref: (n) => `#text=${n}`,
};
