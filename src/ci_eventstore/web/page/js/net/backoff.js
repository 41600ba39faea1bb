/**
 * When to ask a server again that didn't answer, or refused. Pure.
 */

const FIRST_MS = 1000;
const LONGEST_MS = 30_000;

/**
 * Return how long to wait before a try: twice as long each time, half of it by chance, so that a thousand pages that
 * lost the same server don't all come back in the same moment.
 *
 * @param {number} failures how many tries have failed in a row, at least 1
 * @param {number} chance from 0 to 1
 * @param {number|null} [retryAfterMs] what the server asked for: never sooner
 * @returns {number} milliseconds
 */
export function retryDelay(failures, chance, retryAfterMs = null) {
  const longest = Math.min(LONGEST_MS, FIRST_MS * 2 ** Math.min(failures - 1, 10));
  const delay = longest / 2 + (longest / 2) * chance;
  return retryAfterMs === null ? delay : Math.max(delay, retryAfterMs + FIRST_MS * chance);
}

/**
 * Return what a `Retry-After` header asks for, in milliseconds, at most ten minutes; null without one.
 *
 * @param {string|null} header seconds, or a date
 * @param {number} now
 * @returns {number|null}
 */
export function parseRetryAfter(header, now) {
  if (!header) return null;
  const asked = /^\s*\d+\s*$/.test(header) ? Number(header) * 1000 : Date.parse(header) - now;
  return Number.isNaN(asked) ? null : Math.min(Math.max(asked, 0), 600_000);
}
