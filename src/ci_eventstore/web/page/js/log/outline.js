/**
 * The outline of a log: its groups, its errors and warnings, and when its lines were written.
 *
 * It is put together from the server's answers, each of which says what is new or has changed since the one before.
 */

import { bisect } from "../bisect.js";
import { Folds } from "./folds.js";

/**
 * @typedef {object} Group
 * @property {number} line the line that opens it
 * @property {number | null} end its last line; null while it is open
 * @property {string} title
 * @property {number} depth 0 for one that is in no other
 * @property {boolean} is_open whether it is open at the log's end
 * @property {string | null} t when it began
 * @property {number | null} seconds how long it took
 */

/**
 * @typedef {object} Mark
 * @property {number} line
 * @property {"error" | "warning" | "notice"} kind
 * @property {string} text
 */

/**
 * @typedef {object} OutlineAnswer
 * @property {Group[]} groups
 * @property {Mark[]} marks
 * @property {[number, number, string][]} index line, byte, time
 * @property {number} total
 * @property {number} position
 * @property {Omit<Mark, "line">[]} [provisional]
 */

/** Dispatches `change` when an answer brought something. */
export class Outline extends EventTarget {
  constructor() {
    super();
    /** @type {Map<number, Group>} by their lines */
    this._groups = new Map();
    /** @type {Group[]} in the order of their lines */
    this.groups = [];
    /** @type {number[]} */
    this._outer = [];
    /** @type {Mark[]} in the order of their lines */
    this.marks = [];
    /** @type {Omit<Mark, "line">[]} in the end so far of a log that is too long, which has no numbers yet */
    this.provisional = [];
    /** @type {{line: number, at: number}[]} now and then a line, and when it was written */
    this.index = [];
    /** The event up to which this is the outline: what the next request asks for is after it. */
    this.position = 0;
    this.folds = new Folds();
    /** @type {ReadonlySet<number>} lines of the folded groups */
    this.folded = new Set();
  }

  /**
   * Take an answer of the server.
   *
   * @param {OutlineAnswer} answer
   */
  update(answer) {
    this.position = Math.max(this.position, answer.position);
    this.provisional = answer.provisional ?? [];
    if (answer.groups.length + answer.marks.length + answer.index.length === 0) return;
    for (const group of answer.groups) this._groups.set(group.line, group);
    this.groups = [...this._groups.values()].sort((one, other) => one.line - other.line);
    this._outer = placesOfOuter(this.groups);
    const marks = new Map([...this.marks, ...answer.marks].map((mark) => [`${mark.line} ${mark.kind}`, mark]));
    this.marks = [...marks.values()].sort((one, other) => one.line - other.line);
    const entries = new Map(this.index.map((entry) => [entry.line, entry]));
    for (const [line, , time] of answer.index) entries.set(line, { line, at: Date.parse(time) });
    this.index = [...entries.values()].sort((one, other) => one.line - other.line);
    this.setFolded(this.folded);
    this.dispatchEvent(new Event("change"));
  }

  /**
   * Return what a line is marked as; null if it isn't.
   *
   * @param {number} line
   * @returns {Mark["kind"] | null}
   */
  kindAt(line) {
    const mark = this.marks[bisect(this.marks, (one) => one.line >= line)];
    return mark?.line === line ? mark.kind : null;
  }

  /** Forget everything: the log is another one. */
  reset() {
    this._groups.clear();
    [this.groups, this.marks, this.provisional, this.index, this.position] = [[], [], [], [], 0];
    this.setFolded(new Set());
    this.dispatchEvent(new Event("change"));
  }

  /**
   * Fold these groups, and no others.
   *
   * @param {ReadonlySet<number>} lines the lines that open them
   */
  setFolded(lines) {
    this.folded = lines;
    this.folds.hide(this.groups.filter(({ line }) => lines.has(line)));
  }

  /**
   * Return the group that a line opens; null if it opens none.
   *
   * @param {number} line
   * @returns {Group | null}
   */
  groupAt(line) {
    return this._groups.get(line) ?? null;
  }

  /**
   * Return the groups around a line, the outermost first. The line that opens a group is around itself.
   *
   * @param {number} line
   * @returns {Group[]}
   */
  groupsAround(line) {
    /** @type {Group[]} */
    const around = [];
    // What began before a group and goes on after it is around that, too.
    for (let place = bisect(this.groups, (group) => group.line > line) - 1; place >= 0; place = this._outer[place]) {
      const group = this.groups[place];
      if ((group.end ?? Infinity) >= line) around.unshift(group);
    }
    return around;
  }

  /**
   * Return how many groups a line is in; the line that opens one isn't in it.
   *
   * @param {number} line
   */
  depthOf(line) {
    return this.groupAt(line)?.depth ?? this.groupsAround(line).length;
  }

  /**
   * Return the innermost group around a line of those that are open to somebody who reads; null if there is none.
   *
   * @param {number} line
   * @returns {Group | null}
   */
  openAround(line) {
    const around = this.groupsAround(line);
    const place = around.findIndex((group) => this.folded.has(group.line));
    return (place < 0 ? around : around.slice(0, place)).at(-1) ?? null;
  }

  /**
   * Return which groups stay folded, if a line is to be seen.
   *
   * @param {number} line
   * @returns {Set<number>}
   */
  foldedWithout(line) {
    const open = new Set(this.groupsAround(line).filter((group) => group.line < line).map((group) => group.line));
    return new Set([...this.folded].filter((group) => !open.has(group)));
  }

  /**
   * Return the next mark after a line, or the one before it; null at the end.
   *
   * @param {number} line
   * @param {{kinds?: string[], isBackward?: boolean}} [options]
   * @returns {Mark | null}
   */
  markFrom(line, { kinds = ["error"], isBackward = false } = {}) {
    const marks = this.marks.filter(({ kind }) => kinds.includes(kind));
    if (isBackward) return marks[bisect(marks, (mark) => mark.line >= line) - 1] ?? null;
    return marks[bisect(marks, (mark) => mark.line > line)] ?? null;
  }
}

/**
 * Return for each group the place of the one that it was opened in; -1: none.
 *
 * @param {Group[]} groups in the order of their lines
 */
function placesOfOuter(groups) {
  /** @type {number[]} */
  const open = [];
  return groups.map(({ depth }, place) => {
    while (open.length > 0 && groups[open[open.length - 1]].depth >= depth) open.pop();
    const outer = open.at(-1) ?? -1;
    open.push(place);
    return outer;
  });
}
