/**
 * Shows a log again as it was printed, in time.
 */
import { html, signal } from "../vendor.js";
import { formatDuration, parseTime } from "../durations.js";
import { icon } from "../icon.js";
import { LineStore } from "../log/line_store.js";
import { LONGEST_PAUSE_MS, ReplaySchedule, SPEEDS } from "./replay_schedule.js";

/** @import {JobData} from "./job_data.js" */

/** No more lines than this are shown at once, so that a flood doesn't stop the page. */
const MOST_LINES = 2000;

/** A replay: a log of its own, which grows as the real one did. */
export class Replay {
  /** @param {JobData} data */
  constructor(data) {
    this._data = data;
    this.store = new LineStore({ fetchLines: (wanted) => this._fetch(wanted) });
    this.line = signal(0);
    this.isPlaying = signal(true);
    this.speed = signal(1);
    this._schedule = new ReplaySchedule(0, 1);
    this._then = performance.now();
    this._frame = requestAnimationFrame((now) => this._tick(now));
  }

  /** Stop it. */
  destroy() {
    cancelAnimationFrame(this._frame);
  }

  /** How many lines there are to show. */
  get total() {
    return this._data.store.total;
  }

  /** Pause, or play on; at the end, from the beginning. */
  toggle() {
    if (this.line.peek() >= this.total) this.seek(0);
    this.isPlaying.value = !this.isPlaying.value;
  }

  /** @param {number} speed */
  setSpeed(speed) {
    this.speed.value = speed;
    this._schedule.speed = speed;
  }

  /**
   * Show the log up to a line, and go on from there.
   *
   * @param {number} line
   */
  seek(line) {
    this._schedule.seek(line);
    if (line < this.store.total) this.store.reset();
    this._show(line);
  }

  /** @param {number} now */
  _tick(now) {
    this._frame = requestAnimationFrame((next) => this._tick(next));
    const elapsed = Math.min(now - this._then, 250);
    this._then = now;
    if (!this.isPlaying.peek()) return;
    const before = this.line.peek();
    const most = Math.min(this.total, before + MOST_LINES);
    const due = this._schedule.advance(elapsed, (line) => parseTime(this._data.store.get(line)?.time), most);
    if (due !== before) this._show(due);
    if (due >= this.total) this.isPlaying.value = false;
  }

  /** @param {number} line */
  _show(line) {
    // Lines that were printed together are looked at before they are due.
    this._data.store.get(Math.min(line + 500, this.total));
    for (let n = this.store.total + 1; n <= line && line - this.store.total <= MOST_LINES; n += 1) {
      const known = this._data.store.get(n);
      if (!known) break;
      this.store.append(`${known.text}\n`, known.time, n, n);
    }
    this.store.setTotals({ lines: line, isOpen: false, position: line });
    this.line.value = line;
  }

  /** @param {{from: number, count: number, signal: AbortSignal}} wanted */
  async _fetch({ from, count, signal: aborted }) {
    const answer = await this._data.get("lines", { from, count }, aborted);
    const shown = this._schedule.line;
    const lines = answer.lines.filter((/** @type {{n: number}} */ { n }) => n <= shown);
    return { ...answer, lines, total: shown, is_open: false, position: shown };
  }
}

/**
 * Return the bar of a replay.
 *
 * @param {Replay} replay
 * @param {() => void} close
 */
export function drawReplay(replay, close) {
  const line = replay.line.value;
  const since = sinceStart(replay, line);
  const text = `Line ${line.toLocaleString("en")} of ${replay.total.toLocaleString("en")}${since && `, ${since}`}`;
  const isPlaying = replay.isPlaying.value;
  return html`<div class="replay-bar" role="group" aria-label="Replay">
    <button class="icon-button" aria-label=${isPlaying ? "Pause" : "Play"} @click=${() => replay.toggle()}>
      ${icon(isPlaying ? "pause" : "play")}
    </button>
    <input
      class="replay-scrub"
      type="range"
      min="0"
      max=${replay.total}
      .value=${String(line)}
      aria-label="Line"
      aria-valuetext=${text}
      @input=${(/** @type {Event} */ event) => replay.seek(numberOf(event))}
    />
    <span class="replay-place">${text}</span>
    <label class="field"
      ><span class="visually-hidden">Speed</span>
      <select @change=${(/** @type {Event} */ event) => replay.setSpeed(numberOf(event))}>
        ${SPEEDS.map(
          (speed) => html`<option value=${speed} ?selected=${speed === replay.speed.value}>${speed}×</option>`,
        )}
      </select>
    </label>
    <span class="hint replay-hint">Pauses last at most ${LONGEST_PAUSE_MS / 1000} s</span>
    <button class="icon-button" aria-label="End the replay" title="End the replay" @click=${close}>${icon("x")}</button>
  </div>`;
}

/** @param {Event} event */
function numberOf(event) {
  return Number(/** @type {HTMLInputElement|HTMLSelectElement} */ (event.target).value);
}

/**
 * @param {Replay} replay
 * @param {number} line
 */
function sinceStart(replay, line) {
  const [start, now] = [1, line].map((n) => parseTime(replay.store.get(n)?.time));
  return start === null || now === null ? "" : formatDuration(now - start);
}
