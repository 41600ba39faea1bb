/**
 * Shows a log again as it was printed, in time.
 */
import { signal } from "../vendor.js";
import { parseTime } from "../durations.js";
import { LineStore } from "../log/line_store.js";
import { ApiError } from "../net/api.js";
import { ReplaySchedule } from "./replay_schedule.js";

/** @import {JobData} from "./job_data.js" */

/** No more lines than this are shown at once, so that a flood doesn't stop the page. */
const MOST_LINES = 2000;
/** The clock that is shown moves in steps of this. */
const STEP_MS = 50;

/** A replay: a log of its own, which grows as the real one did. */
export class Replay {
  /** @param {JobData} data */
  constructor(data) {
    this._data = data;
    this.store = new LineStore({ fetchLines: (wanted) => this._fetch(wanted) });
    this.line = signal(0);
    /** When the job began, and when its last line was printed; null: that isn't known yet. */
    this.span = signal(/** @type {{from: number, to: number}|null} */ (null));
    /** What the clock shows. */
    this.time = signal(/** @type {number|null} */ (null));
    this.isPlaying = signal(true);
    this.speed = signal(1);
    this._schedule = new ReplaySchedule(0, 1);
    /** @type {number|null} where somebody wants to go */
    this._sought = null;
    this._isSeeking = false;
    this._aborter = new AbortController();
    this._then = performance.now();
    this._frame = requestAnimationFrame((now) => this._tick(now));
    void this._measure();
  }

  /** Stop it. */
  destroy() {
    cancelAnimationFrame(this._frame);
    this._aborter.abort();
  }

  /** How many lines there are to show. */
  get total() {
    return this._data.store.total;
  }

  /** Pause, or play on; at the end, from the beginning. */
  toggle() {
    const span = this.span.peek();
    if (span && this.line.peek() >= this.total) void this.seek(span.from);
    this.isPlaying.value = !this.isPlaying.value;
  }

  /** @param {number} speed */
  setSpeed(speed) {
    this.speed.value = speed;
    this._schedule.speed = speed;
  }

  /**
   * Show the log as it was at a time, and go on from there; of several wishes in a row, the last one counts.
   *
   * @param {number} time
   */
  async seek(time) {
    this._sought = this.time.value = time;
    if (this._isSeeking) return;
    this._isSeeking = true;
    try {
      while (this._sought !== null) {
        const wanted = this._sought;
        this._sought = null;
        const line = await this._lineAt(wanted);
        if (this._sought === null) this._goTo(line, wanted);
      }
    } catch (error) {
      // The log can't be had at the moment: the replay stays where it was.
      if (!(error instanceof ApiError) && !this._aborter.signal.aborted) throw error;
      this._sought = null;
    } finally {
      this._isSeeking = false;
    }
  }

  /**
   * @param {number} line
   * @param {number} time
   */
  _goTo(line, time) {
    this._schedule.seek(line, time);
    if (line < this.store.total) this.store.reset();
    this._show(line);
  }

  /** Learn from when to when the log was printed. */
  async _measure() {
    try {
      const [first, last] = await Promise.all([this._ask({ from: 1, count: 1 }), this._ask({ tail: 1 })]);
      const began = parseTime(this._data.job.peek()?.start_time);
      const [from, to] = [parseTime(first?.t), parseTime(last?.t)];
      if (from === null || to === null) return;
      const span = { from: Math.min(from, began ?? from), to: Math.max(from, to) };
      if (this._schedule.line === 0) this._schedule.seek(0, span.from);
      this.span.value = span;
    } catch (error) {
      // It can be watched without its clock.
      if (!(error instanceof ApiError) && !this._aborter.signal.aborted) throw error;
    }
  }

  /**
   * Return the last line that was printed by a time, 0 for none.
   *
   * @param {number} time
   */
  async _lineAt(time) {
    const found = await this._ask({ time: new Date(time).toISOString(), count: 1 });
    if (!found) return 0;
    return (parseTime(found.t) ?? 0) > time ? found.n - 1 : found.n;
  }

  /**
   * @param {Record<string, string|number>} wanted
   * @returns {Promise<{n: number, t: string}|undefined>}
   */
  async _ask(wanted) {
    return (await this._data.get("lines", { ...wanted, max_line: 4 }, this._aborter.signal)).lines[0];
  }

  /** @param {number} now */
  _tick(now) {
    this._frame = requestAnimationFrame((next) => this._tick(next));
    const elapsed = Math.min(now - this._then, 250);
    this._then = now;
    if (!this.isPlaying.peek() || this._isSeeking) return;
    const before = this.line.peek();
    const most = Math.min(this.total, before + MOST_LINES);
    const due = this._schedule.advance(elapsed, (line) => parseTime(this._data.store.get(line)?.time), most);
    if (due !== before) this._show(due);
    const { time } = this._schedule;
    if (time !== null) this.time.value = Math.round(time / STEP_MS) * STEP_MS;
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
