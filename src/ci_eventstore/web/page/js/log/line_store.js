/**
 * The lines of one job's log, of which a page holds those that are looked at.
 *
 * Lines are fetched by pages of 500; of 200 pages, the ones looked at last are kept, and no more text than a budget
 * allows. Live output grows the last pages and the totals. Positions are those of events, as in the server's answers.
 */

import { retryDelay } from "../net/backoff.js";
import { LINES_PER_PAGE, PageOfLines, pageOf } from "./page_of_lines.js";
import { parseLine } from "./ansi.js";

/** @typedef {import("./page_of_lines.js").Line} Line */
/** @typedef {import("./page_of_lines.js").LinesAnswer} LinesAnswer */
/** @typedef {import("./ansi.js").Parsed} Parsed */
/** @typedef {import("./ansi.js").State} State */
/** @typedef {(range: {from: number, count: number, signal: AbortSignal}) => Promise<LinesAnswer>} FetchLines */
/** @typedef {(range: {from: number, to: number, signal: AbortSignal}) => AsyncGenerator<string>} ReadText */

const MOST_PAGES = 200;
/** UTF-16 units of text in all pages; beyond, old ones go. */
const MOST_TEXT = 24 * 1024 * 1024;
const MOST_FETCHES = 4;
/** More lines than so many are read as one text. */
const FAR = 2000;
/** Pages that are passed quickly, as when the thumb is dragged, aren't fetched. */
const CALM_MILLISECONDS = 40;

/** Dispatches `change` ({first, last}) when lines or totals have changed, and `failure` ({error}). */
export class LineStore extends EventTarget {
  /** @param {{fetchLines: FetchLines, readText?: ReadText}} options what reads lines, and many of them as a text */
  constructor({ fetchLines, readText }) {
    super();
    /** @type {FetchLines} */
    this._fetchLines = fetchLines;
    this._readText = readText;
    /** Lines of the log, one that is still open included. */
    this.total = 0;
    /** The last line has no newline yet. */
    this.isOpen = false;
    /** The last event that is known of. */
    this.position = 0;
    /** The last event whose output is counted. */
    this._counted = 0;
    /** @type {Map<number, PageOfLines>} the page looked at last is last */
    this._pages = new Map();
    this._weight = 0;
    /** @type {Map<number, AbortController>} */
    this._fetches = new Map();
    /** @type {Set<number>} */
    this._wanted = new Set();
    this._startedAt = 0;
    this._failures = 0;
    /** @type {ReturnType<typeof setTimeout> | null} */
    this._timer = null;
    /** @type {WeakMap<Line, {before: State, parsed: Parsed}>} */
    this._parsed = new WeakMap();
  }

  /**
   * Return a line; null if it isn't here, in which case it is fetched and `change` follows.
   *
   * @param {number} n
   * @returns {Line | null}
   */
  get(n) {
    if (n < 1 || n > this.total) return null;
    const number = pageOf(n);
    const page = this._pages.get(number);
    if (page) {
      this._pages.delete(number);
      this._pages.set(number, page);
    }
    if (!page || this._isStale(page)) this._want(number);
    return page?.lines[n - page.first] ?? null;
  }

  /**
   * Return a line if it is here, without fetching it.
   *
   * @param {number} n
   * @returns {Line | null}
   */
  peek(n) {
    const page = this._pages.get(pageOf(n));
    return page?.lines[n - page.first] ?? null;
  }

  /**
   * Return a line as a terminal shows it; null as `get`.
   *
   * @param {number} n
   * @returns {Parsed | null}
   */
  parsed(n) {
    const line = this.get(n);
    const page = this._pages.get(pageOf(n));
    if (!line || !page) return null;
    const before = page.stateBefore(n, this._pages.get(page.number - 1));
    const kept = this._parsed.get(line);
    if (kept && kept.before.style === before.style && kept.before.link === before.link) return kept.parsed;
    const parsed = parseLine(line.text, before);
    this._parsed.set(line, { before, parsed });
    return parsed;
  }

  /**
   * Fetch what is looked at, and what will be looked at next; give up fetches of other pages.
   *
   * @param {number} first
   * @param {number} last
   * @param {number} [direction] the side to which somebody scrolls: below 0 is up
   */
  show(first, last, direction = 0) {
    const [from, to] = [pageOf(Math.max(1, first)), pageOf(Math.max(1, last))];
    const numbers = [];
    for (let number = from; number <= to; number += 1) numbers.push(number);
    numbers.push(...(direction < 0 ? [from - 1] : [to + 1, from - 1]));
    this._wanted.clear();
    for (const [number, controller] of this._fetches) {
      if (numbers.includes(number)) continue;
      this._fetches.delete(number);
      controller.abort();
    }
    for (const number of numbers) {
      const page = this._pages.get(number);
      if (number >= 0 && number * LINES_PER_PAGE < this.total && (!page || this._isStale(page))) this._want(number);
    }
  }

  /**
   * Return lines one after the other, fetched if they aren't here, and not kept.
   *
   * @param {number} from
   * @param {number} to the last one
   * @param {AbortSignal} signal
   * @returns {AsyncGenerator<Line>}
   */
  async *read(from, to, signal) {
    let n = from;
    while (n <= Math.min(to, this.total)) {
      const page = this._pages.get(pageOf(n));
      if (page && n < page.end) {
        yield page.lines[n - page.first];
        n += 1;
        continue;
      }
      const last = Math.min(to, this.total);
      if (this._readText && last - n >= FAR) {
        for await (const text of this._readText({ from: n, to: last, signal })) yield { n: n++, time: null, text };
        return;
      }
      const answer = await this._fetchLines({ from: n, count: Math.min(to - n + 1, 1000), signal });
      if (answer.lines.length === 0) return;
      for (const { n: number, t, text, bytes } of answer.lines) {
        yield { n: number, time: t, text, ...(bytes === undefined ? {} : { bytes }) };
        n = number + 1;
      }
    }
  }

  /**
   * Add live output. What an answer of the server had already isn't added again.
   *
   * @param {string} data
   * @param {string | null} time
   * @param {number} line the line on which it begins
   * @param {number} [position] its event
   */
  append(data, time, line, position = this._counted + 1) {
    const before = this._counted;
    if (position <= before) return;
    const pieces = data.split("\n");
    const isOpen = pieces[pieces.length - 1] !== "";
    const last = line + pieces.length - (isOpen ? 1 : 2);
    for (let place = 0; place < pieces.length; place += 1) {
      const isComplete = place < pieces.length - 1;
      if (!isComplete && !isOpen) break;
      const isNew = place > 0 || line > this.total;
      const page = this._pageFor(line + place, isNew, before);
      if (page && page.position <= before) this._addTo(page, line + place, pieces[place], time, isComplete);
    }
    this._counted = position;
    this.position = Math.max(this.position, position);
    for (const number of new Set([pageOf(line), pageOf(Math.max(line, last))])) {
      const page = this._pages.get(number);
      if (page && page.position === before) page.position = this._counted;
    }
    if (last >= this.total) [this.total, this.isOpen] = [last, isOpen];
    this._evict();
    this._changed(line, Math.max(line, last));
  }

  /**
   * Learn how long the log is; it never becomes shorter but by `reset`.
   *
   * @param {{lines: number, isOpen: boolean, position?: number}} totals
   */
  setTotals({ lines, isOpen, position = this.position }) {
    this.position = Math.max(this.position, position);
    if (lines < this.total || (lines === this.total && isOpen === this.isOpen)) return;
    const first = this.total + 1;
    this._counted = Math.max(this._counted, position);
    [this.total, this.isOpen] = [lines, isOpen];
    this._changed(Math.min(first, lines), lines);
  }

  /** Forget everything: the log is another one. */
  reset() {
    for (const controller of this._fetches.values()) controller.abort();
    if (this._timer !== null) clearTimeout(this._timer);
    this._timer = null;
    this._pages.clear();
    this._fetches.clear();
    this._wanted.clear();
    this._weight = 0;
    [this.total, this.isOpen, this.position, this._counted, this._failures] = [0, false, 0, 0, 0];
    this._changed(1, 1);
  }

  /**
   * Tell whether the server has more of a page.
   *
   * @param {PageOfLines} page
   */
  _isStale(page) {
    const end = Math.min(this.total + 1, page.first + LINES_PER_PAGE);
    return page.end < end || (page.isLastOpen && page.end === this.total + 1 && page.position < this._counted)
      || (page.isLastOpen && page.end <= this.total);
  }

  /**
   * Return the page of a line, if live output may be added to it. A line that begins a page begins it here as well.
   *
   * @param {number} n
   * @param {boolean} isNew whether this output is the line's beginning
   * @param {number} position
   */
  _pageFor(n, isNew, position) {
    const number = pageOf(n);
    let page = this._pages.get(number);
    if (!page && isNew && (n - 1) % LINES_PER_PAGE === 0 && !this._fetches.has(number)) {
      page = new PageOfLines(number);
      page.position = position;
      this._pages.set(number, page);
    }
    return page && page.position >= position ? page : null;
  }

  /**
   * @param {PageOfLines} page
   * @param {number} n
   * @param {string} text
   * @param {string | null} time
   * @param {boolean} isComplete
   */
  _addTo(page, n, text, time, isComplete) {
    const weight = page.weight;
    page.add(n, text, time, isComplete);
    this._weight += page.weight - weight;
  }

  /** @param {number} number */
  _want(number) {
    if (this._fetches.has(number)) return;
    this._wanted.add(number);
    if (this._timer !== null) return;
    const wait = this._startedAt + CALM_MILLISECONDS - performance.now();
    if (wait <= 0) this._start();
    else this._startLater(wait);
  }

  /** @param {number} milliseconds */
  _startLater(milliseconds) {
    this._timer = setTimeout(() => {
      this._timer = null;
      this._start();
    }, milliseconds);
  }

  _start() {
    for (const number of this._wanted) {
      if (this._fetches.size >= MOST_FETCHES) return;
      this._wanted.delete(number);
      this._startedAt = performance.now();
      void this._fetch(number);
    }
  }

  /** @param {number} number */
  async _fetch(number) {
    const controller = new AbortController();
    this._fetches.set(number, controller);
    const from = this._pages.get(number)?.next ?? number * LINES_PER_PAGE + 1;
    const count = (number + 1) * LINES_PER_PAGE + 1 - from;
    try {
      const answer = await this._fetchLines({ from, count, signal: controller.signal });
      if (this._fetches.get(number) !== controller) return;
      this._fetches.delete(number);
      this._take(number, answer);
    } catch (error) {
      if (this._fetches.get(number) !== controller) return;
      this._fetches.delete(number);
      this._failed(number, /** @type {{retryAfterMs?: number|null}} */ (error).retryAfterMs);
      this.dispatchEvent(new CustomEvent("failure", { detail: { error } }));
    }
    if (this._timer === null) this._start();
  }

  /**
   * @param {number} number
   * @param {LinesAnswer} answer
   */
  _take(number, answer) {
    const page = this._pages.get(number) ?? new PageOfLines(number);
    const { weight, end } = this._pages.has(number) ? page : { weight: 0, end: 0 };
    page.take(answer);
    this._pages.delete(number);
    this._pages.set(number, page);
    this._weight += page.weight - weight;
    this.position = Math.max(this.position, answer.position);
    if (answer.total >= this.total) {
      [this.total, this.isOpen] = [answer.total, answer.is_open];
      this._counted = Math.max(this._counted, answer.position);
    }
    // A server that has no more than this, though it said so, isn't asked all the time.
    if (page.end === end && this._isStale(page)) this._failed(number);
    else this._failures = 0;
    this._evict();
    this._changed(page.first, Math.max(page.first, page.end - 1));
  }

  /**
   * Try again later, and later each time.
   *
   * @param {number} number
   * @param {number|null} [retryAfterMs] what the server asked for
   */
  _failed(number, retryAfterMs = null) {
    this._wanted.add(number);
    this._failures += 1;
    if (this._timer === null) this._startLater(retryDelay(this._failures, Math.random(), retryAfterMs));
  }

  /** Let go of the pages that nobody has looked at for longest. */
  _evict() {
    for (const [number, page] of this._pages) {
      if (this._pages.size <= 2 || (this._pages.size <= MOST_PAGES && this._weight <= MOST_TEXT)) return;
      this._pages.delete(number);
      this._weight -= page.weight;
    }
  }

  /**
   * @param {number} first
   * @param {number} last
   */
  _changed(first, last) {
    this.dispatchEvent(new CustomEvent("change", { detail: { first, last } }));
  }
}
