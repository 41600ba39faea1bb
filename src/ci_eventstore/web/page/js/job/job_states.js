/**
 * What stands where a log would, when there is none to show. Pure.
 */
import { formatCount } from "../counts.js";
import { hasEnded } from "../jobs/outcome.js";

/** @import {Job} from "../types.js" */

/**
 * @typedef {object} Trouble why a job or its log can't be had
 * @property {number} status of the answer, 0 without one
 * @property {string} code
 * @property {string} message
 *
 * @typedef {object} Placard
 * @property {string} name
 * @property {string} icon
 * @property {string} title
 * @property {string} text
 * @property {boolean} isRetried whether the page asks again by itself
 */

/**
 * Return what to show instead of the log; null if the log has lines to show.
 *
 * @param {Job|null} job null: not known
 * @param {number} lines that the log has
 * @param {Trouble|null} trouble
 * @param {boolean} [isRead] whether any of them has been read
 * @returns {Placard|null}
 */
export function placardOf(job, lines, trouble, isRead = true) {
  // A log that can be read goes on being read while the server is away.
  const found = trouble && placardOfTrouble(trouble);
  if (found && !(found.isRetried && lines > 0 && found.name !== "archive-away")) return found;
  if (!job) return placard("loading", "loader-circle", "Loading…", "");
  if (lines > 0 && job.log_archived && !isRead)
    return placard("fetching", "archive", "Fetching the log from the archive…", "This takes a little longer.");
  if (lines > 0) return null;
  if (job.log_deleted) return placardOfTrouble({ status: 410, code: "log_deleted", message: "" });
  if (job.status === "queued") return placardOfWaiting(job);
  if (!hasEnded(job))
    return placard("silent", "loader-circle", "No output yet", "The job runs; its lines show here as they come.");
  if (!job.start_time)
    return placard("unstarted", "ban", "It never ran", "The job ended before a controller began it.");
  return placard("empty", "circle-dashed", "The log is empty", "The command printed nothing.");
}

/** @param {Job} job */
function placardOfWaiting(job) {
  const queue = job.queue ? `the queue “${job.queue}”` : "its queue";
  if (job.place === null || job.place === undefined)
    return placard("waiting", "hourglass", "Waiting", `The job waits in ${queue} for a controller.`);
  if (job.place === 0)
    return placard(
      "waiting",
      "hourglass",
      "Waiting: next in line",
      `The next free controller of ${queue} takes this job.`,
    );
  const before = `${formatCount(job.place)} ${job.place === 1 ? "job waits" : "jobs wait"}`;
  return placard("waiting", "hourglass", `Waiting: ${before} before it`, `The job waits in ${queue} for a controller.`);
}

/** @param {Trouble} trouble */
function placardOfTrouble({ status, code, message }) {
  if (code === "log_deleted")
    return placard(
      "log-deleted",
      "x",
      "The log was deleted",
      "The job itself stays: its times, its command and how it ended.",
    );
  if (status === 410) return placard("deleted", "x", "This job was deleted", "Its log is gone, too.");
  if (status === 404)
    return placard(
      "absent",
      "circle-dashed",
      "No such job, or not yours",
      "Jobs of other users look the same as jobs that never were.",
    );
  if (code === "archive_unavailable")
    return placard(
      "archive-away",
      "archive",
      "The archive is away",
      "The log lies in the archive, which doesn't answer. The page asks again by itself, and shows the log then.",
      true,
    );
  if (status === 0 || status >= 500)
    return placard("unavailable", "wifi-off", "The server doesn't answer", "The page asks again by itself.", true);
  if (status === 429) return placard("busy", "hourglass", "Too many requests", "The page asks again by itself.", true);
  return placard("trouble", "triangle-alert", "This can't be shown", message);
}

/**
 * @param {string} name
 * @param {string} icon
 * @param {string} title
 * @param {string} text
 * @param {boolean} [isRetried]
 * @returns {Placard}
 */
function placard(name, icon, title, text, isRetried = false) {
  return { name, icon, title, text, isRetried };
}
