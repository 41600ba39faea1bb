/**
 * The strip beside the scrollbar: where errors and hits are, and where the time went. The table of contents says the
 * same in words.
 */
import { perFrame } from "../frames.js";
import { lineOf, paceOf, rowOf, rowsOf } from "./strip_scale.js";

/**
 * @typedef {object} StripContent
 * @property {number} total
 * @property {{line: number, kind: string}[]} marks
 * @property {{line: number, at: number}[]|null} times of lines; null: they aren't known yet
 * @property {number[]} hits lines
 * @property {number} current the current hit's line, 0 for none
 * @property {{first: number, last: number}} shown
 */

const WIDTH = 14;
const SHOWN = "Errors, warnings and hits";

/** Draws on one canvas, at most once a frame. */
export class Strip {
  /**
   * @param {HTMLCanvasElement} canvas
   * @param {() => StripContent} content
   * @param {(line: number) => void} onpick
   */
  constructor(canvas, content, onpick) {
    this._canvas = canvas;
    this._content = content;
    /** Draw what there is now, with the next frame. */
    this.draw = perFrame(() => this._paint());
    this._height = 0;
    // In the colours of the theme, which the system may change.
    this._scheme = window.matchMedia("(prefers-color-scheme: dark)");
    this._scheme.addEventListener("change", this.draw);
    this._observer = new ResizeObserver(() => this.draw());
    this._observer.observe(/** @type {Element} */ (canvas.parentElement));
    let isHeld = false;
    const pick = (/** @type {PointerEvent} */ event) => {
      const row = event.clientY - canvas.getBoundingClientRect().top;
      onpick(lineOf(Math.max(row, 0), this._content().total, this._height || 1));
    };
    canvas.addEventListener("pointerdown", (event) => {
      isHeld = true;
      canvas.setPointerCapture(event.pointerId);
      pick(event);
    });
    canvas.addEventListener("pointermove", (event) => isHeld && pick(event));
    canvas.addEventListener("pointerup", () => (isHeld = false));
    canvas.addEventListener("pointercancel", () => (isHeld = false));
  }

  /** Stop drawing. */
  destroy() {
    this.draw.cancel();
    this._observer.disconnect();
    this._scheme.removeEventListener("change", this.draw);
  }

  _paint() {
    const canvas = this._canvas;
    const scale = window.devicePixelRatio || 1;
    const height = Math.floor(/** @type {HTMLElement} */ (canvas.parentElement).clientHeight);
    const context = canvas.getContext("2d");
    if (!context || height < 1) return;
    this._height = height;
    [canvas.width, canvas.height] = [WIDTH * scale, height * scale];
    // On whole pixels of the screen, so that what touches has no seams.
    const fill = (/** @type {number[]} */ ...[left, top, width, high]) => {
      const [x, y, right, bottom] = [left, top, left + width, top + high].map((place) => Math.round(place * scale));
      context.fillRect(x, y, right - x, bottom - y);
    };
    const style = getComputedStyle(canvas);
    const color = (/** @type {string} */ name) => style.getPropertyValue(name) || "#888";
    const { total, marks, times, hits, current, shown } = this._content();
    if (total < 1) return;
    canvas.title = titleOf(times);
    context.fillStyle = color("--strip-time");
    const paces = paceOf(times ?? [], total, height);
    paces.forEach((pace, row) => fill(0, row, Math.round(pace * (WIDTH - 2)), 1));
    if (shown.first > 1 || shown.last < total) {
      context.fillStyle = color("--strip-shown");
      const [top, bottom] = [rowOf(shown.first, total, height), rowOf(shown.last, total, height)];
      fill(0, top, WIDTH, Math.max(bottom - top, 3));
    }
    const bar = (/** @type {number[]} */ lines, /** @type {string} */ name, /** @type {number} */ left) => {
      context.fillStyle = color(name);
      for (const row of rowsOf(lines, total, height)) fill(left, row, WIDTH - left, 2);
    };
    const of = (/** @type {string} */ kind) => marks.filter((mark) => mark.kind === kind).map(({ line }) => line);
    bar(of("warning"), "--strip-warning", 6);
    bar(of("error"), "--strip-error", 6);
    bar(hits, "--strip-hit", 2);
    if (current) bar([current], "--strip-current", 0);
  }
}

/**
 * Return what the strip shows, in words.
 *
 * @param {StripContent["times"]} times
 */
function titleOf(times) {
  if (times === null) return SHOWN;
  if (times.length > 0) return `${SHOWN}; in grey where the time went`;
  return `${SHOWN}. Where the time went isn't known of a short log without groups.`;
}
