/**
 * A run of lines that are held in memory together, from its first line on without a hole.
 */

import { RESET, stateAfter } from "./ansi.js";

/** @typedef {import("./ansi.js").State} State */
/** @typedef {import("./ansi.js").Parsed} Parsed */

/**
 * @typedef {object} Line
 * @property {number} n its number, from 1
 * @property {string | null} time when its beginning was written (RFC 3339)
 * @property {string} text as it was written, without its newline; cut if it is very long
 * @property {number} [bytes] the whole length, if the text is cut
 */

/**
 * @typedef {object} LinesAnswer
 * @property {number} first
 * @property {{n: number, t: string, text: string, bytes?: number}[]} lines
 * @property {number} total
 * @property {boolean} is_open
 * @property {number} position
 * @property {boolean} [ended]
 * @property {string} [incarnation]
 */

export const LINES_PER_PAGE = 500;
/** Text of a line that is held, in UTF-16 units; the server cuts its answers at as many bytes. */
const LONGEST_TEXT = 16384;
/** At most this many lines before one decide how it begins, if they are here. */
const LOOK_BACK = 200;

/**
 * Return the number of the page that has a line.
 *
 * @param {number} n
 */
export function pageOf(n) {
  return Math.floor((n - 1) / LINES_PER_PAGE);
}

export class PageOfLines {
  /** @param {number} number */
  constructor(number) {
    this.number = number;
    this.first = number * LINES_PER_PAGE + 1;
    /** @type {Line[]} */
    this.lines = [];
    /** The last line may still grow. */
    this.isLastOpen = false;
    /** The event up to which the log's end is known here. */
    this.position = 0;
    /** Units of text, about. */
    this.weight = 0;
    /** @type {(State | undefined)[]} how lines begin, where that is known */
    this.states = [];
    /** Whether `states` began with the page before. */
    this.hasLookedBack = false;
  }

  /** The line after the last one here. */
  get end() {
    return this.first + this.lines.length;
  }

  /** Nothing that is written later changes this page. */
  get isFull() {
    return this.lines.length === LINES_PER_PAGE && !this.isLastOpen;
  }

  /** Where the next fetch begins: at a line that may have grown, or after the last one. */
  get next() {
    return this.isLastOpen ? this.end - 1 : this.end;
  }

  /**
   * Take an answer that begins at `next` or before; what is here already stays.
   *
   * @param {LinesAnswer} answer
   */
  take(answer) {
    for (const { n, t, text, bytes } of answer.lines) {
      const isKnown = n < this.next || (n < this.end && answer.position < this.position);
      if (isKnown || n >= this.first + LINES_PER_PAGE) continue;
      if (n > this.end) break;
      this.put({ n, time: t, text: text.slice(0, LONGEST_TEXT), ...(bytes === undefined ? {} : { bytes }) });
      this.isLastOpen = answer.is_open && n === answer.total;
    }
    this.position = Math.max(this.position, answer.position);
  }

  /**
   * Put a line at the end, or in place of the last one.
   *
   * @param {Line} line
   */
  put(line) {
    const place = line.n - this.first;
    this.weight += line.text.length - (this.lines[place]?.text.length ?? 0) + 64;
    this.lines[place] = line;
    this.states.length = Math.min(this.states.length, place + 1);
  }

  /**
   * Add live output to a line at the end; false if it doesn't belong here.
   *
   * @param {number} n
   * @param {string} text
   * @param {string | null} time
   * @param {boolean} isComplete whether the line ends with it
   */
  add(n, text, time, isComplete) {
    const old = this.isLastOpen && n === this.end - 1 ? this.lines[n - this.first] : null;
    if (!old && n !== this.end) return false;
    const whole = (old?.text ?? "") + text;
    /** @type {Line} */
    const line = { n, time: old ? old.time : time, text: whole.slice(0, LONGEST_TEXT) };
    if (whole.length > LONGEST_TEXT || old?.bytes !== undefined) {
      line.bytes = old?.bytes === undefined ? bytesOf(whole) : old.bytes + bytesOf(text);
    }
    this.put(line);
    this.isLastOpen = !isComplete;
    return true;
  }

  /**
   * Return the state in which a line begins. Without the page before, the page begins with none.
   *
   * @param {number} n
   * @param {PageOfLines | undefined} before
   * @returns {State}
   */
  stateBefore(n, before) {
    const canLookBack = before !== undefined && before.lines.length === LINES_PER_PAGE;
    if (canLookBack && !this.hasLookedBack) this.states = [];
    this.hasLookedBack = canLookBack;
    const place = n - this.first;
    let from = place;
    while (from > 0 && place - from < LOOK_BACK && !this.states[from]) from -= 1;
    if (!this.states[from]) this.states[from] = from === 0 && canLookBack ? endOf(before) : RESET;
    for (; from < place; from += 1) {
      this.states[from + 1] = stateAfter(this.lines[from].text, this.states[from] ?? RESET);
    }
    return this.states[place] ?? RESET;
  }
}

/**
 * Return the state that the last lines of a page leave.
 *
 * @param {PageOfLines} page
 */
function endOf(page) {
  let state = RESET;
  for (const { text } of page.lines.slice(-LOOK_BACK)) state = stateAfter(text, state);
  return state;
}

const encoder = new TextEncoder();

/**
 * @param {string} text
 */
function bytesOf(text) {
  return encoder.encode(text).length;
}
