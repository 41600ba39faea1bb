/**
 * The page: who looks, where they are, and the frame around it.
 */
import { computed, effect, html, nothing, render, signal } from "./vendor.js";
import { Announcer } from "./announcer.js";
import { Connection } from "./connection.js";
import { icon } from "./icon.js";
import { JobPage } from "./job/job_page.js";
import { LeftList } from "./jobs/left_list.js";
import { ListPage } from "./jobs/list_page.js";
import { LoginForm } from "./login_form.js";
import { prefer, preferences } from "./preferences.js";
import { formatRoute, NO_FILTER, parseRoute } from "./routes.js";
import { Login } from "./session.js";

/** @import {Route} from "./types.js" */

const NAME = "ci_eventstore";
const THEMES = /** @type {const} */ ({ system: "sun-moon", light: "sun", dark: "moon" });

/** What all parts of the page share. */
export class Page {
  constructor() {
    this.login = new Login();
    this.announcer = new Announcer(elementOf("status"));
    this.connection = new Connection(this.announcer);
    /** The time, each second while somebody looks. */
    this.now = signal(Date.now());
    /** The list as one left it; a job leads back there. */
    this.list = new LeftList();
    /** @type {import("./vendor.js").Signal<Route>} */
    this.route = signal(parseRoute(location.hash));
    effect(() => this.list.visit(this.route.value));
    window.addEventListener("hashchange", () => (this.route.value = parseRoute(location.hash)));
    window.setInterval(() => document.visibilityState === "visible" && (this.now.value = Date.now()), 1000);
  }

  /**
   * Go somewhere; `isReplacing` leaves no step in the browser's history.
   *
   * @param {Route} route
   * @param {{isReplacing?: boolean}} [how]
   */
  go(route, { isReplacing = false } = {}) {
    if (isReplacing) replaceAddress(formatRoute(route));
    else location.hash = formatRoute(route);
    this.route.value = route;
  }

  /** @param {string} title */
  setTitle(title) {
    document.title = `${title} · ${NAME}`;
  }
}

/** @param {string} hash */
function replaceAddress(hash) {
  try {
    history.replaceState(null, "", hash);
  } catch {
    // Safari allows a hundred in half a minute; a later one brings the address up to date.
  }
}

/** @param {string} id */
function elementOf(id) {
  return /** @type {HTMLElement} */ (document.getElementById(id));
}

/** @param {Page} page */
function drawFrame(page) {
  const standing = page.login.standing.value;
  const session = standing.kind === "in" ? standing.session : null;
  const who = session?.name ?? session?.user_id;
  const { theme } = preferences.value;
  const next = theme === "system" ? "light" : theme === "light" ? "dark" : "system";
  render(
    html`<a class="brand" href=${formatRoute({ page: "list", filter: NO_FILTER })}>
        ${icon("play")}<span>${NAME}</span></a>
      ${drawConnection(page)}
      <span class="spring"></span>
      ${who ? html`<span class="who" title="Logged in as ${session?.user_id}">${who}</span>` : nothing}
      <button class="icon-button" title="Theme: ${theme}" aria-label="Theme: ${theme}. Change to ${next}"
        @click=${() => prefer({ theme: next })}>${icon(THEMES[theme] ?? "sun-moon")}</button>
      ${
        who
          ? html`<button class="icon-button" title="Log out" aria-label="Log out"
              @click=${() => void page.login.leave()}>${icon("log-out")}</button>`
          : nothing
      }`,
    elementOf("top"),
  );
}

/** @param {Page} page */
function drawConnection(page) {
  const word = page.connection.word.value;
  if (word === "well") return nothing;
  return word === "lost"
    ? html`<span class="connection connection-lost">${icon("wifi-off")}Connection lost, trying again…</span>`
    : html`<span class="connection connection-back">${icon("circle-check")}Connected again</span>`;
}

/** @param {Page} page */
function drawAway(page) {
  const element = elementOf("main");
  const again = () => void page.login.load();
  render(
    html`<div class="empty"><h1 tabindex="-1">The server can't be reached</h1>
    <button class="button" @click=${again}>Try again</button></div>`,
    element,
  );
  const timer = window.setTimeout(again, 5000);
  return {
    focus: () => undefined,
    destroy() {
      clearTimeout(timer);
      render(null, element);
    },
  };
}

/**
 * Show the part that the address and the login call for; a part stays while only its own details change.
 *
 * @param {Page} page
 */
function switchParts(page) {
  const wanted = computed(() => {
    const { kind } = page.login.standing.value;
    const route = page.route.value;
    return kind === "in" ? (route.page === "job" ? `job ${route.id}` : "list") : kind;
  });
  /** @type {{destroy: () => void, focus: () => void}|null} */
  let part = null;
  let isFirst = true;
  effect(() => {
    const name = wanted.value;
    part?.destroy();
    part = null;
    page.connection.forget();
    const element = elementOf("main");
    // What a part reads while it begins mustn't begin it again.
    queueMicrotask(() => {
      if (name !== wanted.peek() || part) return;
      if (name === "unknown") return;
      if (name === "out") part = new LoginForm(element, page.login);
      else if (name === "away") part = drawAway(page);
      else if (name === "list") part = new ListPage(element, page);
      else part = new JobPage(element, page, name.slice("job ".length));
      // A new part is where a reader begins; a list that comes first leaves the focus to the browser.
      if (!isFirst || name !== "list") part.focus();
      isFirst = false;
    });
  });
}

const page = new Page();
effect(() => drawFrame(page));
switchParts(page);
void page.login.load();
