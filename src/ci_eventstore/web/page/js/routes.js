/**
 * Addresses within the page: `#/?status=failed` is a list of jobs, `#/jobs/ID?line=a-b` a job. Pure.
 */

/** @import {LineRange, ListFilter, Route} from "./types.js" */

/** @type {ListFilter} */
export const NO_FILTER = Object.freeze({ status: "", queue: "", text: "" });

/**
 * Return the route that the hash of an address names; the list for any that it doesn't understand.
 *
 * @param {string} hash with or without its `#`
 * @returns {Route}
 */
export function parseRoute(hash) {
  const [path = "", query = ""] = split(hash.replace(/^#/, ""), "?");
  const parameters = new URLSearchParams(query);
  const id = path.match(/^\/jobs\/([^/]+)\/?$/)?.[1];
  if (id !== undefined) return { page: "job", id: decoded(id), lines: parseLines(parameters.get("line") ?? "") };
  const [status, queue, text] = ["status", "queue", "q"].map((name) => parameters.get(name) ?? "");
  return { page: "list", filter: { status, queue, text } };
}

/**
 * Return the hash of a route, the shortest that names it.
 *
 * @param {Route} route
 * @returns {string}
 */
export function formatRoute(route) {
  const parameters = new URLSearchParams();
  if (route.page === "job") {
    if (route.lines) parameters.set("line", formatLines(route.lines));
    return `#/jobs/${encodeURIComponent(route.id)}${suffix(parameters)}`;
  }
  const { status, queue, text } = route.filter;
  for (const [name, value] of Object.entries({ status, queue, q: text })) if (value) parameters.set(name, value);
  return `#/${suffix(parameters)}`;
}

/**
 * Return the lines that a text like `12` or `12-34` names, in order; null for any other text.
 *
 * @param {string} text
 * @returns {LineRange|null}
 */
export function parseLines(text) {
  const found = text.match(/^L?(\d{1,15})(?:-L?(\d{1,15}))?$/i);
  if (!found) return null;
  const [from, to] = [Number(found[1]), Number(found[2] ?? found[1])];
  return Math.min(from, to) < 1 ? null : { from: Math.min(from, to), to: Math.max(from, to) };
}

/**
 * @param {LineRange} lines
 * @returns {string}
 */
export function formatLines({ from, to }) {
  return from === to ? String(from) : `${from}-${to}`;
}

/**
 * Return the range that a click on a line's number selects; with shift, from where the last one began.
 *
 * @param {LineRange|null} before
 * @param {number} line
 * @param {boolean} isRange
 * @returns {LineRange|null} null: the only selected line was clicked again
 */
export function pickLine(before, line, isRange) {
  if (isRange && before) {
    // The far end of the old range stays where it was.
    const anchor = line < before.from ? before.to : before.from;
    return { from: Math.min(anchor, line), to: Math.max(anchor, line) };
  }
  return before && before.from === line && before.to === line ? null : { from: line, to: line };
}

/** @param {URLSearchParams} parameters */
function suffix(parameters) {
  const text = parameters.toString();
  return text ? `?${text}` : "";
}

/**
 * @param {string} text
 * @param {string} mark
 */
function split(text, mark) {
  const at = text.indexOf(mark);
  return at < 0 ? [text] : [text.slice(0, at), text.slice(at + 1)];
}

/** @param {string} text */
function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}
