/**
 * One line of a terminal's output, as the terminal would show it.
 *
 * Carriage returns, backspaces and moves within the line overwrite, erasing erases, colours and links become runs;
 * every other sequence vanishes wholly, of moves to lines above all but how far they go. Each character is looked at
 * once. A sequence never reaches beyond its line, so none can hide the lines after it; style and link do. The plain
 * text is that of the server's search: places agree.
 */

import { findAddresses, safeLink } from "./links.js";
import { PLAIN_STYLE, applySgr } from "./style.js";

/** @typedef {import("./style.js").Style} Style */

/**
 * @typedef {object} State what a line leaves to the next
 * @property {Style} style
 * @property {string | null} link
 */

/**
 * @typedef {object} Run
 * @property {number} start in UTF-16 units of the text
 * @property {number} end
 * @property {Style} style
 * @property {string | null} link an address that may be followed
 */

/**
 * @typedef {object} Parsed
 * @property {string} text
 * @property {Run[]} runs all of the text, in order
 * @property {State} state
 * @property {number} up how many lines the cursor is higher at its end, so as to write over what stands there
 */

/** @type {State} */
export const RESET = Object.freeze({ style: PLAIN_STYLE, link: null });

/** What isn't plain: controls but tabs. */
const CONTROLS = /[\u0000-\u0008\u000a-\u001f\u007f-\u009f]/u;
/** What is between them. */
const TEXT = /[^\u0000-\u001f\u007f-\u009f]+/uy;
/** A move to the right reaches so far at most. */
const MOST_COLUMNS = 16384;
/** A move up reaches so far at most: a screen. */
export const MOST_UP = 50;
/** More runs than these aren't drawn: what follows is one, and plain. */
export const MOST_RUNS = 2000;
const LONGEST_STRING = 4096;

const ESC = 0x1b;
const ST = 0x9c;
/** The 8-bit introducers, and their 7-bit letters after ESC: DCS, SOS, OSC, PM, APC. */
const STRINGS = new Set(["P", "X", "]", "^", "_"]);

/**
 * Parse one line.
 *
 * @param {string} text without its newline
 * @param {State} [before] what the line before left
 * @returns {Parsed}
 */
export function parseLine(text, before = RESET) {
  if (!CONTROLS.test(text)) {
    const runs = text ? [{ start: 0, end: text.length, style: before.style, link: before.link }] : [];
    return { text, runs: withAddresses(text, runs), state: before, up: 0 };
  }
  const screen = new Screen(before);
  readInto(screen, text);
  return screen.result();
}

/**
 * Return what a line leaves to the next one, which is less work than to parse it.
 *
 * @param {string} text
 * @param {State} before
 * @returns {State}
 */
export function stateAfter(text, before) {
  if (!/[\u001b\u009b\u009d]/u.test(text)) return before;
  const screen = new Blind(before);
  readInto(screen, text);
  return screen.state;
}

/** Takes what a line says and shows nothing. */
class Blind {
  /** @param {State} state */
  constructor(state) {
    this.state = state;
    this.column = 0;
  }

  write() {}

  move() {}

  erase() {}

  blank() {}

  raise() {}
}

/** The one line of a screen: a cell for each code point. */
class Screen {
  /** @param {State} state */
  constructor(state) {
    this.state = state;
    /** @type {string[]} */
    this.cells = [];
    /** @type {State[]} */
    this.states = [];
    this.column = 0;
    this.up = 0;
  }

  /**
   * Move to a line above; below 0: to one below.
   *
   * @param {number} rows
   */
  raise(rows) {
    this.up = Math.max(-MOST_UP, Math.min(this.up + rows, MOST_UP));
  }

  /** @param {string} text */
  write(text) {
    this.fill(this.column);
    for (const character of text) {
      this.cells[this.column] = character;
      this.states[this.column] = this.state;
      this.column += 1;
    }
  }

  /**
   * Fill up with blanks.
   *
   * @param {number} columns
   */
  fill(columns) {
    while (this.cells.length < columns) {
      this.cells.push(" ");
      this.states.push(RESET);
    }
  }

  /**
   * Move within the line.
   *
   * @param {number} column
   */
  move(column) {
    this.column = Math.max(0, Math.min(column, Math.max(MOST_COLUMNS, this.cells.length)));
  }

  /**
   * Erase from the cursor (0), up to it (1) or all (2).
   *
   * @param {number} part
   */
  erase(part) {
    if (part === 0) this.cut(this.column);
    else if (part === 2) this.cut(0);
    else if (part === 1) this.blank(0, this.column + 1);
  }

  /**
   * @param {number} start
   * @param {number} end
   */
  blank(start, end) {
    const last = Math.min(end, this.cells.length);
    for (let place = start; place < last; place += 1) {
      this.cells[place] = " ";
      this.states[place] = RESET;
    }
  }

  /** @param {number} columns */
  cut(columns) {
    if (columns >= this.cells.length) return;
    this.cells.length = columns;
    this.states.length = columns;
  }

  /** @returns {Parsed} */
  result() {
    /** @type {Run[]} */
    const runs = [];
    let place = 0;
    /** @type {Run | null} */
    let last = null;
    for (let cell = 0; cell < this.cells.length; cell += 1) {
      const { style, link } = this.states[cell];
      const end = place + this.cells[cell].length;
      if (last && (runs.length > MOST_RUNS || (last.style === style && last.link === link))) last.end = end;
      else {
        const isRest = runs.length === MOST_RUNS;
        last = isRest ? { start: place, end, ...RESET } : { start: place, end, style, link };
        runs.push(last);
      }
      place = end;
    }
    const text = this.cells.join("");
    return { text, runs: withAddresses(text, runs), state: this.state, up: this.up };
  }
}

/**
 * Read all of a text into a screen.
 *
 * @param {Screen | Blind} screen
 * @param {string} text
 */
function readInto(screen, text) {
  let place = 0;
  while (place < text.length) {
    TEXT.lastIndex = place;
    const run = TEXT.exec(text);
    if (run) {
      screen.write(run[0]);
      place = TEXT.lastIndex;
      continue;
    }
    const code = text.charCodeAt(place);
    if (code === ESC) place = readEscape(screen, text, place + 1);
    else if (code === 0x9b) place = readControl(screen, text, place + 1);
    else if (code === 0x90 || code === 0x98 || code === 0x9d || code === 0x9e || code === 0x9f) {
      place = readString(screen, text, place + 1, code === 0x9d);
    } else {
      if (code === 0x0d) screen.move(0);
      else if (code === 0x08) screen.move(screen.column - 1);
      else if (code === 0x09) screen.write("\t");
      place += 1;
    }
  }
}

/**
 * Read what follows ESC; return the place after it.
 *
 * @param {Screen | Blind} screen
 * @param {string} text
 * @param {number} place
 */
function readEscape(screen, text, place) {
  const first = text[place];
  if (first === "[") return readControl(screen, text, place + 1);
  if (STRINGS.has(first)) return readString(screen, text, place + 1, first === "]");
  let end = place;
  while (isBetween(text, end, 0x20, 0x2f)) end += 1;
  if (!isBetween(text, end, 0x30, 0x7e)) return end;
  if (first === "c") screen.state = RESET;
  return end + 1;
}

/**
 * Read a control sequence after its introducer; do what it says within the line.
 *
 * @param {Screen | Blind} screen
 * @param {string} text
 * @param {number} start
 */
function readControl(screen, text, start) {
  let end = start;
  while (isBetween(text, end, 0x30, 0x3f)) end += 1;
  const parameters = text.slice(start, end);
  const isPlain = !isBetween(text, end, 0x20, 0x2f) && !/[<=>?]/u.test(parameters);
  while (isBetween(text, end, 0x20, 0x2f)) end += 1;
  if (!isBetween(text, end, 0x40, 0x7e)) return end;
  if (isPlain) control(screen, text[end], parameters);
  return end + 1;
}

/**
 * @param {Screen | Blind} screen
 * @param {string} final
 * @param {string} parameters
 */
function control(screen, final, parameters) {
  if (final === "m") {
    const style = applySgr(screen.state.style, parameters);
    if (style !== screen.state.style) screen.state = { style, link: screen.state.link };
    return;
  }
  const first = Math.min(Number.parseInt(parameters, 10) || 0, MOST_COLUMNS);
  const count = first || 1;
  if (final === "K") screen.erase(first);
  else if (final === "C") screen.move(screen.column + count);
  else if (final === "D") screen.move(screen.column - count);
  else if (final === "G") screen.move(count - 1);
  else if (final === "X") screen.blank(screen.column, screen.column + count);
  else if (final === "A" || final === "F") screen.raise(count);
  else if (final === "B" || final === "E") screen.raise(-count);
}

/**
 * Read a string (OSC, DCS and others) to its end, which is BEL, ST or the line's; of them links alone are used.
 *
 * @param {Screen | Blind} screen
 * @param {string} text
 * @param {number} start
 * @param {boolean} isCommand whether it is an OSC
 */
function readString(screen, text, start, isCommand) {
  let end = start;
  while (end < text.length) {
    const code = text.charCodeAt(end);
    if (code === 0x07 || code === ST || code === ESC || code === 0x18 || code === 0x1a) break;
    end += 1;
  }
  if (isCommand && end - start <= LONGEST_STRING && text.startsWith("8;", start)) {
    const address = text.slice(text.indexOf(";", start + 2) + 1, end);
    screen.state = { style: screen.state.style, link: address ? safeLink(address) : null };
  }
  // An escape that doesn't end the string begins another sequence.
  return text.charCodeAt(end) === ESC ? (text[end + 1] === "\\" ? end + 2 : end) : end + 1;
}

/**
 * @param {string} text
 * @param {number} place
 * @param {number} low
 * @param {number} high
 */
function isBetween(text, place, low, high) {
  const code = text.charCodeAt(place);
  return code >= low && code <= high;
}

/**
 * Make links of addresses in runs that have none.
 *
 * @param {string} text
 * @param {Run[]} runs
 * @returns {Run[]}
 */
function withAddresses(text, runs) {
  const found = text.includes("://") && runs.length < MOST_RUNS ? findAddresses(text) : [];
  if (found.length === 0) return runs;
  /** @type {Run[]} */
  const split = [];
  let next = 0;
  for (const run of runs) {
    let { start } = run;
    while (next < found.length && found[next].end <= start) next += 1;
    for (let at = next; at < found.length && found[at].start < run.end && !run.link; at += 1) {
      const begin = Math.max(found[at].start, start);
      const end = Math.min(found[at].end, run.end);
      if (begin > start) split.push({ ...run, start, end: begin });
      split.push({ ...run, start: begin, end, link: found[at].link });
      start = end;
    }
    if (start < run.end) split.push({ ...run, start });
  }
  return split;
}
