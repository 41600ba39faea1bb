/**
 * Copy from a log over any distance: from one line and place to another, whatever of it is in the page.
 *
 * The text is made from lines' numbers and places in them: without numbers, times and escapes, with every character
 * that the view shows as a mark.
 */

import { offsetIn } from "./content.js";
import { parseLine } from "./ansi.js";
import { lineOf } from "./rows.js";

/** @typedef {import("./line_store.js").LineStore} LineStore */

/** @typedef {{line: number, offset: number}} Point a place in a line; the offset may be Infinity */

/** No clipboard is made for more. */
const MOST_UNITS = 32 * 1024 * 1024;

/**
 * Return what is selected in the rows, from its first point to its last; null if nothing is.
 *
 * @param {Element} parent of the rows
 * @returns {{start: Point, end: Point} | null}
 */
export function selectedRange(parent) {
  const selection = document.getSelection();
  if (!selection || selection.isCollapsed || selection.rangeCount === 0) return null;
  const range = selection.getRangeAt(0);
  if (!range.intersectsNode(parent)) return null;
  const start = pointOf(parent, range.startContainer, range.startOffset, true);
  const end = pointOf(parent, range.endContainer, range.endOffset, false);
  return start && end ? { start, end } : null;
}

/**
 * Return the lines in whose rows a selection begins and ends. A click may become one, with the shift key elsewhere.
 *
 * @param {Element} parent
 * @returns {Set<number>}
 */
export function selectedEnds(parent) {
  /** @type {Set<number>} */
  const lines = new Set();
  const selection = document.getSelection();
  if (!selection) return lines;
  for (const node of [selection.anchorNode, selection.focusNode]) {
    const row = parent.contains(node) ? rowAround(node) : null;
    if (row) lines.add(lineOf(row));
  }
  return lines;
}

/**
 * @param {Node | null} node
 * @returns {Element | null}
 */
function rowAround(node) {
  const element = node instanceof Element ? node : (node?.parentElement ?? null);
  return element?.closest(".log-row") ?? null;
}

/**
 * @param {Element} parent
 * @param {Node} node
 * @param {number} offset
 * @param {boolean} isStart
 * @returns {Point | null}
 */
function pointOf(parent, node, offset, isStart) {
  const row = rowAround(node);
  if (!row) {
    // The selection begins before the rows, ends after them, or is between two of them.
    const rows = [...parent.children].filter((child) => !child.classList.contains("is-kept"));
    const edge = node === parent ? parent.children[isStart ? offset : offset - 1] : rows.at(isStart ? 0 : -1);
    return edge ? { line: lineOf(edge), offset: isStart ? 0 : Infinity } : null;
  }
  const content = row.querySelector(".log-content");
  if (!content || row.classList.contains("is-group")) return { line: lineOf(row), offset: isStart ? 0 : Infinity };
  if (content.contains(node)) return { line: lineOf(row), offset: offsetIn(content, node, offset) };
  const isAfter = content.compareDocumentPosition(node) & Node.DOCUMENT_POSITION_FOLLOWING;
  return { line: lineOf(row), offset: isAfter ? Infinity : 0 };
}

/**
 * Return the text from one point to another.
 *
 * @param {LineStore} store
 * @param {Point} start
 * @param {Point} end
 * @param {AbortSignal} signal
 * @returns {Promise<{text: string, lines: number, isCut: boolean}>}
 */
export async function textBetween(store, start, end, signal) {
  const pieces = [];
  let units = 0;
  for await (const line of store.read(start.line, end.line, signal)) {
    const { text } = parseLine(line.text);
    const piece = text.slice(line.n === start.line ? start.offset : 0, line.n === end.line ? end.offset : Infinity);
    units += piece.length + 1;
    if (units > MOST_UNITS) return { text: pieces.join("\n"), lines: pieces.length, isCut: true };
    pieces.push(piece);
  }
  return { text: pieces.join("\n"), lines: pieces.length, isCut: false };
}

/**
 * Return the text from one point to another if all of its lines are here; null if some have to be fetched.
 *
 * @param {LineStore} store
 * @param {Point} start
 * @param {Point} end
 * @returns {string | null}
 */
export function textHere(store, start, end) {
  const pieces = [];
  for (let n = start.line; n <= Math.min(end.line, store.total); n += 1) {
    const line = store.peek(n);
    if (!line) return null;
    const { text } = parseLine(line.text);
    pieces.push(text.slice(n === start.line ? start.offset : 0, n === end.line ? end.offset : Infinity));
  }
  return pieces.join("\n");
}

/**
 * Put a text that is still to come into the clipboard. Called while a key or a button is handled.
 *
 * @param {Promise<string>} coming
 */
export async function writeClipboard(coming) {
  if (navigator.clipboard && typeof ClipboardItem === "function") {
    const blob = coming.then((text) => new Blob([text], { type: "text/plain" }));
    await navigator.clipboard.write([new ClipboardItem({ "text/plain": blob })]);
    return;
  }
  writeByCommand(await coming);
}

/**
 * Put a text into the clipboard where the page isn't trusted with it: on plain HTTP.
 *
 * @param {string} text
 */
function writeByCommand(text) {
  const active = document.activeElement;
  const area = document.createElement("textarea");
  area.value = text;
  area.className = "log-clipboard";
  document.body.append(area);
  area.select();
  const isDone = document.execCommand("copy");
  area.remove();
  if (active instanceof HTMLElement) active.focus({ preventScroll: true });
  if (!isDone) throw new Error("the browser let nothing into the clipboard");
}
