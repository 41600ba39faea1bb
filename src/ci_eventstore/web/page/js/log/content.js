/**
 * Draw a parsed line as text nodes and elements.
 *
 * Nothing that a log says becomes markup: there are text nodes, classes, two colours, and links that were checked.
 * The text of the drawn nodes has as many UTF-16 units as the line, so that places in both are the same.
 */

import { deceivedHost } from "./links.js";
import { styleOf } from "./style.js";

/** @typedef {import("./ansi.js").Parsed} Parsed */
/** @typedef {import("./ansi.js").Run} Run */
/** @typedef {{start: number, end: number, isCurrent: boolean}} Hit */

/**
 * What turns the direction of text, or can't be seen, and may make it read as what it isn't. Joiners stay as they are:
 * languages and emoji need them.
 */
const UNSEEN = /[\u00ad\u061c\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u2064\u2066-\u206f\ufeff\ufff9-\ufffb]/u;
/** Stands for one of them. */
const SHOWN = "\u25c7";
/** More marks above and below one letter than any language has; browsers take seconds for thousands of them. */
const PILES = /(?<=\p{M}{8})\p{M}+/gu;
/** Has no width; each unit of a mark that isn't shown becomes one. */
const NOTHING = "\u200b";

/**
 * Draw a line, or its beginning.
 *
 * @param {Element} parent what gets the nodes; it is emptied
 * @param {Parsed} parsed
 * @param {{units: number, runs: number}} budget how much may be drawn; what is drawn is taken from it
 * @param {readonly Hit[]} [hits] places to be marked by elements
 * @returns {number} how many units of the text were drawn
 */
export function drawContent(parent, parsed, budget, hits = []) {
  const nodes = [];
  const end = Math.min(parsed.text.length, budget.units);
  for (const run of parsed.runs) {
    if (run.start >= end) break;
    const text = parsed.text.slice(run.start, Math.min(run.end, end));
    budget.runs -= 1;
    if (budget.runs < 0) {
      nodes.push(...textNodes(parsed.text.slice(run.start, end)));
      break;
    }
    const inner = hits.length ? marked(text, run.start, hits) : textNodes(text);
    nodes.push(...(isBare(run) ? inner : [element(run, text, inner)]));
  }
  budget.units -= end;
  parent.replaceChildren(...nodes);
  return end;
}

/** @param {Run} run */
function isBare({ style, link }) {
  const { className, color, background } = styleOf(style);
  return !link && !className && !color && !background;
}

/**
 * @param {Run} run
 * @param {string} text
 * @param {Node[]} inner
 */
function element({ style, link }, text, inner) {
  const { className, color, background } = styleOf(style);
  const drawn = document.createElement(link ? "a" : "span");
  if (className) drawn.className = className;
  if (color) drawn.style.color = color;
  if (background) drawn.style.backgroundColor = background;
  if (drawn instanceof HTMLAnchorElement && link) {
    drawn.href = link;
    drawn.title = link;
    drawn.target = "_blank";
    drawn.rel = "noopener noreferrer nofollow";
    drawn.tabIndex = -1;
    const host = deceivedHost(link, text);
    if (host) drawn.dataset.host = host;
  }
  drawn.append(...inner);
  return drawn;
}

/**
 * @param {string} text
 * @returns {Node[]}
 */
function textNodes(text) {
  if (!UNSEEN.test(text)) return [textNode(text)];
  /** @type {Node[]} */
  const nodes = [];
  let rest = "";
  for (const sign of text) {
    if (!UNSEEN.test(sign)) {
      rest += sign;
      continue;
    }
    if (rest) nodes.push(textNode(rest));
    rest = "";
    const mark = document.createElement("span");
    mark.className = "log-unseen";
    mark.dataset.code = `U+${sign.charCodeAt(0).toString(16).toUpperCase().padStart(4, "0")}`;
    mark.textContent = SHOWN;
    nodes.push(mark);
  }
  if (rest) nodes.push(textNode(rest));
  return nodes;
}

/** @param {string} text */
function textNode(text) {
  return document.createTextNode(text.replace(PILES, (pile) => NOTHING.repeat(pile.length)));
}

/**
 * @param {string} text
 * @param {number} start where the text begins in the line
 * @param {readonly Hit[]} hits
 * @returns {Node[]}
 */
function marked(text, start, hits) {
  /** @type {Node[]} */
  const nodes = [];
  let place = 0;
  for (const hit of hits) {
    const [from, to] = [Math.max(hit.start - start, place), Math.min(hit.end - start, text.length)];
    if (to <= from) continue;
    if (from > place) nodes.push(...textNodes(text.slice(place, from)));
    const mark = document.createElement("mark");
    mark.className = hit.isCurrent ? "log-hit is-current" : "log-hit";
    mark.append(...textNodes(text.slice(from, to)));
    nodes.push(mark);
    place = to;
  }
  if (place < text.length) nodes.push(...textNodes(text.slice(place)));
  return nodes;
}

/**
 * Return the range of drawn nodes for a place in a line's text; null if it wasn't drawn.
 *
 * @param {Element} parent
 * @param {number} start
 * @param {number} end
 * @returns {Range | null}
 */
export function rangeOf(parent, start, end) {
  const walker = document.createTreeWalker(parent, NodeFilter.SHOW_TEXT);
  const range = document.createRange();
  let [place, hasStart] = [0, false];
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    const { length } = /** @type {Text} */ (node);
    if (!hasStart && start < place + length) {
      range.setStart(node, start - place);
      hasStart = true;
    }
    if (hasStart) {
      range.setEnd(node, Math.min(end - place, length));
      if (end <= place + length) return range;
    }
    place += length;
  }
  return hasStart ? range : null;
}

/**
 * Return the place in a line's text of a point in its drawn nodes.
 *
 * @param {Element} parent
 * @param {Node} node in the parent, or the parent
 * @param {number} offset
 */
export function offsetIn(parent, node, offset) {
  const range = document.createRange();
  range.setStart(parent, 0);
  range.setEnd(node, offset);
  return range.toString().length;
}
