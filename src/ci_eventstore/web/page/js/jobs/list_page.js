/**
 * The list of jobs, live.
 */
import { effect, html, nothing, render, repeat, signal } from "../vendor.js";
import { countOf, formatCount } from "../counts.js";
import { formatAgo, formatCounting, formatDuration, formatTime, jobDuration } from "../durations.js";
import { icon } from "../icon.js";
import { formatRoute, NO_FILTER } from "../routes.js";
import { FILTERABLE, formatCommand, formatEnd, matches, outcomeOf, titleOf } from "./outcome.js";
import { JobFeed } from "./job_feed.js";
import { NEWEST, newestNote } from "./job_table.js";

/** @import {Page} from "../main.js" */
/** @import {Job, ListFilter, ListRoute} from "../types.js" */

/** This many jobs are drawn; a button draws more. */
const STEP = 100;

/** Shows the jobs that pass the filter of the address. */
export class ListPage {
  /**
   * @param {HTMLElement} element
   * @param {Page} page
   */
  constructor(element, page) {
    this._element = element;
    this._page = page;
    const { place } = page.list;
    this._shown = signal(place?.drawn ?? STEP);
    /** How far to scroll, once there are jobs. */
    this._top = place?.top ?? 0;
    this._isBack = place !== null;
    this._feed = new JobFeed(page.login.api, (state) => page.connection.set(state));
    this._stop = effect(() => this._draw());
    page.setTitle("Jobs");
  }

  /** Stop following and remove the list. */
  destroy() {
    this._page.list.leave(this._element.scrollTop, this._shown.peek());
    this._stop();
    this._feed.stop();
    render(null, this._element);
  }

  /** Let a reader begin at the heading. */
  focus() {
    this._element.querySelector("h1")?.focus({ preventScroll: true });
  }

  /** @param {Partial<ListFilter>} changed */
  _filter(changed) {
    const filter = { ...this._route.filter, ...changed };
    this._shown.value = STEP;
    this._isBack = false;
    this._page.go({ page: "list", filter }, { isReplacing: true });
  }

  get _route() {
    return /** @type {ListRoute} */ (this._page.route.value);
  }

  _draw() {
    if (this._page.route.value.page !== "list") return;
    const { filter } = this._route;
    this._feed.follow(filter);
    void this._feed.version.value;
    const found = this._feed.table.rows.filter((job) => matches(job, filter));
    render(
      html`<div class="list-page">
        <div class="list-head">
          <h1 tabindex="-1">Jobs</h1>
          ${this._drawFilters(filter)}
        </div>
        ${this._feed.isLoaded.value ? this._drawFound(found, filter) : html`<p class="loading">Loading jobs…</p>`}
      </div>`,
      this._element,
    );
    if (this._isBack && found.length > 0) this._takeUp();
  }

  /** Go on where the list was left: at the job that was looked at. */
  _takeUp() {
    this._isBack = false;
    this._element.scrollTop = this._top;
    const { activeElement } = document;
    // A reader who is elsewhere by now stays there.
    if (activeElement !== document.body && !activeElement?.matches("h1")) return;
    const address = formatRoute({ page: "job", id: this._page.list.job, lines: null });
    const link = [...this._element.querySelectorAll("a")].find((one) => one.getAttribute("href") === address);
    link?.focus({ preventScroll: true });
  }

  /** @param {ListFilter} filter */
  _drawFilters(filter) {
    const queues = this._feed.table.queues;
    if (filter.queue && !queues.includes(filter.queue)) queues.push(filter.queue);
    const stay = (/** @type {Event} */ event) => event.preventDefault();
    return html`<form class="filters" role="search" aria-label="Jobs" @submit=${stay}>
      <div class="segments" role="group" aria-label="Status">
        ${[{ name: "", word: "All" }, ...FILTERABLE.map(({ outcome }) => outcome)].map(
          ({ name, word }) =>
            html`<button type="button" class="segment" aria-pressed=${filter.status === name}
              @click=${() => this._filter({ status: name })}>${word}</button>`,
        )}
      </div>
      <label class="field"><span class="visually-hidden">Queue</span>
        <select @change=${(/** @type {Event} */ e) => this._filter({ queue: valueOf(e) })}>
          <option value="" ?selected=${!filter.queue}>All queues</option>
          ${queues.map((queue) => html`<option value=${queue} ?selected=${filter.queue === queue}>${queue}</option>`)}
        </select>
      </label>
      <label class="field field-text"><span class="visually-hidden">Words in name, command, id, queue or user</span>
        ${icon("search")}
        <input type="search" placeholder="Name, command, id" .value=${filter.text} autocomplete="off" spellcheck="false"
          @input=${(/** @type {Event} */ e) => this._filter({ text: valueOf(e) })} />
      </label>
    </form>`;
  }

  /**
   * @param {Job[]} found
   * @param {ListFilter} filter
   */
  _drawFound(found, filter) {
    if (found.length === 0) return this._drawNone(filter);
    const shown = found.slice(0, this._shown.value);
    return html`<p class="list-note" id="list-note">
        ${countOf(found.length, "job")}${this._feed.table.isFull ? newestNote(filter) : nothing}
        ${
          this._feed.isPartial.value
            ? html`<span class="fact-warn">A part of the store is away; its jobs are missing.</span>`
            : nothing
        }
      </p>
      <div class="job-columns" aria-hidden="true">
        <span>Status</span><span>Job</span><span>Queue</span><span>Duration</span><span>Created</span>
      </div>
      <ul class="jobs" role="list" aria-describedby="list-note">
        ${repeat(
          shown,
          (job) => job.job_id,
          (job) => this._drawJob(job),
        )}
      </ul>
      ${
        found.length > shown.length
          ? html`<button class="button more" @click=${() => (this._shown.value += STEP)}>
            Show more <span class="dim">${formatCount(found.length - shown.length)} left</span>
          </button>`
          : nothing
      }`;
  }

  /** @param {Job} job */
  _drawJob(job) {
    const outcome = outcomeOf(job);
    const command = job.name ? formatCommand(job.command) : "";
    const end = formatEnd(job);
    return html`<li class="job">
      <a href=${formatRoute({ page: "job", id: job.job_id, lines: null })}>
        <span class="status status-${outcome.name}">${icon(outcome.icon)}<span>${outcome.word}</span></span>
        <span class="job-title">
          <span class="job-name">${titleOf(job)}</span>
          ${command ? html`<code class="job-command">${command}</code>` : nothing}
          ${(job.attempts ?? 0) > 1 ? html`<span class="tag">attempt ${job.attempts}</span>` : nothing}
          ${outcome.name === "failed" && end ? html`<span class="tag">${end}</span>` : nothing}
        </span>
        <span class="job-queue">${job.queue}</span>
        <span class="job-duration">${this._duration(job)}</span>
        <time class="job-when" datetime=${job.created_at ?? nothing} title=${formatTime(job.created_at)}
          >${formatAgo(job.created_at, this._page.now.value)}</time>
      </a>
    </li>`;
  }

  /** @param {Job} job */
  _duration(job) {
    const { kind, milliseconds } = jobDuration(job, this._page.now.value);
    if (kind === "none") return "";
    return kind === "ran" ? formatDuration(milliseconds) : formatCounting(milliseconds);
  }

  /** @param {ListFilter} filter */
  _drawNone(filter) {
    const isFiltered = formatRoute({ page: "list", filter }) !== "#/";
    if (isFiltered) {
      return html`<div class="empty">
        ${icon("search")}
        <h2>No job matches</h2>
        ${
          this._feed.table.isFull
            ? html`<p>The newest ${formatCount(NEWEST)} jobs were searched.</p>`
            : nothing
        }
        <button class="button" @click=${() => this._filter(NO_FILTER)}>Show all jobs</button>
      </div>`;
    }
    return html`<div class="empty">
      ${icon("circle-dashed")}
      <h2>No jobs yet</h2>
      <p>Submit one, and it shows here at once:</p>
      <pre><code>ci-eventstore submit -- make test</code></pre>
    </div>`;
  }
}

/** @param {Event} event */
function valueOf(event) {
  return /** @type {HTMLInputElement|HTMLSelectElement} */ (event.target).value;
}
