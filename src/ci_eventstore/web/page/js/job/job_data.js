/**
 * One job as the page knows it: its fields, its lines and their outline, kept up to date while it runs.
 */
import { signal } from "../vendor.js";
import { perFrame } from "../frames.js";
import { hasEnded, outcomeOf } from "../jobs/outcome.js";
import { LineStore } from "../log/line_store.js";
import { Outline } from "../log/outline.js";
import { ApiError, jobPath } from "../net/api.js";
import { linesOf } from "../net/lines_of.js";
import { retryDelay } from "../net/backoff.js";
import { LiveStream } from "../net/live_stream.js";

/** @import {Page} from "../main.js" */
/** @import {Job} from "../types.js" */
/** @import {Trouble} from "./job_states.js" */
/** @import {StreamState} from "../net/live_stream.js" */

/** How often a waiting job's place and a growing log's outline are asked for. */
const ASK_MS = 4000;
/** Facts that a stream has between changes of status; they add to a job what they say. */
const TOLD = ["started", "claimed", "requeued", "cancel_requested", "failed", "cancelled", "truncating"];

/** Follows a job until `stop`. */
export class JobData {
  /**
   * @param {Page} page
   * @param {string} id
   */
  constructor(page, id) {
    this._page = page;
    this.id = id;
    /** @type {import("../vendor.js").Signal<Job|null>} */
    this.job = signal(null);
    /** @type {import("../vendor.js").Signal<Trouble|null>} */
    this.trouble = signal(null);
    /** How many lines there are. */
    this.lines = signal(0);
    /** Changes with the outline. */
    this.outlined = signal(0);
    /** Whether the outline was one of the whole log. */
    this.isOutlined = false;
    /** Whether lines have come, and so whatever is asked for next isn't in their way. */
    this.isRead = signal(false);
    /** Whether the job has ended and everything of it is known. */
    this.isWhole = signal(false);
    this.store = new LineStore({
      fetchLines: (wanted) => this._fetchLines(wanted),
      readText: (wanted) => this._readText(wanted),
    });
    this._grown = perFrame(() => (this.lines.value = this.store.total));
    this.store.addEventListener("change", this._grown);
    this.outline = new Outline();
    this._aborter = new AbortController();
    /** @type {LiveStream|null} */
    this._stream = null;
    this._timer = 0;
    this._failures = 0;
    /** How many lines there were when the outline was asked for. */
    this._outlinedLines = -1;
    this._isAsking = false;
    /** @type {Promise<unknown>} */
    this._way = Promise.resolve();
  }

  /** Begin to follow. */
  async begin() {
    clearTimeout(this._timer);
    try {
      await this._load();
      this._failures = 0;
      if (!this._stream) this._page.connection.set("open");
    } catch (error) {
      if (this._aborter.signal.aborted) return;
      if (!(error instanceof ApiError)) throw error;
      this._failed(error);
    }
  }

  /** Ask at once for what couldn't be had. */
  retry() {
    this.trouble.value = null;
    this._startOver();
  }

  /** Let go of everything. */
  stop() {
    this._aborter.abort();
    this._grown.cancel();
    this._stream?.close();
    clearTimeout(this._timer);
  }

  /**
   * Ask for something of this job.
   *
   * @param {string} beneath
   * @param {Record<string, string|number|boolean|null|undefined>} [parameters]
   * @param {AbortSignal} [aborted]
   */
  async get(beneath, parameters = {}, aborted = this._aborter.signal) {
    return this._page.login.api.get(jobPath(this.id, beneath), parameters, aborted);
  }

  /**
   * Ask for an answer that is read as it comes.
   *
   * @param {string} url
   * @param {AbortSignal} aborted
   */
  async send(url, aborted) {
    return this._page.login.api.send(url, { signal: aborted });
  }

  /**
   * Ask for no more of the outline until something has ended that a person waits for: both read the whole log.
   *
   * @param {Promise<void>} search
   */
  giveWay(search) {
    this._way = Promise.allSettled([this._way, search]);
  }

  /**
   * Return the address of something of this job.
   *
   * @param {string} beneath
   * @param {Record<string, string|number|boolean|null|undefined>} [parameters]
   */
  url(beneath, parameters = {}) {
    return this._page.login.api.url(jobPath(this.id, beneath), parameters);
  }

  async _load() {
    const job = /** @type {Job} */ (await this.get(""));
    if (this._aborter.signal.aborted) return;
    this.trouble.value = null;
    this.learn(job);
    if (job.totals) this._grow(job.totals, job.position ?? 0);
    if (hasEnded(job)) {
      this.isWhole.value = true;
      // The server reads all of the log for it, which would keep the first lines waiting; a failed job opens by it.
      if (this.isRead.peek() || outcomeOf(job).name === "failed") void this._askOutline();
    } else {
      this._openStream(job);
      this._keepAsking();
    }
  }

  /** @param {ApiError} error */
  _failed(error) {
    this.trouble.value = error;
    if (!error.isPassing) return;
    this._page.connection.set("lost");
    this._failures += 1;
    const delay = retryDelay(this._failures, Math.random(), error.retryAfterMs);
    this._timer = window.setTimeout(() => void this.begin(), delay);
  }

  /**
   * Take what is known anew.
   *
   * @param {Partial<Job>} changed
   */
  learn(changed) {
    this.job.value = /** @type {Job} */ ({ ...this.job.value, ...changed });
  }

  /**
   * @param {import("../types.js").Totals} totals
   * @param {number} jobPosition
   */
  _grow({ lines, is_open: isOpen, position }, jobPosition) {
    this.store.setTotals({ lines, isOpen: isOpen ?? false, position: position ?? jobPosition });
    this.lines.value = this.store.total;
  }

  /** Begin again: the log became another one. */
  _startOver() {
    this._stream?.close();
    this._stream = null;
    this.isRead.value = false;
    this.store.reset();
    this.outline.reset();
    this._outlinedLines = -1;
    this.lines.value = 0;
    void this.begin();
  }

  /** @param {Job} job */
  _openStream(job) {
    this._stream?.close();
    const incarnation = job.incarnation;
    this._stream = new LiveStream(this._page.login.api, {
      url: (lastId) => this.url("stream", { detail: 1, last_event_id: lastId ?? this.store.position, incarnation }),
      onmessage: (name, data, id) => this._hear(name, data, id),
      onstate: (state, error) => this._streamChanged(state, error),
    });
    this._stream.open();
  }

  /**
   * @param {StreamState} state
   * @param {ApiError|null} error
   */
  _streamChanged(state, error) {
    this._page.connection.set(state);
    if (state === "ended") void this._ended();
    if (state === "refused" && error) this._failed(error);
  }

  /**
   * @param {string} name
   * @param {any} data
   * @param {string|null} id
   */
  _hear(name, data, id) {
    if (name === "" && data.type === "log") {
      this.isRead.value = true;
      this.store.append(data.data, data.time, data.line ?? this.store.total + 1, Number(id));
    } else if (name === "" && data.type === "complete") {
      void this._ended();
    } else if (name === "state") {
      this.learn(data);
    } else if (name === "gap" || name === "reset") {
      this._startOver();
    } else if (TOLD.includes(name)) {
      this._hearFact(name, data);
    }
  }

  /**
   * @param {string} name
   * @param {any} data
   */
  _hearFact(name, { attempts, controller, start_time: start }) {
    if (name === "claimed") this.learn({ attempts, controller });
    else if (name === "started") this.learn({ status: "running", start_time: start ?? this.job.value?.start_time });
    else if (name === "requeued") this.learn({ status: "queued" });
    else if (name === "truncating") this.learn({ log_truncated: true });
  }

  /** The job ended: learn how, and what its log came to. */
  async _ended() {
    this._stream?.close();
    this._stream = null;
    clearTimeout(this._timer);
    await this.begin();
  }

  /** Ask from time to time for what no stream says. */
  _keepAsking() {
    clearTimeout(this._timer);
    this._timer = window.setTimeout(() => void this._askAgain(), ASK_MS);
  }

  async _askAgain() {
    if (document.visibilityState === "visible") {
      try {
        if (this.job.value?.status === "queued") this.learn({ place: (await this.get("")).place });
        // The end of a log that is too long changes, but for the number of its lines.
        if (this._outlinedLines !== this.lines.peek() || this.job.value?.log_truncated) await this._askOutline();
      } catch (error) {
        // The stream notices a server that is away, and asks again.
        if (!(error instanceof ApiError) && !this._aborter.signal.aborted) throw error;
      }
    }
    if (!this._aborter.signal.aborted && !this.isWhole.peek()) this._keepAsking();
  }

  async _askOutline() {
    if (this._isAsking) return;
    this._isAsking = true;
    const lines = this.lines.peek();
    try {
      // The server reads a long log a second at a time.
      for (let isWhole = false; !isWhole;) {
        await this._way;
        const incarnation = this.job.peek()?.incarnation;
        const answer = await this.get("outline", { after: this.outline.position || null, incarnation });
        isWhole = answer.is_whole;
        this.isOutlined = isWhole;
        this.outline.update(answer);
        this.outlined.value += 1;
      }
      this._outlinedLines = lines;
    } catch (error) {
      // A log can be read without its outline; while the job runs, it is asked for again.
      if (this._aborter.signal.aborted) return;
      if (!(error instanceof ApiError)) throw error;
      if (error.isPassing && this.isWhole.peek()) {
        const delay = Math.max(ASK_MS, error.retryAfterMs ?? 0);
        this._timer = window.setTimeout(() => void this._askOutline(), delay);
      }
    } finally {
      this._isAsking = false;
    }
  }

  /**
   * Read lines as they stand in the log, however many.
   *
   * @param {{from: number, to: number, signal: AbortSignal}} wanted
   * @returns {AsyncGenerator<string>}
   */
  async *_readText({ from, to, signal: given }) {
    const url = this.url("log", { from, to, provisional: 0, incarnation: this.job.peek()?.incarnation });
    yield* linesOf(await this.send(url, AbortSignal.any([given, this._aborter.signal])));
  }

  /**
   * Fetch lines; the store asks again when that fails. What can't be had at all is the page's trouble.
   *
   * @param {{from: number, count: number, signal: AbortSignal}} wanted
   */
  async _fetchLines({ from, count, signal: given }) {
    const aborted = AbortSignal.any([given, this._aborter.signal]);
    try {
      const answer = await this.get("lines", { from, count, incarnation: this.job.peek()?.incarnation }, aborted);
      if (this.trouble.peek()) this.trouble.value = null;
      if (!this._stream) this._page.connection.set("open");
      if (!this.isRead.peek() && this.isWhole.peek()) void this._askOutline();
      this.isRead.value = true;
      return answer;
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      if (error.status === 409) this._startOver();
      else if (!error.isPassing || error.code === "archive_unavailable") this.trouble.value = error;
      else if (!this._stream) this._page.connection.set("lost");
      // Until the store asks for something else, if ever.
      if (!error.isPassing) await forever(aborted);
      throw error;
    }
  }
}

/**
 * @param {AbortSignal} aborted
 * @returns {Promise<never>}
 */
function forever(aborted) {
  return new Promise((_, reject) => {
    aborted.addEventListener("abort", () => reject(aborted.reason));
  });
}
