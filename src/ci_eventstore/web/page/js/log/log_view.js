/**
 * The view of a log: rows of lines in a scroll box, of any number, live.
 *
 * Lines come from a `LineStore`, groups from an `Outline`. Only the rows on the screen are in the page. Where
 * somebody looks stays where it is, whatever arrives; only a view that follows moves, and it follows while its end is
 * seen.
 */

import { perFrame } from "../frames.js";
import { HAS_HIGHLIGHTS, highlight, hitsIn } from "./hits.js";
import { DEFAULTS } from "./options.js";
import { Heights } from "./heights.js";
import { PlainView } from "./plain_view.js";
import { Rows, lineOf } from "./rows.js";
import { ScrollBox } from "./scroll_box.js";
import { Viewport } from "./viewport.js";
import { make } from "./row.js";
import { LogClipboard } from "./clipboard.js";
import { markOverwritten } from "./overwritten.js";
import { selectedEnds } from "./selection.js";

/** @typedef {import("./line_store.js").LineStore} LineStore */
/** @typedef {import("./outline.js").Outline} Outline */
/** @typedef {import("./hits.js").FoundHits} FoundHits */
/** @typedef {import("./options.js").Options} Options */
/** @typedef {import("./row.js").RowContent} RowContent */

/** Rows above and below the screen that are measured before they come. */
const MORE_ROWS = 8;
const FLASH_MILLISECONDS = 1600;

/**
 * Dispatches `followchange` ({isFollowing}), `linepick` ({line, isRange}), `foldtoggle` ({line, isFolded, folded}),
 * `visible` ({first, last}) and `newlines` ({count}); its element gets `copied` of `LogClipboard`.
 */
export class LogView extends EventTarget {
  /**
   * @param {Element} element
   * @param {{store: LineStore, outline: Outline, options?: Partial<Options>}} given
   */
  constructor(element, { store, outline, options = {} }) {
    super();
    this.store = store;
    this.outline = outline;
    this.options = { ...DEFAULTS, ...options };
    this.isFollowing = false;
    this._element = make("div", "log-view");
    element.append(this._element);
    this._heights = new Heights();
    this._viewport = new Viewport();
    this._box = new ScrollBox(this._element, this._viewport);
    this._rows = new Rows(this._box.rows);
    this._plain = new PlainView(this._element, store, (n) => this.options.lineHref(n), () => this.follow(false));
    /** @type {FoundHits | null} */
    this._found = null;
    /** @type {{from: number, to: number} | null} */
    this._selected = null;
    this._flashed = 0;
    this._seen = 0;
    this._drawSoon = perFrame(() => this._drawFrame());
    this._direction = 0;
    this._visible = { first: 0, last: 0 };
    this._stop = new AbortController();
    this._clipboard = new LogClipboard(this._box.rows, store, this._stop.signal);
    this._listen();
    this.setOptions({});
  }

  /**
   * Change some options; the line at the top stays there.
   *
   * @param {Partial<Options>} options
   */
  setOptions(options) {
    const line = this._lineOf(this._viewport.place.row);
    const wasPlain = this.options.isScreenReader;
    this.options = { ...this.options, ...options };
    const { wrap, isScreenReader, times } = this.options;
    this._element.classList.toggle("is-wrapped", wrap);
    this._element.classList.toggle("is-plain", isScreenReader);
    this._element.classList.toggle("has-times", times !== "none");
    this._viewport.useHeights(wrap ? (row) => this._heightOf(row) : null);
    this._rows.clear();
    this._heights.clear();
    this._box.resetWidth();
    this._measure();
    this._plain.setShown(isScreenReader);
    if (isScreenReader && !wasPlain) this._plain.goTo(line);
    if (this.isFollowing) this._goToEnd();
    else this._viewport.goTo(this.outline.folds.rowOf(line));
    this._drawSoon();
  }

  /**
   * Go to a line. Groups that hide it are opened.
   *
   * @param {number} n
   * @param {{align?: "start" | "center" | "end" | "nearest", flash?: boolean}} [how]
   */
  scrollToLine(n, { align = "center", flash = false } = {}) {
    this.follow(false);
    if (this.outline.folds.isHidden(n)) this._fold(this.outline.foldedWithout(n));
    if (this.options.isScreenReader) this._plain.goTo(n, flash);
    this._count();
    this._viewport.goTo(this.outline.folds.rowOf(n), align);
    if (flash) this._flash(n);
    this._draw();
    this._box.settle({ isJump: true });
  }

  /**
   * Follow the log's end, or stay.
   *
   * @param {boolean} isFollowing
   */
  follow(isFollowing) {
    if (isFollowing) this._goToEnd();
    this._setFollowing(isFollowing);
    this._drawSoon();
  }

  /** @param {FoundHits | null} found what a search found; null: nothing is searched for */
  setHits(found) {
    this._found = found;
    this._drawSoon();
  }

  /** @param {ReadonlySet<number>} folded the lines of the groups that are folded */
  setFolded(folded) {
    const line = this._lineOf(this._viewport.place.row);
    this.outline.setFolded(folded);
    this._count();
    this._viewport.goTo(this.outline.folds.rowOf(line));
    this._drawSoon();
  }

  /** @param {{from: number, to: number} | null} range lines that are shown as chosen */
  setSelection(range) {
    this._selected = range;
    this._drawSoon();
  }

  destroy() {
    this._stop.abort();
    this._drawSoon.cancel();
    highlight(null, []);
    this._box.destroy();
    this._element.remove();
  }

  _listen() {
    const { signal } = this._stop;
    this.store.addEventListener("change", () => this._grown(), { signal });
    this.outline.addEventListener("change", () => this._drawSoon(), { signal });
    this._box.addEventListener("scroll", () => this._scrolled());
    this._box.addEventListener("resize", () => this._resized());
    this._element.addEventListener("click", (event) => this._clicked(/** @type {MouseEvent} */ (event)));
    this._element.addEventListener("keydown", (event) => this._pressed(/** @type {KeyboardEvent} */ (event)));
  }

  /** @param {number} row */
  _lineOf(row) {
    return this.outline.folds.lineOf(row);
  }

  /** @param {number} row */
  _heightOf(row) {
    const line = this._lineOf(row);
    return this._heights.of(line, this.outline.groupAt(line) ? 1 : (this.store.peek(line)?.text.length ?? null));
  }

  /** Measure a row and a character, on which all else depends. */
  _measure() {
    this._box.measure();
    const row = make("div", "log-row");
    const content = make("span", "log-content");
    content.textContent = "0".repeat(100);
    const text = make("div", "log-text");
    text.append(content);
    row.append(make("div", "log-gutter"), text);
    if (this.options.times !== "none") row.insertBefore(make("div", "log-time"), text);
    row.classList.add("is-sample");
    this._box.rows.append(row);
    const [height, width] = [row.offsetHeight || 20, content.getBoundingClientRect().width / 100 || 8];
    const room = this._box.width - text.offsetLeft;
    row.remove();
    this._viewport.rowHeight = this._heights.rowHeight = height;
    this._heights.columns = Math.max(10, Math.floor(room / width));
  }

  _resized() {
    if (!this._box.measure()) return;
    if (this.options.wrap) {
      this._heights.clear();
      this._measure();
    }
    if (this.isFollowing) this._goToEnd();
    this._draw();
    this._box.settle();
  }

  _count() {
    this._viewport.rowCount = this.outline.folds.rowCount(this.store.total);
    this._box.rows.setAttribute("aria-rowcount", String(this.store.total));
    if (this.store.total > 0) this._box.rows.setAttribute("role", "table");
    else this._box.rows.removeAttribute("role");
  }

  _grown() {
    if (!this.isFollowing && this.store.total > this._seen && this._seen > 0) {
      this.dispatchEvent(new CustomEvent("newlines", { detail: { count: this.store.total - this._seen } }));
    }
    this._drawSoon();
  }

  _goToEnd() {
    this._count();
    this._viewport.goToEnd();
  }

  /** @param {boolean} isFollowing */
  _setFollowing(isFollowing) {
    this._seen = this.store.total;
    if (this.isFollowing === isFollowing) return;
    this.isFollowing = isFollowing;
    this.dispatchEvent(new CustomEvent("followchange", { detail: { isFollowing } }));
  }

  _scrolled() {
    const { isAtEnd } = this._viewport;
    if (isAtEnd || this.isFollowing) this._setFollowing(isAtEnd);
    this._drawSoon();
  }

  _drawFrame() {
    if (this.isFollowing) this._goToEnd();
    const { spacer } = this._viewport;
    this._draw();
    if (this.isFollowing || spacer !== this._viewport.spacer) this._box.settle();
  }

  /** Draw the rows of the screen. Where rows are higher than thought, once more, if that moves the screen. */
  _draw() {
    this._count();
    this._viewport.clamp();
    if (this.options.isScreenReader) {
      this._plain.draw(this.isFollowing);
      return;
    }
    for (let time = 0; time < 3; time += 1) {
      if (!this._drawOnce()) break;
      if (this.isFollowing) this._viewport.goToEnd();
    }
    const { first, last } = this._viewport.rows();
    this._announce(this._lineOf(first), this._lineOf(Math.max(first, last)));
  }

  /** Draw the rows of the screen; true if they turned out to have other heights, and there is more to draw. */
  _drawOnce() {
    const { first, last } = this._viewport.rows(MORE_ROWS);
    const contents = [];
    for (let row = first; row <= last; row += 1) contents.push(this._contentOf(this._lineOf(row)));
    markOverwritten(contents, this.store);
    this._rows.show(contents, this.options, selectedEnds(this._box.rows));
    for (const { n, element } of this._rows.shown) {
      const isSelected = this._selected !== null && n >= this._selected.from && n <= this._selected.to;
      element.classList.toggle("is-selected", isSelected);
      element.classList.toggle("is-flashed", n === this._flashed);
    }
    const shown = this._rows.shown.map((row) => ({ line: row.n, content: row.content, isWhole: row.isTitle }));
    highlight(this._found, shown);
    const top = this._rows.of(this._lineOf(this._viewport.place.row));
    const hasOthers = this.options.wrap && this._noteHeights();
    this._viewport.clamp();
    const above = this.options.wrap
      ? (top?.element.offsetTop ?? 0) : (this._viewport.place.row - first) * this._viewport.rowHeight;
    this._box.shift(above + this._viewport.place.pixel);
    return hasOthers && (this.isFollowing || this._viewport.rows().last > last);
  }

  /**
   * @param {number} n
   * @returns {RowContent}
   */
  _contentOf(n) {
    const parsed = this.store.parsed(n);
    const group = this.outline.groupAt(n);
    return {
      n,
      line: this.store.peek(n),
      parsed,
      group,
      isFolded: group !== null && this.outline.folded.has(n),
      depth: this.outline.depthOf(n),
      kind: this.outline.kindAt(n),
      hits: HAS_HIGHLIGHTS ? [] : hitsIn(this._found, n),
      isOverwritten: false,
    };
  }

  _noteHeights() {
    let hasOthers = false;
    for (const { n, element } of this._rows.shown) {
      const length = this.outline.groupAt(n) ? 1 : (this.store.peek(n)?.text.length ?? null);
      hasOthers = this._heights.note(n, element.offsetHeight, length) || hasOthers;
    }
    this._viewport.average = this._heights.average;
    return hasOthers;
  }

  /**
   * @param {number} first
   * @param {number} last
   */
  _announce(first, last) {
    if (this.store.total === 0) return;
    const old = this._visible;
    if (first !== old.first) this._direction = first - old.first;
    this.store.show(first, Math.min(last, first + 2000), this._direction);
    if (first === old.first && last === old.last) return;
    this._visible = { first, last };
    this.dispatchEvent(new CustomEvent("visible", { detail: this._visible }));
  }

  /** @param {ReadonlySet<number>} folded */
  _fold(folded) {
    const before = this.outline.folded;
    this.setFolded(folded);
    for (const line of before) {
      if (folded.has(line)) continue;
      this.dispatchEvent(new CustomEvent("foldtoggle", { detail: { line, isFolded: false, folded } }));
    }
  }

  /** @param {number} n */
  _flash(n) {
    this._flashed = n;
    setTimeout(() => {
      if (this._flashed !== n) return;
      this._flashed = 0;
      this._drawSoon();
    }, FLASH_MILLISECONDS);
  }

  /** @param {MouseEvent} event */
  _clicked(event) {
    const target = event.target instanceof Element ? event.target : null;
    const row = target?.closest(".log-row");
    if (!target || !row) return;
    const line = lineOf(row);
    if (target.closest(".log-number")) {
      // With other keys it is a link like any other, for another tab.
      if (event.ctrlKey || event.metaKey) return;
      event.preventDefault();
      this.dispatchEvent(new CustomEvent("linepick", { detail: { line, isRange: event.shiftKey } }));
    } else if (target.closest(".log-fold")) this._toggle(line);
  }

  /** @param {number} line of a group */
  _toggle(line) {
    const folded = new Set(this.outline.folded);
    const isFolded = !folded.delete(line);
    if (isFolded) folded.add(line);
    const place = { ...this._viewport.place };
    this.outline.setFolded(folded);
    this._count();
    this._viewport.place = place;
    this._draw();
    this._box.settle();
    this.dispatchEvent(new CustomEvent("foldtoggle", { detail: { line, isFolded, folded } }));
  }

  /** @param {KeyboardEvent} event */
  _pressed(event) {
    if (!(event.ctrlKey || event.metaKey) || event.key !== "a" || this.options.isScreenReader) return;
    event.preventDefault();
    this._clipboard.selectAll();
  }
}
