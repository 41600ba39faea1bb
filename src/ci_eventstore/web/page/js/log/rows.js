/**
 * The rows that are in the page: those on the screen, and those in which a selection begins and ends.
 *
 * Rows stand one after the other, so that the browser makes them as high as they are; a row that looks the same stays
 * the same element, so that a selection in it lasts.
 */

import { Row } from "./row.js";

/** @typedef {import("./row.js").RowContent} RowContent */
/** @typedef {import("./options.js").Options} Options */

/** All that is drawn at once. One line takes at most the parser's runs, and 16 Ki of its text. */
const MOST_UNITS = 200_000;
const MOST_RUNS = 1700;
const MOST_UNITS_OF_A_LINE = 16384;
/** Every row may have this much, however much the others had. */
const LEAST_UNITS = 400;
const LEAST_RUNS = 4;

export class Rows {
  /** @param {Element} parent */
  constructor(parent) {
    this._parent = parent;
    /** @type {Map<number, Row>} */
    this._rows = new Map();
    /** @type {Set<number>} */
    this.lines = new Set();
  }

  /** The rows on the screen. */
  get shown() {
    return [...this._rows.values()].filter(({ n }) => this.lines.has(n));
  }

  /**
   * Return the row of a line, if it is in the page.
   *
   * @param {number} line
   */
  of(line) {
    return this._rows.get(line) ?? null;
  }

  /**
   * Show these lines, in this order, and keep some others where nobody sees them.
   *
   * @param {RowContent[]} contents
   * @param {Options} options
   * @param {ReadonlySet<number>} kept
   */
  show(contents, options, kept) {
    this.lines = new Set(contents.map(({ n }) => n));
    for (const [line, row] of this._rows) {
      if (this.lines.has(line)) continue;
      if (kept.has(line)) row.element.classList.add("is-kept");
      else this._remove(row);
    }
    const budget = { units: MOST_UNITS, runs: MOST_RUNS };
    /** @type {Element | null} */
    let before = null;
    for (const content of contents) {
      const row = this._rowFor(content, options, budget);
      row.element.classList.remove("is-kept");
      this._place(row, before);
      before = row.element;
    }
  }

  /** Remove all rows; the next ones are drawn anew. */
  clear() {
    for (const row of this._rows.values()) this._remove(row);
    this.lines.clear();
  }

  /**
   * @param {RowContent} content
   * @param {Options} options
   * @param {{units: number, runs: number}} budget
   */
  _rowFor(content, options, budget) {
    const old = this._rows.get(content.n);
    if (old?.isFor(content)) {
      budget.units -= content.parsed?.text.length ?? 0;
      budget.runs -= content.parsed?.runs.length ?? 0;
      return old;
    }
    const own = {
      units: Math.min(MOST_UNITS_OF_A_LINE, Math.max(LEAST_UNITS, budget.units)),
      runs: Math.max(LEAST_RUNS, budget.runs),
    };
    const { units, runs } = own;
    const row = new Row(content, options, own);
    budget.units -= units - own.units;
    budget.runs -= runs - Math.max(0, own.runs);
    if (old) {
      old.element.before(row.element);
      this._remove(old, row);
    }
    this._rows.set(content.n, row);
    return row;
  }

  /**
   * Put a row after another one. Rows that are kept stand among them by their numbers, as a selection needs it.
   *
   * @param {Row} row
   * @param {Element | null} before
   */
  _place(row, before) {
    let next = before ? before.nextElementSibling : this._parent.firstElementChild;
    while (next && next !== row.element && next.classList.contains("is-kept") && lineOf(next) < row.n) {
      next = next.nextElementSibling;
    }
    if (next !== row.element) this._parent.insertBefore(row.element, next);
  }

  /**
   * Remove a row. If it has the keyboard, the same thing in the row that takes its place gets it, or else the log.
   *
   * @param {Row} row
   * @param {Row} [next]
   */
  _remove(row, next) {
    const { activeElement } = document;
    if (activeElement && row.element.contains(activeElement)) {
      const [name] = activeElement.classList;
      const same = (name && next?.element.querySelector(`.${name}`)) || this._parent.closest("[tabindex='0']");
      if (same instanceof HTMLElement) same.focus({ preventScroll: true });
    }
    row.element.remove();
    this._rows.delete(row.n);
  }
}

/**
 * Return the line of a row's element.
 *
 * @param {Element} element
 */
export function lineOf(element) {
  return Number(element.getAttribute("data-line"));
}
