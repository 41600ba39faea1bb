/** What a view of a log puts into the clipboard, by the browser's keys and menus. */

import { selectedRange, textBetween, textHere, writeClipboard } from "./selection.js";

/** @typedef {import("./line_store.js").LineStore} LineStore */
/** @typedef {import("./selection.js").Point} Point */
/** @typedef {{start: Point, end: Point}} Between */

/**
 * Dispatches `copied` ({lines, isCut}) on the rows, from where it bubbles to whoever tells it; without lines if the
 * browser let nothing into the clipboard.
 */
export class LogClipboard {
  /**
   * @param {Element} rows the parent of all rows
   * @param {LineStore} store
   * @param {AbortSignal} signal ends it
   */
  constructor(rows, store, signal) {
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

  /** @returns {Between | null} */
  _selected() {
    const all = { start: { line: 1, offset: 0 }, end: { line: Math.max(1, this._store.total), offset: Infinity } };
    return this._hasAll ? all : selectedRange(this._rows);
  }

  /** @param {ClipboardEvent} event */
  _copied(event) {
    const target = event.target instanceof Element ? event.target : null;
    const range = target?.closest("input, textarea") ? null : this._selected();
    if (!range || !event.clipboardData) return;
    event.preventDefault();
    const text = textHere(this._store, range.start, range.end);
    if (text === null) {
      this._copy(range).catch(() => this._report(0, false));
      return;
    }
    event.clipboardData.setData("text/plain", text);
    this._report(range.end.line - range.start.line + 1, false);
  }

  /**
   * Copy lines that have to be fetched.
   *
   * @param {Between} range
   */
  async _copy({ start, end }) {
    const coming = textBetween(this._store, start, end, this._signal);
    await writeClipboard(coming.then(({ text }) => text));
    const { lines, isCut } = await coming;
    this._report(lines, isCut);
  }

  /**
   * @param {number} lines
   * @param {boolean} isCut
   */
  _report(lines, isCut) {
    this._rows.dispatchEvent(new CustomEvent("copied", { bubbles: true, detail: { lines, isCut } }));
  }
}
