/**
 * Searches a job's whole log on the server, and what comes later as it comes.
 */
import { signal } from "../vendor.js";
import { perFrame } from "../frames.js";
import { ApiError } from "../net/api.js";
import { linesOf } from "../net/lines_of.js";
import { MOST_OF_ANSWER, SearchMachine } from "./search_machine.js";

/** @import {JobData} from "./job_data.js" */
/** @import {Query} from "./search_machine.js" */

/** New lines of a running job are searched this long after they came, together. */
const LATER_MS = 1000;

/** One search at a time; `version` changes with what it has found. */
export class LogSearch {
  /** @param {JobData} data */
  constructor(data) {
    this._data = data;
    /** @type {SearchMachine|null} */
    this.machine = null;
    this.version = signal(0);
    /** @type {AbortController|null} */
    this._aborter = null;
    this._timer = 0;
    this._changed = perFrame(() => (this.version.value += 1));
  }

  /**
   * Search for something else; for nothing if the text is empty.
   *
   * @param {Query} query
   */
  start(query) {
    this.stop();
    this.machine = query.text ? new SearchMachine(query) : null;
    this.version.value += 1;
    if (this.machine) this._data.giveWay(this._run(this.machine));
  }

  /** Stop searching, and forget what was found. */
  stop() {
    this._aborter?.abort();
    this._aborter = null;
    clearTimeout(this._timer);
    this._timer = 0;
    this.machine = null;
  }

  /** Search the lines that have come since; to be called when there are more. */
  goOn() {
    const { machine } = this;
    if (!machine || this._timer || !machine.isBehind(this._data.store.total, this._data.store.isOpen)) return;
    this._timer = window.setTimeout(() => {
      this._timer = 0;
      if (machine === this.machine && !machine.isRunning) this._data.giveWay(this._run(machine));
    }, LATER_MS);
  }

  /** @param {SearchMachine} machine */
  async _run(machine) {
    const aborter = new AbortController();
    this._aborter = aborter;
    try {
      let isMore = true;
      while (isMore) {
        machine.begin();
        isMore = await this._ask(machine, aborter.signal);
      }
    } catch (error) {
      if (aborter.signal.aborted) return;
      machine.fail(error instanceof ApiError ? error.message : "The search broke off.");
    }
    machine.setEnd(this._data.store.total, this._data.store.isOpen);
    this._changed();
    this.goOn();
  }

  /**
   * @param {SearchMachine} machine
   * @param {AbortSignal} aborted
   * @returns {Promise<boolean>} whether to ask again at once
   */
  async _ask(machine, aborted) {
    const { text, mode, isCase } = machine.query;
    const asked = { q: text, mode, case: isCase, from: machine.next, limit: MOST_OF_ANSWER, context: 0 };
    const url = this._data.url("search", asked);
    const response = await this._data.send(url, aborted);
    let isMore = false;
    for await (const line of linesOf(response)) {
      if (!line) continue;
      isMore = machine.take(JSON.parse(line));
      this._changed();
    }
    if (machine.isRunning && !isMore) machine.fail("The search broke off.");
    return isMore;
  }
}
