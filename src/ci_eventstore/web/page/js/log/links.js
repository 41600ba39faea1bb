/**
 * Which links of a log may be followed, and the addresses in its text.
 *
 * Addresses come from anybody, so only those that open a page or a mail are links at all.
 */

const SCHEMES = new Set(["http:", "https:", "mailto:"]);
const LONGEST_ADDRESS = 2048;
/** Addresses of a line that are links; those after them are text. */
const MOST_LINKS = 200;
const OPENING = /** @type {Record<string, string>} */ ({ ")": "(", "]": "[", "}": "{" });
const TRAILING = ".,;:!?'\"*_~`";

/**
 * Return an address as a link may have it; null if it must not be one.
 *
 * @param {string} address
 * @returns {string | null}
 */
export function safeLink(address) {
  if (address.length > LONGEST_ADDRESS || !URL.canParse(address)) return null;
  const url = new URL(address);
  return SCHEMES.has(url.protocol) && !url.username && !url.password ? url.href : null;
}

/**
 * Return the host to which a link leads, if its text looks like another address; null: the text doesn't deceive.
 *
 * @param {string} href
 * @param {string} text
 * @returns {string | null}
 */
export function deceivedHost(href, text) {
  const host = new URL(href).hostname;
  const shown = text.trim().toLowerCase();
  const named = shown.replace(/^[a-z][a-z0-9+.-]{0,20}:\/\//u, "").split(/[/?#:\s]/u, 1)[0];
  if (!/^[^\s.]+(\.[^\s.]+)+$/u.test(named) || !/[a-z]{2,}$/u.test(named)) return null;
  return named === host || host.endsWith(`.${named}`) ? null : host;
}

/**
 * @typedef {object} Found
 * @property {number} start
 * @property {number} end
 * @property {string} link
 */

/**
 * Return the addresses in plain text, without the punctuation after them.
 *
 * @param {string} text
 * @returns {Found[]}
 */
export function findAddresses(text) {
  /** @type {Found[]} */
  const found = [];
  for (let at = text.indexOf("http"); at !== -1 && found.length < MOST_LINKS; at = text.indexOf("http", at + 4)) {
    const start = at;
    if (!text.startsWith("://", at + 4) && !text.startsWith("s://", at + 4)) continue;
    if (start > 0 && /[\p{L}\p{N}_]/u.test(text[start - 1])) continue;
    const end = trimmedEnd(text, start, addressEnd(text, start));
    const link = safeLink(text.slice(start, end));
    if (link) found.push({ start, end, link });
    at = Math.max(at, end - 4);
  }
  return found;
}

/**
 * @param {string} text
 * @param {number} start
 */
function addressEnd(text, start) {
  const most = Math.min(text.length, start + LONGEST_ADDRESS);
  let end = start;
  while (end < most && !/[\s<>"`\\^{|}\u0000-\u0020\u007f-\u009f\u200e\u200f\u202a-\u202e\u2066-\u2069]/u.test(text[end])) {
    end += 1;
  }
  return end;
}

/**
 * @param {string} text
 * @param {number} start
 * @param {number} end
 */
function trimmedEnd(text, start, end) {
  let last = end;
  while (last > start) {
    const sign = text[last - 1];
    if (OPENING[sign]) {
      const inside = text.slice(start, last);
      if (inside.split(sign).length <= inside.split(OPENING[sign]).length) break;
    } else if (!TRAILING.includes(sign)) break;
    last -= 1;
  }
  return last;
}
