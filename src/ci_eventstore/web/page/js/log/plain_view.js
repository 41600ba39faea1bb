/**
 * A log for screen readers: some hundred lines at a time, which stay where they are while they are read.
 *
 * Lines are paragraphs of text with their numbers, without virtual rows, colours or live regions. Buttons lead to the
 * lines before and after.
 */

import { make } from "./row.js";

/** @typedef {import("./line_store.js").LineStore} LineStore */

const LINES_AT_ONCE = 500;
const MOST_UNITS = 2000;

export class PlainView {
  /**
   * @param {Element} parent
   * @param {LineStore} store
   * @param {(n: number) => string} lineHref
   * @param {() => void} onturn called before other lines are shown because somebody wants them
   */
  constructor(parent, store, lineHref, onturn) {
    this._store = store;
    this._lineHref = lineHref;
    this._onturn = onturn;
    this._first = 1;
    this._focused = 0;
    this._drawn = "";
    this._element = make("section", "log-plain");
    this._element.setAttribute("aria-label", "Log, as plain lines");
    this._element.hidden = true;
    this._before = this._button("lines before", -1);
    this._after = this._button("lines after", 1);
    this._lines = make("div", "log-plain-lines");
    this._element.append(this._before, this._lines, this._after);
    parent.append(this._element);
  }

  /** @param {boolean} isShown */
  setShown(isShown) {
    this._element.hidden = !isShown;
    this._drawn = "";
  }

  /**
   * Show the lines around one.
   *
   * @param {number} n
   * @param {boolean} [hasFocus] whether reading goes on at that line
   */
  goTo(n, hasFocus = false) {
    this._first = Math.max(1, Math.floor((n - 1) / LINES_AT_ONCE) * LINES_AT_ONCE + 1);
    this._focused = hasFocus ? n : 0;
    this.draw(false);
  }

  /**
   * Draw the lines, if they have changed.
   *
   * @param {boolean} isAtEnd whether the last ones are shown
   */
  draw(isAtEnd) {
    const { total } = this._store;
    if (isAtEnd) this._first = Math.max(1, Math.floor((total - 1) / LINES_AT_ONCE) * LINES_AT_ONCE + 1);
    const last = Math.min(total, this._first + LINES_AT_ONCE - 1);
    this._store.show(this._first, Math.max(this._first, last));
    this._before.hidden = this._first === 1;
    this._after.hidden = last >= total;
    /** @type {(import("./page_of_lines.js").Line | null)[]} */
    const lines = [];
    for (let n = this._first; n <= last; n += 1) lines.push(this._store.get(n));
    const key = `${this._first} ${lines.length} ${lines.findIndex((line) => !line)} ${lines.at(-1)?.text.length}`;
    if (key !== this._drawn) this._draw(lines);
    this._drawn = key;
    if (this._focused) this._focus();
  }

  /** @param {(import("./page_of_lines.js").Line | null)[]} lines */
  _draw(lines) {
    const drawn = lines.map((line, place) => {
      const n = this._first + place;
      const old = this._lines.querySelector(`[data-line="${n}"]`);
      const text = `${n}: ${line ? (this._store.parsed(n)?.text ?? "").slice(0, MOST_UNITS) : "…"}`;
      if (old && old.textContent === text) return old;
      const element = make("p", "log-plain-line");
      element.dataset.line = String(n);
      element.tabIndex = -1;
      element.textContent = text;
      return element;
    });
    this._lines.replaceChildren(...drawn);
  }

  _focus() {
    const element = this._lines.querySelector(`[data-line="${this._focused}"]`);
    if (!(element instanceof HTMLElement) || !this._store.peek(this._focused)) return;
    this._focused = 0;
    element.focus();
    element.scrollIntoView({ block: "center" });
  }

  /**
   * @param {string} name
   * @param {number} direction
   */
  _button(name, direction) {
    const button = make("button", "log-plain-more");
    button.setAttribute("type", "button");
    button.textContent = `${LINES_AT_ONCE} ${name}`;
    button.addEventListener("click", () => {
      this._onturn();
      this.goTo(this._first + direction * LINES_AT_ONCE, false);
      this._focused = direction > 0 ? this._first : Math.min(this._store.total, this._first + LINES_AT_ONCE - 1);
      this.draw(false);
    });
    return button;
  }
}
