/**
 * The head of a job's page: how it stands, what it is, and what can be done with it. It lies outside of the log, so
 * that no output can pass for it.
 */
import { html, nothing } from "../vendor.js";
import { formatCount } from "../counts.js";
import { formatCounting, formatDuration, formatTime, jobDuration } from "../durations.js";
import { icon } from "../icon.js";
import { formatCommand, formatEnd, hasEnded, outcomeOf, titleOf } from "../jobs/outcome.js";

/** @import {Job} from "../types.js" */

/**
 * @typedef {object} HeadActions
 * @property {() => void} cancel
 * @property {() => void} again
 * @property {boolean} isBusy
 * @property {string} list the address of the list that one came from
 */

/**
 * Return the head of a job.
 *
 * @param {string} id
 * @param {Job|null} job null: it isn't known, or can't be had
 * @param {number} lines of its log
 * @param {number} now
 * @param {HeadActions} actions
 */
export function drawHead(id, job, lines, now, actions) {
  return html`<div class="head-main">
      ${drawBack(actions.list)} ${job ? drawStatus(job) : nothing}
      <h1 tabindex="-1">${job ? titleOf(job) : id}</h1>
      <span class="spring"></span>
      <div class="head-actions">${job ? drawActions(job, actions) : nothing}</div>
    </div>
    ${job ? drawFacts(job, lines, now) : nothing}`;
}

/** @param {Job} job */
function drawStatus(job) {
  const outcome = outcomeOf(job);
  return html`<span class="status status-${outcome.name} status-large">
    ${icon(outcome.icon)}<span>${outcome.word}</span>
  </span>`;
}

/**
 * @param {Job} job
 * @param {number} lines
 * @param {number} now
 */
function drawFacts(job, lines, now) {
  const command = formatCommand(job.command);
  return html`<dl class="facts">
    ${drawDuration(job, now)} ${fact("End", hasEnded(job) ? formatEnd(job) : "")}
    ${fact("Attempts", (job.attempts ?? 0) > 1 ? `attempt ${job.attempts}` : "")}
    ${job.name && command ? fact("Command", html`<code title=${command}>${command}</code>`, "fact-command") : nothing}
    ${fact("Queue", job.queue ? `queue ${job.queue}` : "")} ${fact("User", job.user_id ?? "")}
    ${drawTime("created", job.created_at)} ${fact("Lines", lines ? `${formatCount(lines)} lines` : "")}
    ${fact("Log", job.log_archived ? "archived" : "")} ${job.log_truncated ? drawTooLong(job) : nothing}
  </dl>`;
}

/** @param {string} list */
function drawBack(list) {
  return html`<a class="back" href=${list} title="Back to the jobs" aria-label="Back to the jobs">
    ${icon("arrow-left")}</a>`;
}

/**
 * @param {Job} job
 * @param {HeadActions} actions
 */
function drawActions(job, { cancel, again, isBusy }) {
  if (!hasEnded(job)) {
    return html`<button class="button" ?disabled=${isBusy} @click=${cancel}>${icon("ban")}Cancel</button>`;
  }
  if (!job.command?.length) return nothing;
  return html`<button class="button" ?disabled=${isBusy} @click=${again}>${icon("rotate-cw")}Submit again</button>`;
}

/**
 * @param {Job} job
 * @param {number} now
 */
function drawDuration(job, now) {
  const { kind, milliseconds } = jobDuration(job, now);
  if (kind === "ran") return fact("Duration", formatDuration(milliseconds));
  if (kind === "none") return nothing;
  return fact("Duration", `${kind === "waits" ? "waiting for " : ""}${formatCounting(milliseconds)}`);
}

/**
 * @param {string} name
 * @param {string|null|undefined} time
 */
function drawTime(name, time) {
  if (!time) return nothing;
  return fact("Time", html`${name} <time datetime=${time} title=${formatTime(time, true)}>${formatTime(time)}</time>`);
}

/**
 * @param {string} name read to those who don't see
 * @param {unknown} value nothing is shown for ""
 * @param {string} [kind]
 */
function fact(name, value, kind = "") {
  if (value === "") return nothing;
  return html`<div class="fact ${kind}"><dt class="visually-hidden">${name}</dt><dd>${value}</dd></div>`;
}

/** @param {Job} job */
function drawTooLong(job) {
  const says = hasEnded(job) ? "its middle may be left out" : "its end shows when the job has ended";
  return fact("Note", html`${icon("triangle-alert")} too long: ${says}`, "fact-warn");
}
