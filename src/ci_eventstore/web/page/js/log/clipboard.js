/** What a view of a log puts into the clipboard, by keys, menus and buttons. */

import { selectedRange, textBetween, textHere, writeClipboard } from "./selection.js";

/** @typedef {import("./line_store.js").LineStore} LineStore */
/** @typedef {import("./selection.js").Point} Point */
/** @typedef {{start: Point, end: Point}} Between */

/** Dispatches `copied` ({lines, isCut}) and `failure` ({error}). */
export class LogClipboard extends EventTarget {
  /**
   * @param {Element} rows the parent of all rows
   * @param {LineStore} store
   * @param {AbortSignal} signal ends it
   */
  constructor(rows, store, signal) {
    super();
    this._rows = rows;
    this._store = store;
    this._signal = signal;
    /** Everything is selected, whatever of it is in the page. */
    this._hasAll = false;
    document.addEventListener("copy", (event) => this._copied(event), { signal });
    document.addEventListener("selectionchange", () => {
      this._hasAll = this._hasAll && selectedRange(rows) !== null;
    }, { signal });
  }

  /** Select the whole log. */
  selectAll() {
    document.getSelection()?.selectAllChildren(this._rows);
    this._hasAll = true;
  }

  /**
   * Copy what is selected, or else some lines, or else everything. Called while a key or a button is handled.
   *
   * @param {{from: number, to: number} | null} lines
   * @returns {Promise<{lines: number, isCut: boolean}>} the lines that were copied, and whether there were more
   */
  async copy(lines) {
    const { start, end } = this._selected() ?? between(lines?.from ?? 1, lines?.to ?? this._store.total);
    const coming = textBetween(this._store, start, end, this._signal);
    await writeClipboard(coming.then(({ text }) => text));
    const { lines: count, isCut } = await coming;
    return this._report({ lines: count, isCut });
  }

  /** @returns {Between | null} */
  _selected() {
    return this._hasAll ? between(1, this._store.total) : selectedRange(this._rows);
  }

  /** @param {ClipboardEvent} event */
  _copied(event) {
    const target = event.target instanceof Element ? event.target : null;
    const range = target?.closest("input, textarea") ? null : this._selected();
    if (!range || !event.clipboardData) return;
    event.preventDefault();
    const text = textHere(this._store, range.start, range.end);
    if (text === null) {
      this.copy(null).catch((error) => this.dispatchEvent(new CustomEvent("failure", { detail: { error } })));
      return;
    }
    event.clipboardData.setData("text/plain", text);
    this._report({ lines: range.end.line - range.start.line + 1, isCut: false });
  }

  /** @param {{lines: number, isCut: boolean}} detail */
  _report(detail) {
    this.dispatchEvent(new CustomEvent("copied", { detail }));
    return detail;
  }
}

/**
 * @param {number} from
 * @param {number} to
 * @returns {Between}
 */
function between(from, to) {
  return { start: { line: from, offset: 0 }, end: { line: Math.max(from, to), offset: Infinity } };
}
