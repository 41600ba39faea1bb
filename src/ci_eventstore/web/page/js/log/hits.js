/**
 * Show what a search found, in the rows that are drawn.
 *
 * Where the browser has custom highlights, nothing is drawn anew, and a selection survives; elsewhere rows are drawn
 * with `mark` elements.
 */

import { rangeOf } from "./content.js";

/** @typedef {import("./content.js").Hit} Hit */

/**
 * @typedef {object} FoundHits
 * @property {Map<number, [number, number][]>} hits places in lines' plain texts, by number
 * @property {{line: number, index: number} | null} [current] the one that somebody is at
 */

const NAMES = { all: "log-hit", current: "log-hit-current" };

/** Whether highlights need no elements. */
export const HAS_HIGHLIGHTS = typeof CSS !== "undefined" && "highlights" in CSS && typeof Highlight === "function";

/**
 * Return the hits in a line.
 *
 * @param {FoundHits | null} found
 * @param {number} line
 * @returns {Hit[]}
 */
export function hitsIn(found, line) {
  const places = found?.hits.get(line) ?? [];
  const current = found?.current?.line === line ? found.current.index : -1;
  return places.map(([start, end], index) => ({ start, end, isCurrent: index === current }));
}

/**
 * Highlight hits in drawn rows, and nothing else.
 *
 * @param {FoundHits | null} found
 * @param {Iterable<{line: number, content: Element, isWhole: boolean}>} rows `isWhole`: its text isn't the line's
 */
export function highlight(found, rows) {
  if (!HAS_HIGHLIGHTS) return;
  const [all, current] = [new Highlight(), new Highlight()];
  if (found && found.hits.size > 0) {
    for (const { line, content, isWhole } of rows) {
      for (const { start, end, isCurrent } of hitsIn(found, line)) {
        const range = isWhole ? rangeOf(content, 0, Infinity) : rangeOf(content, start, end);
        if (range) (isCurrent ? current : all).add(range);
      }
    }
  }
  CSS.highlights.set(NAMES.all, all);
  CSS.highlights.set(NAMES.current, current);
}
