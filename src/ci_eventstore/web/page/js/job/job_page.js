/**
 * A job's page: its head, the tools, the log and what lies over it.
 */
import { effect, html, nothing, render, signal } from "../vendor.js";
import { countOf, formatCount } from "../counts.js";
import { asked, shown } from "../dialog.js";
import { icon } from "../icon.js";
import { hasEnded, outcomeOf, titleOf } from "../jobs/outcome.js";
import { prefer, preferences } from "../preferences.js";
import { formatLines, parseLines, pickLine } from "../routes.js";
import { drawContents } from "./contents.js";
import { drawHead } from "./head.js";
import { JobActions } from "./job_actions.js";
import { JobData } from "./job_data.js";
import { placardOf } from "./job_states.js";
import { commandOf, KEYS } from "./keys.js";
import { LogPane } from "./log_pane.js";
import { LogSearch } from "./log_search.js";
import { drawPlacard } from "./placard.js";
import { Replay } from "./replay.js";
import { drawReplay } from "./replay_bar.js";
import { SearchPart } from "./search_part.js";
import { drawToolbar } from "./toolbar.js";

/** @import {Page} from "../main.js" */
/** @import {JobRoute, LineRange} from "../types.js" */
/** @import {Command} from "./keys.js" */

const TIMES = /** @type {const} */ (["none", "absolute", "utc", "elapsed"]);
/** Where the contents lie over the log. */
const NARROW = "(max-width: 720px)";
/** New lines are read out this seldom. */
const TOLD_MS = 10_000;

/** The page of one job. */
export class JobPage {
  /**
   * @param {HTMLElement} element
   * @param {Page} page
   * @param {string} id
   */
  constructor(element, page, id) {
    this._element = element;
    this._page = page;
    this._id = id;
    this._data = new JobData(page, id);
    this._search = new LogSearch(this._data);
    this._actions = new JobActions(page, this._data);
    this._isContentsOpen = signal(false);
    this._replay = signal(/** @type {Replay|null} */ (null));
    this._picked = /** @type {LineRange|null} */ (null);
    this._toldAt = 0;
    /** @type {string|undefined} the outcome that the reader knows */
    this._told = undefined;
    this._skeleton();
    this._pane = new LogPane(this._part("log-host"), /** @type {HTMLCanvasElement} */ (this._part("strip")), {
      data: this._data,
      search: this._search,
      onpick: (line, isRange) => this._pickLine(line, isRange),
    });
    this._part("log-host").addEventListener("copied", (event) => {
      this._actions.tellCopied(/** @type {CustomEvent} */ (event).detail);
    });
    this._searching = new SearchPart(this._part("search"), {
      search: this._search,
      pane: this._pane,
      data: this._data,
      announcer: page.announcer,
    });
    this._stops = this._parts();
    this._keydown = (/** @type {KeyboardEvent} */ event) => this._hearKey(event);
    document.addEventListener("keydown", this._keydown);
    void this._data.begin();
  }

  /** Give the log the keyboard; where it is read out, a reader begins at the heading. */
  focus() {
    if (preferences.peek().isScreenReader) this._element.querySelector("h1")?.focus({ preventScroll: true });
    else this._pane.focus();
  }

  /** Let go of the job, and remove the page. */
  destroy() {
    document.removeEventListener("keydown", this._keydown);
    this._searching.destroy();
    for (const stop of this._stops) stop();
    this._replay.peek()?.destroy();
    this._search.stop();
    this._pane.destroy();
    this._data.stop();
    render(nothing, this._element);
  }

  _skeleton() {
    render(
      html`<article class="job-page">
        <div class="job-head" data-part="head"></div>
        <div data-part="toolbar"></div>
        <div data-part="search"></div>
        <div class="job-body">
          <aside class="contents" aria-label="Contents" data-part="contents" hidden></aside>
          <div class="log-area">
            <div class="log-host" data-part="log-host"></div>
            <div class="strip" aria-hidden="true"><canvas data-part="strip"></canvas></div>
            <div class="log-over" data-part="over"></div>
          </div>
        </div>
        <div data-part="replay"></div>
      </article>`,
      this._element,
    );
  }

  /** @param {string} name */
  _part(name) {
    return /** @type {HTMLElement} */ (this._element.querySelector(`[data-part="${name}"]`));
  }

  /** Draw each part whenever what it shows has changed. */
  _parts() {
    const draw = (/** @type {string} */ name, /** @type {() => unknown} */ content) => {
      const element = this._part(name);
      return effect(() => {
        render(content(), element);
      });
    };
    return [
      draw("head", () => this._drawHead()),
      draw("toolbar", () => this._drawToolbar()),
      draw("search", () => this._searching.draw()),
      draw("over", () => this._drawOver()),
      draw("contents", () => this._drawContents()),
      draw("replay", () => this._drawReplay()),
      effect(() => this._select()),
      effect(() => this._tellNewLines(this._pane.newLines.value)),
      effect(() => this._tellOutcome()),
      effect(() => this._searching.react()),
    ];
  }

  _drawHead() {
    return drawHead(this._id, this._data.job.value, this._data.lines.value, this._page.now.value, {
      cancel: () => void this._actions.cancel(),
      again: () => void this._actions.again(),
      isBusy: this._actions.isBusy.value,
      list: this._page.list.address,
    });
  }

  _drawToolbar() {
    const job = this._data.job.value;
    if (!job) return nothing;
    void this._data.outlined.value;
    const { groups, marks } = this._data.outline;
    const of = (/** @type {string} */ kind) => marks.filter((mark) => mark.kind === kind).length;
    return drawToolbar(
      {
        errors: of("error"),
        warnings: of("warning"),
        hasGroups: groups.length > 0,
        isSearchOpen: this._searching.isOpen.value,
        isContentsOpen: this._isContentsOpen.value,
        isFollowing: this._pane.isFollowing.value,
        isRunning: !hasEnded(job),
        isReplaying: this._replay.value !== null,
        hasLines: this._data.lines.value > 0,
        preferences: preferences.value,
        addresses: {
          log: this._data.url("log", { download: 1 }),
          plain: this._data.url("log", { download: 1, plain: 1 }),
          text: this._data.url("log", { plain: 1 }),
        },
      },
      {
        run: (command) => this._run(command),
        copyAll: () => void this._actions.copyLines({ from: 1, to: this._data.lines.peek() }),
        replay: () => this._startReplay(),
      },
    );
  }

  _drawContents() {
    const element = this._part("contents");
    element.hidden = !this._isContentsOpen.value;
    if (element.hidden) return nothing;
    void this._data.outlined.value;
    const leave = () => window.matchMedia(NARROW).matches && (this._isContentsOpen.value = false);
    return drawContents(this._data.outline, {
      goTo: (line) => {
        leave();
        this._pane.goTo(line);
      },
      open: (group) => {
        leave();
        this._pane.openGroup(group);
      },
      close: () => this._showContents(false),
    });
  }

  /** @param {boolean} isOpen */
  _showContents(isOpen) {
    this._isContentsOpen.value = isOpen;
    // Whoever opens them goes on in them, and then again in the log.
    const contents = this._part("contents");
    const first = contents.querySelector("button.contents-entry") ?? contents.querySelector("button");
    if (isOpen && first instanceof HTMLElement) first.focus();
    else this._pane.focus();
  }

  _drawOver() {
    const { job, lines, trouble, isRead } = this._data;
    const placard = placardOf(job.value, lines.value, trouble.value, isRead.value);
    const { value: newLines } = this._pane.newLines;
    const notice = this._actions.notice.value;
    return html`${drawPlacard(placard, () => this._data.retry())}
      <div class="floating">
        ${notice ? html`<p class="notice">${notice}</p>` : nothing} ${this._drawSelection()}
        ${
          newLines > 0 && !this._pane.isFollowing.value
            ? html`<button class="button button-primary new-lines" @click=${() => this._run("follow")}>
              ${icon("arrow-down-to-line")}${countOf(newLines, "new line")}
            </button>`
            : nothing
        }
      </div>`;
  }

  _drawSelection() {
    const route = this._route;
    if (!route?.lines) return nothing;
    const { lines } = route;
    const word = lines.from === lines.to ? "Line" : "Lines";
    return html`<div class="selection" role="group" aria-label="Selected lines">
      <span>${word} ${formatLines(lines).replace("-", "–")}</span>
      <button class="icon-button" @click=${() => void this._actions.copyLines(lines)}>${icon("copy")}Copy text</button>
      <button class="icon-button" @click=${() => void this._actions.copyLink(lines)}>${icon("link")}Copy link</button>
      <button class="icon-button" aria-label="Forget the selected lines" @click=${() => this._setLines(null)}>
        ${icon("x")}
      </button>
    </div>`;
  }

  _drawReplay() {
    const replay = this._replay.value;
    return replay ? drawReplay(replay, () => this._endReplay()) : nothing;
  }

  get _route() {
    const route = this._page.route.value;
    return route.page === "job" && route.id === this._id ? /** @type {JobRoute} */ (route) : null;
  }

  _select() {
    const lines = this._route?.lines ?? null;
    this._pane.select(lines, { isShown: lines !== this._picked });
  }

  /** @param {LineRange|null} lines */
  _setLines(lines) {
    this._picked = lines;
    this._page.go({ page: "job", id: this._id, lines }, { isReplacing: true });
  }

  /**
   * @param {number} line
   * @param {boolean} isRange
   */
  _pickLine(line, isRange) {
    this._setLines(pickLine(this._route?.lines ?? null, line, isRange));
  }

  _startReplay() {
    const replay = new Replay(this._data);
    this._replay.value = replay;
    this._pane.replay(replay);
  }

  _endReplay() {
    this._replay.peek()?.destroy();
    this._replay.value = null;
    this._pane.replay(null);
  }

  /** @param {KeyboardEvent} event */
  _hearKey(event) {
    if (event.defaultPrevented || document.querySelector("dialog[open]")) return;
    const target = /** @type {Element} */ (event.target);
    const command = commandOf(event, {
      isInLog: this._part("log-host").contains(target) && !target.matches("input, textarea, select"),
      isInSearch: this._part("search").contains(target),
      isOnControl: target.matches("a, button"),
      hasLetters: preferences.peek().hasKeys,
    });
    if (!command || (command === "close" && !this._close())) return;
    event.preventDefault();
    if (command !== "close") this._run(command);
  }

  /** Close what is open; return whether anything was. */
  _close() {
    if (this._searching.isOpen.peek()) this._searching.close();
    else if (this._isContentsOpen.peek()) this._showContents(false);
    else if (this._route?.lines) this._setLines(null);
    else return false;
    return true;
  }

  /** @param {Command} command */
  _run(command) {
    const { times, wrap } = preferences.peek();
    /** @type {Record<Exclude<Command, "close">, () => unknown>} */
    const runs = {
      search: () => this._searching.open(),
      nextHit: () => this._searching.step(1),
      previousHit: () => this._searching.step(-1),
      nextMark: () => this._stepMark(1),
      previousMark: () => this._stepMark(-1),
      goToLine: () => void this._goToLine(),
      follow: () => this._pane.follow(!this._pane.isFollowing.peek()),
      wrap: () => prefer({ wrap: !wrap }),
      times: () => prefer({ times: TIMES[(TIMES.indexOf(times) + 1) % TIMES.length] }),
      contents: () => this._showContents(!this._isContentsOpen.peek()),
      fold: () => this._pane.toggleFolds(),
      foldGroup: () => this._turnGroup(false),
      turnGroup: () => this._turnGroup(true),
      help: () => void shown("Keys", drawKeys()),
    };
    if (command !== "close") runs[command]();
  }

  /** @param {1|-1} direction */
  _stepMark(direction) {
    const mark = this._pane.stepMark(direction);
    if (mark) this._page.announcer.say("mark", `${mark.kind}, line ${mark.line}: ${mark.text.slice(0, 200)}`);
    else this._actions.say("This log has no errors or warnings that the server knows.");
  }

  /** @param {boolean} mayOpen whether a folded group that the reader is at is opened */
  _turnGroup(mayOpen) {
    // Where it is read out, nothing of the log is folded.
    if (preferences.peek().isScreenReader) return;
    const turned = this._pane.turnGroup(mayOpen);
    if (!turned) this._actions.say("There is no group around this line.");
    else this._page.announcer.say("fold", `${turned.isFolded ? "Folded" : "Opened"}: group ${turned.group.title}`);
  }

  async _goToLine() {
    const answer = await asked("Go to a line", `Line, 1 to ${formatCount(this._data.lines.peek())}`);
    const lines = parseLines(answer.trim());
    if (!lines) return;
    const last = Math.max(1, this._data.lines.peek());
    const within = { from: Math.min(lines.from, last), to: Math.min(lines.to, last) };
    this._page.go({ page: "job", id: this._id, lines: within }, { isReplacing: true });
    this._pane.focus();
  }

  /** @param {number} count */
  _tellNewLines(count) {
    if (count === 0 || Date.now() - this._toldAt < TOLD_MS) return;
    this._toldAt = Date.now();
    this._page.announcer.say("lines", countOf(count, "new line"));
  }

  _tellOutcome() {
    const job = this._data.job.value;
    if (!job) return;
    const { word, name } = outcomeOf(job);
    this._page.setTitle(`${word}: ${titleOf(job)}`);
    if (this._told !== undefined && this._told !== name) this._page.announcer.say("outcome", `The job: ${word}`);
    this._told = name;
  }
}

function drawKeys() {
  return html`<dl class="keys">
      ${KEYS.map(
        ({ keys, about }) => html`<div><dt>${keys.map((key) => html`<kbd>${key}</kbd>`)}</dt><dd>${about}</dd></div>`,
      )}
    </dl>
    <p class="hint">Letters count while the log has the focus. The settings above the log turn them off.</p>`;
}
