/**
 * A search over a log: what was found so far, which hit is the current one, and where to go on. Pure.
 *
 * Hits come in the order of lines. While the job runs, the search goes on after the last line that it has seen.
 */
import { bisect } from "../bisect.js";
import { countOf, formatCount } from "../counts.js";

/** This many lines with hits are kept; more than that are found by a narrower search. */
export const MOST_HITS = 20_000;
/** Of lines with hits, one answer has this many. */
export const MOST_OF_ANSWER = 5000;

/**
 * @typedef {object} Query
 * @property {string} text
 * @property {"text"|"regex"} mode
 * @property {boolean} isCase
 *
 * @typedef {[number, number]} Span
 *
 * @typedef {object} Message what the server sends, a line of JSON each
 * @property {number} [n] a line with hits
 * @property {Span[]} [at]
 * @property {string} [text]
 * @property {object} [provisional] a line with hits that has no number before the job ends
 * @property {{scanned: number}} [progress]
 * @property {boolean} [done]
 * @property {number|null} [next]
 * @property {number} [scanned]
 */

/** What a search has found. */
export class SearchMachine {
  /** @param {Query} query */
  constructor(query) {
    this.query = query;
    /** @type {number[]} */
    this.lines = [];
    /** @type {Map<number, Span[]>} */
    this.spans = new Map();
    /** Hits in all kept lines. */
    this.count = 0;
    /** The index of the current line in `lines`; -1: none yet. */
    this.current = -1;
    /** The line that the next request begins with. */
    this.next = 1;
    this.scanned = 0;
    this.isRunning = false;
    /** Whether no more is kept, though there may be more. */
    this.isFull = false;
    /** Lines with hits after those that the log shows while the job runs. */
    this.provisional = 0;
    this.error = "";
  }

  /** A request begins. */
  begin() {
    this.isRunning = true;
    this.error = "";
    this.provisional = 0;
    this._scannedBefore = this.scanned;
    this._first = this.next;
  }

  /**
   * @param {Message} message
   * @returns {boolean} whether another request is to follow at once
   */
  take(message) {
    if (message.n !== undefined) this._found(message.n, message.at ?? []);
    if (message.provisional && "at" in message.provisional) this.provisional += 1;
    if (message.progress) this.scanned = (this._scannedBefore ?? 0) + message.progress.scanned;
    if (message.done === undefined) return false;
    this.scanned = (this._scannedBefore ?? 0) + (message.scanned ?? 0);
    this.isRunning = false;
    if (message.next === null || message.next === undefined) {
      this.next = (this._first ?? 1) + (message.scanned ?? 0);
      return false;
    }
    this.next = message.next;
    this.isFull ||= this.lines.length >= MOST_HITS;
    return !message.done && !this.isFull;
  }

  /**
   * Learn how long the log was: a last line without an end is searched again when it has one.
   *
   * @param {number} total
   * @param {boolean} isOpen
   */
  setEnd(total, isOpen) {
    if (isOpen) this.next = Math.min(this.next, Math.max(1, total));
  }

  /** @param {string} error */
  fail(error) {
    this.isRunning = false;
    this.error = error;
  }

  /**
   * Return whether lines have come that no request has seen.
   *
   * @param {number} total
   * @param {boolean} isOpen whether the last one has no end yet: it is searched when it has
   */
  isBehind(total, isOpen) {
    return !this.isRunning && !this.isFull && !this.error && this.next <= total - (isOpen ? 1 : 0);
  }

  /**
   * Make the next hit after a place the current one, or the last one before it; beyond an end it goes on at the other.
   *
   * @param {1|-1} direction
   * @param {number} line where the reader is, as long as there is no current hit
   * @returns {{line: number, hasWrapped: boolean}|null} null: nothing was found
   */
  step(direction, line) {
    const { length } = this.lines;
    if (length === 0) return null;
    let index;
    if (this.current >= 0) index = this.current + direction;
    else if (direction > 0) index = bisect(this.lines, (one) => one >= line);
    else index = bisect(this.lines, (one) => one > line) - 1;
    this.current = (index + length) % length;
    return { line: this.lines[this.current], hasWrapped: index < 0 || index >= length };
  }

  /** What to tell: `match 3 of 20`. */
  get summary() {
    if (this.error) return this.error;
    const of = `${formatCount(this.lines.length)}${this.isFull ? "+" : ""}`;
    const searched = this.scanned ? `, ${formatCount(this.scanned)} lines searched` : "";
    if (this.lines.length === 0 && this.isRunning) return `Searching…${searched}`;
    if (this.lines.length === 0 && this.provisional === 0) return "No match";
    const found =
      this.current < 0
        ? `${of} ${this.lines.length === 1 ? "line" : "lines"}`
        : `${formatCount(this.current + 1)} of ${of}`;
    return this.isRunning ? `${found}…${searched}` : found;
  }

  /** What the summary leaves out; "" if that is nothing. */
  get note() {
    const notes = [];
    const [most, last] = [formatCount(MOST_HITS), formatCount(this.lines.at(-1) ?? 0)];
    if (this.isFull) notes.push(`The search stopped at ${most} lines, at line ${last}. Search for a longer text.`);
    if (this.provisional > 0) {
      const found = `${countOf(this.provisional, "line")}${this.provisional < MOST_OF_ANSWER ? "" : " or more"}`;
      notes.push(`This log is too long to show whole while the job runs: ${found} with hits in its end so far.`);
    }
    return notes.join(" ");
  }

  /**
   * @param {number} line
   * @param {Span[]} at
   */
  _found(line, at) {
    if (this.lines.length >= MOST_HITS) {
      this.isFull = true;
      return;
    }
    const last = this.lines.at(-1);
    if (last !== undefined && line < last) return;
    if (line !== last) this.lines.push(line);
    this.count += at.length - (this.spans.get(line)?.length ?? 0);
    this.spans.set(line, at);
  }
}
