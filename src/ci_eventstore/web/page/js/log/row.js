/** One row of the view: a line's number, its time and its text. */

import { formatCount } from "../counts.js";
import { formatDuration } from "../durations.js";
import { drawContent } from "./content.js";
import { parseLine } from "./ansi.js";
import { applySgr } from "./style.js";
import { formatLineTime } from "./times.js";

/** @typedef {import("./page_of_lines.js").Line} Line */
/** @typedef {import("./ansi.js").Parsed} Parsed */
/** @typedef {import("./outline.js").Group} Group */
/** @typedef {import("./content.js").Hit} Hit */
/** @typedef {import("./options.js").Options} Options */

/**
 * @typedef {object} RowContent
 * @property {number} n
 * @property {Line | null} line
 * @property {Parsed | null} parsed null: it isn't here yet
 * @property {Group | null} group the group that it opens
 * @property {boolean} isFolded whether that is folded
 * @property {number} depth how many groups it is in
 * @property {import("./outline.js").Mark["kind"] | null} kind what it is marked as
 * @property {Hit[]} hits to be drawn as elements
 * @property {boolean} isOverwritten whether a terminal would show later lines in its place
 */

/** Deeper groups aren't moved further to the right. */
const MOST_DEPTH = 8;
/** Of a group's title, in UTF-16 units. */
const LONGEST_TITLE = 500;
/** Lines that only end a group. */
const ENDS = new Set(["::endgroup::", "##[endgroup]"]);

/**
 * @param {string} name
 * @param {string} className
 * @param {string} [role]
 */
export function make(name, className, role) {
  const element = document.createElement(name);
  element.className = className;
  if (role) element.setAttribute("role", role);
  return element;
}

export class Row {
  /**
   * @param {RowContent} row
   * @param {Options} options
   * @param {{units: number, runs: number}} budget
   */
  constructor(row, options, budget) {
    this.n = row.n;
    this.drawn = row;
    this.element = make("div", "log-row", "row");
    this.element.dataset.line = String(row.n);
    this.element.setAttribute("aria-rowindex", String(row.n));
    this.content = make("span", "log-content");
    const cells = [numberCell(row.n, options.lineHref(row.n))];
    if (options.times !== "none") cells.push(timeCell(row.line, options));
    const text = make("div", "log-text", "cell");
    if (row.depth) {
      this.element.classList.add("is-inside");
      this.element.style.setProperty("--log-depth", String(Math.min(row.depth, MOST_DEPTH)));
    }
    if (row.group) {
      this.element.classList.add("is-group");
      text.append(foldButton(row.group, row.isFolded));
    }
    if (row.kind) this.element.classList.add("is-marked", `is-${row.kind}`);
    if (row.isOverwritten) {
      this.element.classList.add("is-overwritten");
      text.title = "A terminal would show later lines in place of this one";
    }
    text.append(this.content);
    this._fill(text, row, options, budget);
    this.element.append(...cells, text);
  }

  /**
   * Tell whether a row looks as this one does.
   *
   * @param {RowContent} row
   */
  isFor({ parsed, group, isFolded, depth, line, kind, hits, isOverwritten }) {
    const { drawn } = this;
    return drawn.parsed === parsed && drawn.group === group && drawn.isFolded === isFolded && drawn.depth === depth
      && drawn.line?.bytes === line?.bytes && drawn.kind === kind && drawn.isOverwritten === isOverwritten
      && hits.length === 0 && drawn.hits.length === 0;
  }

  /** Whether the text that is shown isn't the line's. */
  get isTitle() {
    return this.drawn.group !== null;
  }

  /**
   * @param {Element} text
   * @param {RowContent} row
   * @param {Options} options
   * @param {{units: number, runs: number}} budget
   */
  _fill(text, { n, line, parsed, group, hits, kind }, options, budget) {
    if (!parsed) {
      this.element.classList.add("is-missing");
      this.element.setAttribute("aria-busy", "true");
    } else if (group) {
      drawContent(this.content, parseLine(group.title || parsed.text || "…"), { units: LONGEST_TITLE, runs: 1 });
      if (group.seconds !== null) text.append(duration(group.seconds));
    } else {
      this.element.classList.toggle("is-end", ENDS.has(parsed.text));
      const drawn = drawContent(this.content, kind ? withQuietMark(parsed) : parsed, budget, hits);
      const rest = line?.bytes === undefined ? parsed.text.length - drawn : Math.max(1, line.bytes - drawn);
      if (rest > 0) text.append(more(n, rest, options.textHref));
    }
  }
}

/**
 * Return a line whose mark, as `::error file=a.py::`, is dim, so that what it says stands out. The text stays.
 *
 * @param {Parsed} parsed
 * @returns {Parsed}
 */
export function withQuietMark(parsed) {
  const { text, runs } = parsed;
  const end = text.startsWith("::") ? text.indexOf("::", 2) + 2 : text.startsWith("##[") ? text.indexOf("]") + 1 : 0;
  const [first] = runs;
  if (end < 4 || !first || first.end < end || end === text.length) return parsed;
  const quiet = { ...first, end, style: applySgr(first.style, "2") };
  return { ...parsed, runs: [quiet, { ...first, start: end }, ...runs.slice(1)].filter((run) => run.end > run.start) };
}

/**
 * @param {number} n
 * @param {string} href
 */
function numberCell(n, href) {
  const cell = make("div", "log-gutter", "rowheader");
  const link = document.createElement("a");
  link.className = "log-number";
  link.href = href;
  link.tabIndex = -1;
  link.draggable = false;
  link.dataset.number = String(n);
  link.setAttribute("aria-label", `line ${n}`);
  cell.append(link);
  return cell;
}

/**
 * @param {Line | null} line
 * @param {Options} options
 */
function timeCell(line, { times, start }) {
  const cell = make("div", "log-time", "cell");
  // As an attribute it isn't copied, nor found in the text.
  cell.dataset.time = line ? formatLineTime(line.time, times, start) : "";
  if (line?.time) cell.title = line.time;
  return cell;
}

/**
 * @param {Group} group
 * @param {boolean} isFolded
 */
function foldButton({ title }, isFolded) {
  const button = make("button", "log-fold");
  button.setAttribute("type", "button");
  button.setAttribute("aria-expanded", String(!isFolded));
  button.setAttribute("aria-label", `group ${title}`);
  button.tabIndex = -1;
  return button;
}

/** @param {number} seconds */
function duration(seconds) {
  const shown = make("span", "log-seconds");
  shown.dataset.seconds = formatDuration(seconds * 1000);
  return shown;
}

/**
 * @param {number} n
 * @param {number} rest
 * @param {(n: number) => string} textHref
 */
function more(n, rest, textHref) {
  const link = document.createElement("a");
  link.className = "log-more";
  link.textContent = `… ${formatCount(rest)} more`;
  link.setAttribute("aria-label", `open all of line ${n}: ${formatCount(rest)} more characters`);
  link.tabIndex = -1;
  link.href = textHref(n);
  link.target = "_blank";
  link.rel = "noopener";
  return link;
}
