/**
 * The tools above a log.
 */
import { html, nothing } from "../vendor.js";
import { countOf, formatCount } from "../counts.js";
import { icon } from "../icon.js";
import { check, choose, menu } from "../menu.js";
import { prefer } from "../preferences.js";

/** @import {Preferences} from "../preferences.js" */
/** @import {Command} from "./keys.js" */

/**
 * @typedef {object} Tools what the toolbar shows
 * @property {number} errors
 * @property {number} warnings
 * @property {boolean} hasGroups
 * @property {boolean} isSearchOpen
 * @property {boolean} isContentsOpen
 * @property {boolean} isFollowing
 * @property {boolean} isRunning
 * @property {boolean} isReplaying
 * @property {boolean} hasLines
 * @property {Preferences} preferences
 * @property {{log: string, plain: string, text: string}} addresses to download the log, its plain text, to see that
 *
 * @typedef {object} ToolActions
 * @property {(command: Command) => void} run
 * @property {() => void} copyAll
 * @property {() => void} replay
 */

const TIMES = /** @type {[Preferences["times"], string][]} */ ([
  ["none", "None"],
  ["absolute", "Local time"],
  ["utc", "UTC"],
  ["elapsed", "Since the start"],
]);

/**
 * Return the toolbar.
 *
 * @param {Tools} tools
 * @param {ToolActions} actions
 */
export function drawToolbar(tools, actions) {
  const { run } = actions;
  const end = tools.isRunning ? "Follow" : "End";
  return html`<div class="toolbar" role="group" aria-label="Log">
    ${tool("search", "Search (/)", "Search", () => run("search"), tools.isSearchOpen)}
    ${tool("list-tree", "Contents (c)", "Contents", () => run("contents"), tools.isContentsOpen)}
    ${tools.hasGroups ? tool("chevrons-down-up", "Fold or open all groups (z)", "", () => run("fold")) : nothing}
    ${drawMarks(tools, run)}
    <span class="spring"></span>
    ${tool("arrow-down-to-line", "Follow the end (f)", end, () => run("follow"), tools.isFollowing)}
    ${tool("wrap-text", "Wrap long lines (w)", "", () => run("wrap"), tools.preferences.wrap)}
    ${menu({ label: "Times of lines (t)", iconName: "clock" }, drawTimes(tools.preferences))}
    ${menu({ label: "Copy, download, replay", iconName: "download" }, drawDownloads(tools, actions))}
    ${menu({ label: "Keys and accessibility", iconName: "settings" }, drawSettings(tools.preferences, run))}
  </div>`;
}

/**
 * @param {Tools} tools
 * @param {(command: Command) => void} run
 */
function drawMarks({ errors, warnings }, run) {
  if (errors + warnings === 0) return nothing;
  const [number, word] = errors ? [errors, "error"] : [warnings, "warning"];
  const label = `${countOf(number, word)}: go to the next error or warning`;
  return html`<span class="marks-group">
    <button class="icon-button ${errors ? "has-errors" : "has-warnings"}" title=${label} aria-label=${label}
      @click=${() => run("nextMark")}>
      ${icon(errors ? "circle-x" : "triangle-alert")}
      <span>${formatCount(number)}<span class="wide"> ${word}${number === 1 ? "" : "s"}</span></span>
    </button>
    <button class="icon-button wide" title="Previous error or warning (E)" aria-label="Previous error or warning"
      @click=${() => run("previousMark")}>${icon("chevron-up")}</button>
    <button class="icon-button wide" title="Next error or warning (e)" aria-label="Next error or warning"
      @click=${() => run("nextMark")}>${icon("chevron-down")}</button>
  </span>`;
}

/** @param {Preferences} preferences */
function drawTimes({ times }) {
  return choose("times", "Times of lines", TIMES, times, (choice) => prefer({ times: choice }));
}

/**
 * @param {Tools} tools
 * @param {ToolActions} actions
 */
function drawDownloads({ addresses, hasLines, isReplaying }, { copyAll, replay }) {
  return html`<a class="menu-entry" href=${addresses.log} download>${icon("download")} Download, as it was printed</a>
    <a class="menu-entry" href=${addresses.plain} download>${icon("download")} Download as plain text</a>
    <a class="menu-entry" href=${addresses.text} target="_blank" rel="noopener">
      ${icon("external-link")} Plain text view</a>
    <button class="menu-entry menu-do" ?disabled=${!hasLines} @click=${copyAll}>${icon("copy")} Copy the log</button>
    <button class="menu-entry menu-do" ?disabled=${!hasLines || isReplaying} @click=${replay}>
      ${icon("play")} Replay in time
    </button>`;
}

/**
 * @param {Preferences} preferences
 * @param {(command: Command) => void} run
 */
function drawSettings({ isScreenReader, hasKeys }, run) {
  return html`${check("Screen reader mode", isScreenReader, (isOn) => prefer({ isScreenReader: isOn }))}
    ${check("Keys of single letters", hasKeys, (isOn) => prefer({ hasKeys: isOn }))}
    <button class="menu-entry menu-do" @click=${() => run("help")}>${icon("keyboard")} List of keys (?)</button>
    <button class="menu-entry menu-do" @click=${() => run("goToLine")}>${icon("link")} Go to a line (g)</button>`;
}

/**
 * @param {string} iconName
 * @param {string} label
 * @param {string} word shown where there is room
 * @param {() => void} act
 * @param {boolean} [isOn] of a tool that is on or off
 */
function tool(iconName, label, word, act, isOn) {
  return html`<button class="icon-button" title=${label} aria-label=${label} aria-pressed=${isOn ?? nothing}
    @click=${act}>${icon(iconName)}${word && html`<span class="wide">${word}</span>`}
  </button>`;
}
