/**
 * Durations and times as people read them. Pure: the present time comes in as an argument.
 */

/** @import {Job} from "./types.js" */

const SECOND = 1000;
const MINUTE = 60 * SECOND;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;

/**
 * Return a duration in at most two units: `0.8 s`, `12 s`, `3 min 05 s`, `2 h 10 min`, `4 d 3 h`.
 *
 * @param {number} milliseconds
 * @returns {string}
 */
export function formatDuration(milliseconds) {
  const duration = Math.max(0, milliseconds);
  if (duration < 9950) return `${(duration / SECOND).toFixed(1)} s`;
  if (duration < MINUTE - SECOND / 2) return `${Math.round(duration / SECOND)} s`;
  const seconds = Math.round(duration / SECOND) * SECOND;
  if (seconds < HOUR) return pair(seconds, MINUTE, "min", SECOND, "s");
  if (seconds < DAY) return pair(seconds, HOUR, "h", MINUTE, "min");
  return pair(seconds, DAY, "d", HOUR, "h");
}

/**
 * Return a running duration, which counts in whole seconds: a digit that flickers tells nothing.
 *
 * @param {number} milliseconds
 */
export function formatCounting(milliseconds) {
  return milliseconds < 9950 ? `${Math.floor(Math.max(0, milliseconds) / SECOND)} s` : formatDuration(milliseconds);
}

/**
 * Return how long ago a time was: `just now`, `5 min ago`, `yesterday`.
 *
 * @param {string|null|undefined} time RFC 3339
 * @param {number} now
 * @returns {string} "" without a time
 */
export function formatAgo(time, now) {
  const at = parseTime(time);
  if (at === null) return "";
  const age = Math.max(0, now - at);
  if (age < 10 * SECOND) return "just now";
  if (age < MINUTE) return `${Math.floor(age / SECOND)} s ago`;
  if (age < HOUR) return `${Math.floor(age / MINUTE)} min ago`;
  if (age < DAY) return `${Math.floor(age / HOUR)} h ago`;
  if (age < 2 * DAY) return "yesterday";
  return `${Math.floor(age / DAY)} days ago`;
}

/**
 * Return how long a job has run, or waited if it hasn't begun.
 *
 * @param {Job} job
 * @param {number} now
 * @returns {{kind: "ran"|"runs"|"waits"|"none", milliseconds: number}}
 */
export function jobDuration(job, now) {
  const [created, start, end] = [job.created_at, job.start_time, job.end_time].map(parseTime);
  if (start !== null && end !== null) return { kind: "ran", milliseconds: Math.max(0, end - start) };
  if (start !== null && job.status === "running") return { kind: "runs", milliseconds: Math.max(0, now - start) };
  if (job.status === "queued" && created !== null) return { kind: "waits", milliseconds: Math.max(0, now - created) };
  return { kind: "none", milliseconds: 0 };
}

/**
 * @param {string|null|undefined} time RFC 3339
 * @returns {number|null} milliseconds since 1970
 */
export function parseTime(time) {
  const at = time ? Date.parse(time) : NaN;
  return Number.isNaN(at) ? null : at;
}

/**
 * Return a time in full, local or UTC: `2026-11-26 15:10:47`.
 *
 * @param {string|null|undefined} time
 * @param {boolean} [isUtc]
 * @returns {string}
 */
export function formatTime(time, isUtc = false) {
  const at = parseTime(time);
  if (at === null) return "";
  const local = new Date(isUtc ? at : at - new Date(at).getTimezoneOffset() * MINUTE);
  return local.toISOString().slice(0, 19).replace("T", " ") + (isUtc ? " UTC" : "");
}

/**
 * @param {number} duration
 * @param {number} large
 * @param {string} largeName
 * @param {number} small
 * @param {string} smallName
 */
function pair(duration, large, largeName, small, smallName) {
  const rest = String(Math.floor((duration % large) / small)).padStart(small === HOUR ? 1 : 2, "0");
  return `${Math.floor(duration / large)} ${largeName} ${rest} ${smallName}`;
}
