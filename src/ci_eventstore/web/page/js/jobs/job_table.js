/**
 * The newest jobs, as the server's changes come in. Pure.
 */
import { formatCount } from "../counts.js";
import { parseTime } from "../durations.js";

/** @import {Job, ListFilter} from "../types.js" */

/** The list shows and searches this many jobs. */
export const NEWEST = 1000;

/** Jobs by id, the newest first, at most NEWEST of them. */
export class JobTable {
  constructor() {
    /** @type {Map<string, Job>} */
    this._jobs = new Map();
    /** @type {Job[]|null} */
    this._sorted = null;
    /**
     * The queues that any job was ever seen in: a filter goes on offering them.
     *
     * @type {Set<string>}
     */
    this._queues = new Set();
    /** Whether older jobs than these may exist. */
    this.isFull = false;
  }

  /**
   * Take a snapshot instead of what was known.
   *
   * @param {Job[]} jobs
   * @param {boolean} [isAll] whether there are no others
   */
  replace(jobs, isAll = jobs.length < NEWEST) {
    this._jobs = new Map(jobs.slice(0, NEWEST).map((job) => [job.job_id, job]));
    this.isFull = !isAll;
    this._sorted = null;
    for (const { queue } of jobs) if (queue) this._queues.add(queue);
  }

  /**
   * Take a job as it is now.
   *
   * @param {Job} job
   */
  put(job) {
    this._jobs.set(job.job_id, job);
    this._sorted = null;
    if (job.queue) this._queues.add(job.queue);
    if (this._jobs.size > NEWEST) {
      this.isFull = true;
      for (const old of this.rows.slice(NEWEST)) this._jobs.delete(old.job_id);
      this._sorted = null;
    }
  }

  /** @param {string} id */
  remove(id) {
    if (this._jobs.delete(id)) this._sorted = null;
  }

  /**
   * The jobs, the newest first.
   *
   * @returns {Job[]}
   */
  get rows() {
    this._sorted ??= [...this._jobs.values()].sort(byAge);
    return this._sorted;
  }

  /** The queues that jobs are or were in, in order. */
  get queues() {
    return [...this._queues].sort();
  }
}

/**
 * Return what a list says after the number of its jobs, when there may be older ones.
 *
 * @param {ListFilter} filter
 */
export function newestNote(filter) {
  const kind = filter.status || filter.queue ? " that the server has of this kind" : "";
  const searched = filter.text ? "Only these are searched." : "Older ones aren't shown.";
  return ` of the newest ${formatCount(NEWEST)}${kind}. ${searched}`;
}

/**
 * @param {Job} one
 * @param {Job} other
 */
function byAge(one, other) {
  const difference = (parseTime(other.created_at) ?? 0) - (parseTime(one.created_at) ?? 0);
  return difference || (one.job_id < other.job_id ? 1 : -1);
}
