/**
 * The log on a job's page: where it is scrolled to, what is folded and marked, and the strip beside it.
 */
import { computed, effect, signal } from "../vendor.js";
import { parseTime } from "../durations.js";
import { perFrame } from "../frames.js";
import { hasEnded, outcomeOf } from "../jobs/outcome.js";
import { LogView } from "../log/log_view.js";
import { preferences } from "../preferences.js";
import { formatRoute } from "../routes.js";
import { firstLineOf, foldedAtFirst, FoldsWhileFollowing } from "./folding.js";
import { Strip } from "./strip.js";
import { timesOf } from "./strip_scale.js";

/** @import {JobData} from "./job_data.js" */
/** @import {LogSearch} from "./log_search.js" */
/** @import {Replay} from "./replay.js" */
/** @import {LineRange} from "../types.js" */

/**
 * @typedef {object} Parts
 * @property {JobData} data
 * @property {LogSearch} search
 * @property {(line: number, isRange: boolean) => void} onpick
 */

const PROBLEMS = ["error", "warning"];

/** Shows the log of a job, or its replay. */
export class LogPane {
  /**
   * @param {HTMLElement} host
   * @param {HTMLCanvasElement} canvas
   * @param {Parts} parts
   */
  constructor(host, canvas, { data, search, onpick }) {
    this._host = host;
    this._data = data;
    this._search = search;
    this._onpick = onpick;
    this.isFollowing = signal(false);
    /** Lines that came since it was let go of the end. */
    this.newLines = signal(0);
    this.shown = { first: 1, last: 1 };
    /** @type {LineRange|null} */
    this._selection = null;
    /** Whether the reader has gone anywhere yet. */
    this._isTouched = false;
    /** @type {number|undefined} the error or warning that somebody has jumped to */
    this._markLine = undefined;
    /** The line that somebody has gone to, while it is on the screen. */
    this._goneTo = 0;
    /** @type {ReadonlySet<number>} what was folded before a replay */
    this._foldedBefore = new Set();
    /** @type {{line: number, at: number}[]|null} when lines were written; null: there is no outline yet */
    this._times = null;
    this._isPlaced = false;
    this._hasFolded = false;
    this._folds = new FoldsWhileFollowing();
    this._strip = new Strip(
      canvas,
      () => this._stripContent(),
      (line) => this.goTo(line, { isFlashed: false }),
    );
    /** When the job began. */
    this._start = computed(() => parseTime(data.job.value?.start_time) ?? NaN);
    /** @type {LogView|null} */
    this.view = null;
    this._build(data.store);
    for (const name of ["wheel", "pointerdown", "keydown", "touchmove"]) {
      host.addEventListener(name, () => (this._isTouched = true), { passive: true, capture: true });
    }
    this._stops = [
      effect(() => this._place(data.lines.value)),
      effect(() => this._outlined(data.outlined.value)),
      effect(() => this._showHits()),
      effect(() => this._setOptions()),
    ];
  }

  /** Remove it. */
  destroy() {
    for (const stop of this._stops) stop();
    this._strip.destroy();
    this.view?.destroy();
  }

  /** Give it the keyboard. */
  focus() {
    const options = /** @type {FocusOptions} */ ({ preventScroll: true, focusVisible: false });
    /** @type {HTMLElement|null} */ (this._host.querySelector("[tabindex='0']"))?.focus(options);
  }

  /** @param {Replay|null} replay shown instead of the log; null: the log again */
  replay(replay) {
    const { first } = this.shown;
    this.view?.destroy();
    this._build(replay?.store ?? this._data.store);
    if (replay) {
      this._foldedBefore = this._data.outline.folded;
      this.view?.setFolded(new Set());
      this.follow(true);
    } else {
      this.view?.setFolded(this._foldedBefore);
      this.follow(false);
      this.goTo(first, { isFlashed: false });
    }
  }

  /**
   * Show a line, with some above it, and open the groups that it is in.
   *
   * @param {number} line
   * @param {{isFlashed?: boolean}} [options]
   */
  goTo(line, { isFlashed = true } = {}) {
    this._isTouched = true;
    this._goneTo = line;
    this.view?.scrollToLine(line, { align: "center", flash: isFlashed });
  }

  /**
   * Show a group, open.
   *
   * @param {number} line that it begins with
   */
  openGroup(line) {
    this._setFolded(line, false);
    this.goTo(line);
  }

  /**
   * Fold the innermost open group around the line that the reader is at: the one gone to, or the first on the screen.
   *
   * @param {boolean} mayOpen whether a folded group that the reader is at is opened instead
   * @returns {{group: import("../log/outline.js").Group, isFolded: boolean}|null} null: there is none
   */
  turnGroup(mayOpen) {
    const { outline } = this._data;
    // Where that is folded away, the reader is at the group that hides it.
    const here = outline.folds.lineOf(outline.folds.rowOf(this._goneTo || this.shown.first));
    const isFolded = !(mayOpen && outline.folded.has(here));
    const group = isFolded ? outline.openAround(here) : outline.groupAt(here);
    if (!group) return null;
    this._setFolded(group.line, isFolded);
    if (!this.isFollowing.peek()) this.view?.scrollToLine(group.line, { align: "nearest", flash: true });
    this._goneTo = group.line;
    return { group, isFolded };
  }

  /**
   * @param {number} group its line
   * @param {boolean} isFolded
   */
  _setFolded(group, isFolded) {
    const folded = new Set(this._data.outline.folded);
    if (isFolded) folded.add(group);
    else folded.delete(group);
    this._isTouched = true;
    this._folds.choose([group]);
    this.view?.setFolded(folded);
  }

  /** @param {boolean} isFollowing */
  follow(isFollowing) {
    this.view?.follow(isFollowing);
    this.isFollowing.value = isFollowing;
    if (isFollowing) this.newLines.value = 0;
  }

  /**
   * Select lines; `isShown` also scrolls to them.
   *
   * @param {LineRange|null} lines
   * @param {{isShown: boolean}} options
   */
  select(lines, { isShown }) {
    this._selection = lines;
    this.view?.setSelection(lines);
    if (lines) this._goneTo = lines.from;
    if (lines && isShown && this._isPlaced) this.goTo(lines.from, { isFlashed: false });
  }

  /**
   * Go to the next hit; return its line and whether that was beyond an end, null without hits.
   *
   * @param {1|-1} direction
   */
  stepHit(direction) {
    const found = this._search.machine?.step(direction, direction > 0 ? this.shown.first : this.shown.last) ?? null;
    if (!found) return null;
    this._showHits();
    this.goTo(found.line);
    return found;
  }

  /**
   * Return whether the next hit after the place of the reader is known.
   *
   * @param {import("./search_machine.js").SearchMachine} machine
   */
  hasHitBelow(machine) {
    return machine.lines.length > 0 && (!machine.isRunning || (machine.lines.at(-1) ?? 0) >= this.shown.first);
  }

  /**
   * Go to the next error or warning; return it, null if there is none.
   *
   * @param {1|-1} direction
   */
  stepMark(direction) {
    const { outline } = this._data;
    const from = this._markLine ?? (direction > 0 ? this.shown.first - 1 : this.shown.last + 1);
    const options = { kinds: PROBLEMS, isBackward: direction < 0 };
    const found = outline.markFrom(from, options) ?? outline.markFrom(direction > 0 ? 0 : Infinity, options);
    if (!found) return null;
    this.goTo(found.line);
    this._markLine = found.line;
    return found;
  }

  /** Fold all groups that are over; open all if none is open. */
  toggleFolds() {
    const { outline } = this._data;
    const over = outline.groups.filter(({ end }) => end !== null).map(({ line }) => line);
    this.view?.setFolded(new Set(outline.folded.size < over.length ? over : []));
    this._folds.choose(over);
  }

  /** @param {import("../log/line_store.js").LineStore} store */
  _build(store) {
    const view = new LogView(this._host, { store, outline: this._data.outline, options: this._options() });
    this.view = view;
    /** @type {(name: string, hear: (detail: any) => void) => void} */
    const on = (name, hear) => view.addEventListener(name, (event) => hear(/** @type {CustomEvent} */ (event).detail));
    on("followchange", ({ isFollowing }) => {
      this.isFollowing.value = isFollowing;
      if (isFollowing) this.newLines.value = 0;
    });
    let newLines = 0;
    const tell = perFrame(() => (this.newLines.value = this.isFollowing.peek() ? 0 : newLines));
    on("newlines", ({ count }) => {
      newLines = count;
      tell();
    });
    on("foldtoggle", ({ line }) => this._folds.choose([line]));
    on("linepick", ({ line, isRange }) => this._onpick(line, isRange));
    on("visible", ({ first, last }) => {
      this.shown = { first, last };
      if (this._goneTo < first || this._goneTo > last) this._goneTo = 0;
      if (this._isTouched && (this._markLine ?? 0) < first) this._markLine = undefined;
      if ((this._markLine ?? 0) > last) this._markLine = undefined;
      this._strip.draw();
    });
    if (this._selection) view.setSelection(this._selection);
  }

  /** How lines look, as far as this browser's owner and the job decide that. */
  _options() {
    const { wrap, times, isScreenReader } = preferences.value;
    return {
      wrap,
      times,
      isScreenReader,
      start: this._start.value,
      lineHref: (/** @type {number} */ n) => formatRoute({ page: "job", id: this._data.id, lines: { from: n, to: n } }),
      textHref: (/** @type {number} */ n) => this._data.url(`lines/${n}`),
    };
  }

  /**
   * Open at the line that the address names, at the end of a running job, or at the first error, once there is one.
   *
   * @param {number} total
   */
  _place(total) {
    this._strip.draw();
    this._search.goOn();
    const job = this._data.job.peek();
    if (this._isPlaced || total === 0 || !job) return;
    this._isPlaced = true;
    const line = this._selection?.from ?? this._firstLine(total);
    if (line === null) this.follow(true);
    else {
      this.goTo(line, { isFlashed: false });
      this._isTouched = false;
    }
  }

  /** @param {number} total */
  _firstLine(total) {
    const job = this._data.job.peek();
    if (!job) return 1;
    const firstError = this._data.outline.markFrom(0)?.line ?? null;
    const hasFailed = outcomeOf(job).name === "failed";
    return firstLineOf({ isRunning: !hasEnded(job), hasFailed, firstError, total });
  }

  /** @param {number} version */
  _outlined(version) {
    this._strip.draw();
    const job = this._data.job.peek();
    if (version === 0 || !job) return;
    const end = hasEnded(job) ? (parseTime(job.end_time) ?? NaN) : NaN;
    this._times = timesOf(this._data.outline, { start: this._start.peek(), end, total: this._data.store.total });
    if (this._hasFolded) {
      if (!hasEnded(job)) this._foldMore();
      return;
    }
    const { outline } = this._data;
    this._hasFolded = this._data.isOutlined || this._isTouched;
    this._folds.next(outline.groups, [], { isFollowing: false, total: this._data.store.total, looked: null });
    // Nothing folds under the eyes of somebody who reads already.
    if (this._isTouched) return;
    const folded = foldedAtFirst(outline.groups, outline.marks, outcomeOf(job).name === "failed");
    if (this._selection) for (const { line } of outline.groupsAround(this._selection.from)) folded.delete(line);
    this.view?.setFolded(folded);
    if (!this._isPlaced || this.isFollowing.peek()) return;
    this._isPlaced = false;
    this._place(this._data.lines.peek());
  }

  /** Fold what has ended well while one follows, unless something of the log is selected. */
  _foldMore() {
    const { outline, store } = this._data;
    const selection = document.getSelection();
    const isSelecting = selection !== null && !selection.isCollapsed && this._host.contains(selection.anchorNode);
    const isFollowing = this.isFollowing.peek() && !isSelecting && this.view?.store === store;
    const looked = this._selection;
    const folded = this._folds.next(outline.groups, outline.marks, { isFollowing, total: store.total, looked });
    if (folded.size > 0) this.view?.setFolded(new Set([...outline.folded, ...folded]));
  }

  _showHits() {
    void this._search.version.value;
    const { machine } = this._search;
    const current = machine && machine.current >= 0 ? { line: machine.lines[machine.current], index: 0 } : null;
    this.view?.setHits(machine && { hits: machine.spans, current });
    this._strip.draw();
  }

  _setOptions() {
    this.view?.setOptions(this._options());
    this._strip.draw();
  }

  _stripContent() {
    const { machine } = this._search;
    const { outline, store } = this._data;
    return {
      total: store.total,
      marks: outline.marks,
      times: this._times,
      hits: machine?.lines ?? [],
      current: machine && machine.current >= 0 ? machine.lines[machine.current] : 0,
      shown: this.shown,
    };
  }
}
