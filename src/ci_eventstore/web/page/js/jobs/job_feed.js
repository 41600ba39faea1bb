/**
 * The jobs that a list shows, live: by the stream of changes, or by asking again and again where there is no stream.
 */
import { signal } from "../vendor.js";
import { perFrame } from "../frames.js";
import { ApiError } from "../net/api.js";
import { LiveStream } from "../net/live_stream.js";
import { FILTERABLE } from "./outcome.js";
import { JobTable, NEWEST } from "./job_table.js";

/** @import {Api} from "../net/api.js" */
/** @import {StreamState} from "../net/live_stream.js" */
/** @import {ListFilter} from "../types.js" */

const POLL_MS = 5000;

/** Follows the jobs that pass a filter of the server's; `version` changes with them. */
export class JobFeed {
  /**
   * @param {Api} api
   * @param {(state: StreamState) => void} onconnection
   */
  constructor(api, onconnection) {
    this._api = api;
    this._onconnection = onconnection;
    this.table = new JobTable();
    this.version = signal(0);
    /** Whether the first answer has come. */
    this.isLoaded = signal(false);
    /** Whether a part of the store is away, and its jobs are missing. */
    this.isPartial = signal(false);
    /** @type {LiveStream|null} */
    this._stream = null;
    this._asked = "";
    this._pollTimer = 0;
    this._changed = perFrame(() => (this.version.value += 1));
    /** @type {AbortController|null} */
    this._poll = null;
    /** @type {string|null} */
    this._etag = null;
  }

  /**
   * Follow the jobs of a filter, which replace those of the filter before.
   *
   * @param {ListFilter} filter
   */
  follow(filter) {
    const statuses = FILTERABLE.find(({ outcome }) => outcome.name === filter.status)?.statuses ?? [];
    const parameters = new URLSearchParams(statuses.map((status) => ["status", status]));
    if (filter.queue) parameters.set("queue", filter.queue);
    const asked = parameters.toString();
    if (this._stream && this._asked === asked) return;
    this.stop();
    this._asked = asked;
    this._stream = new LiveStream(this._api, {
      url: (lastId) => this._address("changes", lastId === null ? {} : { last_event_id: lastId }),
      onmessage: (name, data) => this._hear(name, data),
      onstate: (state, error) => this._connectionChanged(state, error),
    });
    this._stream.open();
  }

  /** Let go of the connection. */
  stop() {
    this._stream?.close();
    this._stream = null;
    this._stopPolling();
  }

  /**
   * @param {string} path
   * @param {Record<string, string>} parameters
   */
  _address(path, parameters) {
    const query = new URLSearchParams([...new URLSearchParams(this._asked), ...Object.entries(parameters)]).toString();
    return this._api.url(path) + (query && `?${query}`);
  }

  /**
   * @param {string} name
   * @param {any} data
   */
  _hear(name, data) {
    if (name === "jobs") this._replace(data);
    else if (name === "job") this.table.put(data.job);
    else if (name === "deleted") this.table.remove(data.job_id);
    else return;
    this.isLoaded.value = true;
    this._changed();
  }

  /** @param {{jobs: import("../types.js").Job[], is_all?: boolean, unavailable?: number[]}} snapshot */
  _replace({ jobs, is_all: isAll, unavailable = [] }) {
    this.isPartial.value = unavailable.length > 0;
    this.table.replace(jobs, isAll ?? jobs.length < NEWEST);
  }

  /**
   * @param {StreamState} state
   * @param {ApiError|null} error
   */
  _connectionChanged(state, error) {
    if (state === "open") this._stopPolling();
    const isWithoutStream = error !== null && [403, 404, 405, 429].includes(error.status);
    if (isWithoutStream && !this._pollTimer) this._pollAfter(0);
    if (!this._pollTimer) this._onconnection(state);
  }

  /** @param {number} delay */
  _pollAfter(delay) {
    this._pollTimer = window.setTimeout(() => void this._ask(), delay);
  }

  _stopPolling() {
    clearTimeout(this._pollTimer);
    this._pollTimer = 0;
    this._poll?.abort();
    this._poll = null;
    this._etag = null;
  }

  async _ask() {
    const poll = new AbortController();
    this._poll = poll;
    try {
      if (document.visibilityState === "visible") await this._fetchJobs(poll.signal);
    } catch (error) {
      if (poll.signal.aborted) return;
      if (!(error instanceof ApiError)) throw error;
      this._onconnection("lost");
    }
    if (!poll.signal.aborted) this._pollAfter(POLL_MS);
  }

  /** @param {AbortSignal} aborted */
  async _fetchJobs(aborted) {
    /** @type {Record<string, string>} */
    const headers = this._etag ? { "If-None-Match": this._etag } : {};
    const url = this._address("jobs", { limit: String(NEWEST), partial: "true" });
    const response = await this._api.send(url, { signal: aborted, headers, cache: "no-store" });
    if (response.status !== 304) {
      this._etag = response.headers.get("ETag");
      this._hear("jobs", await response.json());
    }
    this._onconnection("open");
  }
}
