/**
 * Which lines a terminal would have overwritten: a progress of several lines moves up, and draws all of them anew.
 *
 * A log keeps each drawing as lines with numbers of their own. Those in whose place a later one stands are marked, so
 * that the last drawing, which a terminal would show, stands out. Pure.
 */

import { MOST_UP } from "./ansi.js";

/** @typedef {import("./line_store.js").LineStore} LineStore */
/** @typedef {{n: number, parsed: {up: number, text: string}|null, isOverwritten: boolean}} Overwritable */

/**
 * Mark the rows in whose place a line after them stands, as far as the lines are here.
 *
 * @param {Overwritable[]} rows in the order of their lines
 * @param {Pick<LineStore, "peek"|"parsed">} store
 */
export function markOverwritten(rows, store) {
  const last = rows.at(-1)?.n ?? 0;
  /** @type {Omit<Overwritable, "isOverwritten">[]} */
  const lines = [...rows];
  for (let n = last + 1; n <= last + MOST_UP && store.peek(n); n += 1) lines.push({ n, parsed: store.parsed(n) });
  if (!lines.some(({ parsed }) => parsed?.up)) return;
  const places = placesOf(lines);
  /** @type {Map<number, number>} */
  const seen = new Map();
  lines.forEach(({ n, parsed }, index) => parsed?.text && seen.set(places[index], n));
  rows.forEach((row, index) => {
    row.isOverwritten = (seen.get(places[index]) ?? 0) > row.n;
  });
}

/**
 * Return the row of a terminal in which each line ends; nothing goes below the last row.
 *
 * @param {Omit<Overwritable, "isOverwritten">[]} lines
 */
function placesOf(lines) {
  let [place, lowest, before] = [0, 0, lines[0].n];
  return lines.map(({ n, parsed }) => {
    place += n - before;
    lowest = Math.max(lowest, place);
    place = Math.min(lowest, place - (parsed?.up ?? 0));
    before = n;
    return place;
  });
}
