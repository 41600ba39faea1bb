/**
 * Searching on a job's page: what is typed, when it is searched for, and which hit the reader is at.
 */
import { nothing, signal } from "../vendor.js";
import { drawSearchBar } from "./search_bar.js";

/** @import {Announcer} from "../announcer.js" */
/** @import {JobData} from "./job_data.js" */
/** @import {LogPane} from "./log_pane.js" */
/** @import {LogSearch} from "./log_search.js" */
/** @import {Query} from "./search_machine.js" */

/** How long typing has to rest before a search begins. */
const TYPING_MS = 200;

/** The search bar, and the keys of its hits. */
export class SearchPart {
  /**
   * @param {HTMLElement} element where the bar is drawn
   * @param {{search: LogSearch, pane: LogPane, data: JobData, announcer: Announcer}} parts
   */
  constructor(element, { search, pane, data, announcer }) {
    this._element = element;
    this._search = search;
    this._pane = pane;
    this._data = data;
    this._announcer = announcer;
    this.isOpen = signal(false);
    this._query = signal(/** @type {Query} */ ({ text: "", mode: "text", isCase: false }));
    this._typing = 0;
    /** @type {1|-1|0} the hit that is wanted as soon as it is found */
    this._wanted = 0;
  }

  /** Forget what was typed and not searched for yet. */
  destroy() {
    clearTimeout(this._typing);
  }

  /** Return the bar; nothing while it is closed. */
  draw() {
    if (!this.isOpen.value) return nothing;
    void this._search.version.value;
    return drawSearchBar(this._query.value, this._search.machine, {
      change: (changed) => this._change(changed),
      step: (direction) => this.step(direction),
      close: () => this.close(),
    });
  }

  /** Open the bar, or give it the keyboard again. */
  open() {
    this.isOpen.value = true;
    const input = this._element.querySelector("input");
    input?.focus();
    input?.select();
  }

  /** Close the bar, and show no hits. */
  close() {
    this.isOpen.value = false;
    clearTimeout(this._typing);
    this._typing = 0;
    this._search.start({ ...this._query.peek(), text: "" });
    this._pane.focus();
  }

  /**
   * Go to the next hit, or to the first one as soon as it is found.
   *
   * @param {1|-1} direction
   */
  step(direction) {
    if (this._typing || this._search.machine?.error) this._start();
    const found = this._pane.stepHit(direction);
    const { machine } = this._search;
    if (machine?.isRunning && !found) this._wanted = direction;
    if (!found || !machine) return;
    this._wanted = 0;
    this._search.version.value += 1;
    const text = this._data.store.parsed(found.line)?.text ?? "";
    const wrapped = found.hasWrapped ? (direction > 0 ? "From the beginning: " : "From the end: ") : "";
    this._announcer.say("search", `${wrapped}match ${machine.summary}, line ${found.line}: ${text.slice(0, 200)}`);
  }

  /** Go where the reader wanted to go, and say what was found, when there is something new. */
  react() {
    void this._search.version.value;
    const { machine } = this._search;
    if (!machine) return;
    if (this._wanted && this._pane.hasHitBelow(machine)) {
      const direction = this._wanted;
      queueMicrotask(() => this.step(direction));
    } else if (!machine.isRunning && machine.current < 0) {
      this._announcer.say("search", [machine.summary, machine.note].filter(Boolean).join(". "));
    }
  }

  /** @param {Partial<Query>} changed */
  _change(changed) {
    this._query.value = { ...this._query.value, ...changed };
    clearTimeout(this._typing);
    this._typing = window.setTimeout(() => this._start(), TYPING_MS);
  }

  _start() {
    clearTimeout(this._typing);
    this._typing = 0;
    this._wanted = 1;
    this._search.start(this._query.peek());
  }
}
