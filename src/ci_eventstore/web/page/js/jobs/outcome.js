/**
 * How a job stands, in one word and with an icon: never by colour alone. Pure.
 */

/** @import {Job, ListFilter, Status} from "../types.js" */

/**
 * @typedef {"waiting"|"running"|"passed"|"failed"|"cancelled"|"ended"} OutcomeName
 * @typedef {{name: OutcomeName, word: string, icon: string}} Outcome
 */

/** @type {Record<OutcomeName, Outcome>} */
const OUTCOMES = {
  waiting: { name: "waiting", word: "Waiting", icon: "clock" },
  running: { name: "running", word: "Running", icon: "loader-circle" },
  passed: { name: "passed", word: "Passed", icon: "circle-check" },
  failed: { name: "failed", word: "Failed", icon: "circle-x" },
  cancelled: { name: "cancelled", word: "Cancelled", icon: "ban" },
  ended: { name: "ended", word: "Ended", icon: "circle-check" },
};

/** The outcomes that a list can be filtered by, in order, and the server's statuses that each may have. */
export const FILTERABLE = /** @type {{outcome: Outcome, statuses: Status[]}[]} */ ([
  { outcome: OUTCOMES.running, statuses: ["running"] },
  { outcome: OUTCOMES.waiting, statuses: ["queued"] },
  { outcome: OUTCOMES.failed, statuses: ["failed", "completed"] },
  { outcome: OUTCOMES.passed, statuses: ["completed"] },
  { outcome: OUTCOMES.cancelled, statuses: ["cancelled"] },
]);

/**
 * @param {Job} job
 * @returns {Outcome}
 */
export function outcomeOf(job) {
  switch (job.status) {
    case "queued":
      return OUTCOMES.waiting;
    case "running":
      return OUTCOMES.running;
    case "cancelled":
      return OUTCOMES.cancelled;
    case "failed":
      return OUTCOMES.failed;
    default:
      return job.success === null ? OUTCOMES.ended : job.success ? OUTCOMES.passed : OUTCOMES.failed;
  }
}

/**
 * @param {Job} job
 * @returns {boolean} whether nothing about its run will change any more
 */
export function hasEnded(job) {
  return job.status !== "queued" && job.status !== "running";
}

/**
 * Return what a job is called: its name, or its command, or its id.
 *
 * @param {Job} job
 */
export function titleOf(job) {
  return job.name || formatCommand(job.command) || job.job_id;
}

/**
 * Return a command as one would type it; the line alone for `sh -c`.
 *
 * @param {string[]|null|undefined} command
 */
export function formatCommand(command) {
  if (!command || command.length === 0) return "";
  if (command.length === 3 && command[0] === "sh" && command[1] === "-c") return command[2];
  return command.map((word) => (/^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`)).join(" ");
}

/**
 * Return how a job's command ended, as far as that is known: `exit code 2`, `killed by SIGKILL`.
 *
 * @param {Job} job
 */
export function formatEnd(job) {
  if (job.signal) return `killed by ${job.signal}`;
  return job.exit_code === null || job.exit_code === undefined ? "" : `exit code ${job.exit_code}`;
}

/**
 * Return whether a job passes a filter; each word of the text has to be in its name, command, id, queue or user, in
 * capitals or not, as the server's `text` has it.
 *
 * @param {Job} job
 * @param {ListFilter} filter
 */
export function matches(job, filter) {
  if (filter.status && outcomeOf(job).name !== filter.status) return false;
  if (filter.queue && job.queue !== filter.queue) return false;
  const words = filter.text.toLowerCase().split(/\s+/).filter(Boolean);
  if (words.length === 0) return true;
  const texts = [job.name, ...(job.command ?? []), job.job_id, job.queue, job.user_id];
  const searched = texts.filter(Boolean).join("\n").toLowerCase();
  return words.every((word) => searched.includes(word));
}
