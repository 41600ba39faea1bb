/**
 * The shapes of what the server answers, for the type checker; there is no code here.
 *
 * @typedef {"queued"|"running"|"completed"|"failed"|"cancelled"} Status
 *
 * @typedef {object} Totals
 * @property {number} lines
 * @property {number} bytes
 * @property {boolean|null} is_open whether the last line has no newline yet, if that is known
 * @property {number} [position] the event that they count up to
 *
 * @typedef {object} Job
 * @property {string} job_id
 * @property {Status} status
 * @property {boolean|null} success
 * @property {string|null} start_time
 * @property {string|null} end_time
 * @property {string|null} [created_at]
 * @property {string|null} [name]
 * @property {string|null} [user_id]
 * @property {string} [queue]
 * @property {string[]|null} [command]
 * @property {number|null} [exit_code]
 * @property {string|null} [signal]
 * @property {number|null} [attempts]
 * @property {string|null} [controller]
 * @property {string} [incarnation]
 * @property {boolean} [log_truncated]
 * @property {boolean} [log_deleted]
 * @property {boolean} [log_archived] whether reading it may take longer
 * @property {Totals} [totals]
 * @property {number} [position]
 * @property {number|null} [place] how many jobs wait before it
 *
 * @typedef {object} Session
 * @property {string|null} user_id
 * @property {string|null} name
 * @property {string|null} expires
 * @property {"own"|"everything"} sees
 *
 * @typedef {object} ListFilter
 * @property {string} status a status, or "" for all
 * @property {string} queue a queue, or "" for all
 * @property {string} text words, each of which is in name, command, id, queue or user
 *
 * @typedef {object} LineRange
 * @property {number} from
 * @property {number} to
 *
 * @typedef {object} ListRoute
 * @property {"list"} page
 * @property {ListFilter} filter
 *
 * @typedef {object} JobRoute
 * @property {"job"} page
 * @property {string} id
 * @property {LineRange|null} lines
 *
 * @typedef {ListRoute|JobRoute} Route
 */
export {};
