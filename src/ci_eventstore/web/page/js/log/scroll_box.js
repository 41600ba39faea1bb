/**
 * The scroll box of a log: a viewport (see there) with elements, fingers, wheels and keys.
 *
 * It dispatches `scroll` when somebody has moved, and `resize`; what stands at the place is drawn by others.
 */

import { make } from "./row.js";

/** @typedef {import("./viewport.js").Viewport} Viewport */

/** After this long without a step the scroll bar is put where the place is. */
const REST_MILLISECONDS = 150;

export class ScrollBox extends EventTarget {
  /**
   * @param {Element} parent
   * @param {Viewport} viewport
   */
  constructor(parent, viewport) {
    super();
    this.viewport = viewport;
    this.element = make("div", "log-scroller", "region");
    this.element.tabIndex = 0;
    this.element.setAttribute("aria-label", "Log");
    this.layer = make("div", "log-layer");
    this.rows = make("div", "log-rows");
    this._spacer = make("div", "log-spacer");
    this.layer.append(this.rows);
    this.element.append(this.layer, this._spacer);
    parent.append(this.element);
    this._isTouched = false;
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    this._timer = undefined;
    this._width = 0;
    this._listen();
  }

  /** The width of the screen. */
  get width() {
    return this.element.clientWidth;
  }

  _listen() {
    this.element.addEventListener("scroll", () => this._scrolled(), { passive: true });
    this.element.addEventListener("keydown", (event) => this._pressed(event));
    for (const name of ["touchstart", "touchend", "touchcancel"]) {
      this.element.addEventListener(name, () => {
        this._isTouched = name === "touchstart";
        if (!this._isTouched) this._restLater();
      }, { passive: true });
    }
    this._observer = new ResizeObserver(() => this.dispatchEvent(new Event("resize")));
    this._observer.observe(this.element);
  }

  /** Take the size of the screen as it is; false if it is as it was. */
  measure() {
    const { clientHeight, clientWidth } = this.element;
    const isNew = this.viewport.screen !== clientHeight || this._width !== clientWidth;
    this.viewport.screen = Math.max(1, clientHeight);
    this._width = clientWidth;
    return isNew;
  }

  /**
   * Make the elements as high as the viewport says, and put the scroll bar where the place is.
   *
   * @param {{isJump?: boolean}} [how] see `rest`
   */
  settle(how) {
    const { viewport } = this;
    this.layer.style.height = `${viewport.screen}px`;
    this._spacer.style.height = `${viewport.spacer - viewport.screen}px`;
    this.rest(how);
  }

  /**
   * Put the scroll bar where the place is.
   *
   * @param {{isJump?: boolean}} [how] whether somebody goes there, so that what is still being scrolled ends
   */
  rest({ isJump = false } = {}) {
    clearTimeout(this._timer);
    const top = this.viewport.rest();
    const step = Math.round(top - this.element.scrollTop);
    if (isJump) this.element.scrollTop = top;
    // A step is added to what somebody scrolls in this moment; for a place, Firefox would forget that.
    else if (Math.abs(step) > 1) this.element.scrollBy({ top: step, behavior: "instant" });
    // What the browser made of it: it rounds, and bounds.
    this.viewport.top = this.element.scrollTop;
    this._keepWidth();
  }

  /**
   * Move the rows, so that the place is at the upper edge.
   *
   * @param {number} offset of the place's pixel from the first row in the page
   */
  shift(offset) {
    this.rows.style.transform = `translateY(${-offset}px)`;
  }

  /** Forget how wide rows were. */
  resetWidth() {
    this.rows.style.minWidth = "";
  }

  destroy() {
    clearTimeout(this._timer);
    this._observer?.disconnect();
    this.element.remove();
  }

  /** Long lines leave the screen while one scrolls; the bar below shouldn't jump then. */
  _keepWidth() {
    const { scrollWidth, clientWidth } = this.element;
    if (scrollWidth > clientWidth) this.rows.style.minWidth = `${scrollWidth}px`;
  }

  /** Whether the box isn't where the place was last put or followed to. */
  get _hasMoved() {
    return Math.abs(this.element.scrollTop - this.viewport.top) >= 0.5;
  }

  _scrolled() {
    const { scrollTop, clientHeight } = this.element;
    if (Math.max(1, clientHeight) !== this.viewport.screen) {
      // The browser moved it, because the screen became higher: nobody did.
      this.dispatchEvent(new Event("resize"));
      return;
    }
    if (!this._hasMoved) return;
    this.viewport.scrolled(scrollTop);
    this._restLater();
    this.dispatchEvent(new Event("scroll"));
  }

  _restLater() {
    clearTimeout(this._timer);
    this._timer = setTimeout(() => {
      // A step since the last frame isn't taken back: its event is coming, and a rest after it.
      if (!this._isTouched && !this._hasMoved) this.rest();
    }, REST_MILLISECONDS);
  }

  /**
   * Keys that go far go there at once, without the browser's long way.
   *
   * @param {KeyboardEvent} event
   */
  _pressed(event) {
    // On a button, the space bar is its own.
    if (event.altKey || event.metaKey || (event.key === " " && event.target !== this.element)) return;
    const { viewport } = this;
    const page = Math.max(viewport.rowHeight, viewport.screen - 2 * viewport.rowHeight);
    if (event.key === "Home") viewport.goTo(0);
    else if (event.key === "End") viewport.goToEnd();
    else if (event.key === "PageDown" || (event.key === " " && !event.shiftKey)) viewport.move(page);
    else if (event.key === "PageUp" || (event.key === " " && event.shiftKey)) viewport.move(-page);
    else return;
    event.preventDefault();
    this.rest({ isJump: true });
    this.dispatchEvent(new Event("scroll"));
  }
}
