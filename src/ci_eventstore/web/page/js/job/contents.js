/**
 * The table of contents of a log: its groups, and its errors and warnings.
 */
import { html, nothing } from "../vendor.js";
import { formatCount } from "../counts.js";
import { formatDuration } from "../durations.js";
import { icon } from "../icon.js";

/** @import {Outline} from "../log/outline.js" */

/** This many groups and marks are listed. */
const MOST = 500;
const MARKS = /** @type {const} */ ({
  error: { word: "Error", icon: "circle-x" },
  warning: { word: "Warning", icon: "triangle-alert" },
  notice: { word: "Notice", icon: "info" },
});

/**
 * Return the table.
 *
 * @param {Outline} outline
 * @param {{goTo: (line: number) => void, open: (group: number) => void, close: () => void}} actions
 */
export function drawContents(outline, { goTo, open, close }) {
  const { groups, marks, provisional } = outline;
  return html`<div class="contents-head">
      <h2>Contents</h2>
      <button class="icon-button" title="Close (c)" aria-label="Close the contents" @click=${close}>
        ${icon("x")}</button>
    </div>
    ${
      groups.length + marks.length + provisional.length === 0
        ? html`<p class="hint">This log has no groups, errors or warnings that the server knows: lines that begin with
          <code>::group::</code>, <code>::error::</code>, <code>---</code> and others.</p>`
        : nothing
    }
    ${
      marks.length
        ? section("Errors and warnings", marks, (mark) => {
            return html`<button class="contents-entry mark-${mark.kind}" @click=${() => goTo(mark.line)}>
            ${drawMark(mark)}<span class="dim">${mark.line}</span>
          </button>`;
          })
        : nothing
    }
    ${
      provisional.length
        ? section("In the end, which shows when the job has ended", provisional, (mark) =>
            html`<div class="contents-entry mark-${mark.kind}">${drawMark(mark)}</div>`)
        : nothing
    }
    ${
      groups.length
        ? section("Groups", groups, (group) => {
            const depth = Math.min(group.depth, 5);
            return html`<button class="contents-entry depth-${depth}" @click=${() => open(group.line)}>
            <span class="contents-title">${group.title || "(no title)"}</span>
            <span class="dim">${group.seconds === null ? "" : formatDuration(group.seconds * 1000)}</span>
          </button>`;
          })
        : nothing
    }`;
}

/** @param {Pick<import("../log/outline.js").Mark, "kind"|"text">} mark */
function drawMark({ kind, text }) {
  const { word, icon: name } = MARKS[kind] ?? MARKS.notice;
  return html`${icon(name)}<span class="visually-hidden">${word}:</span>
    <span class="contents-title">${text || word}</span>`;
}

/**
 * @template T
 * @param {string} title
 * @param {T[]} items
 * @param {(item: T) => unknown} draw
 */
function section(title, items, draw) {
  return html`<h3>${title} <span class="dim">${formatCount(items.length)}</span></h3>
    <ul role="list">
      ${items.slice(0, MOST).map((item) => html`<li>${draw(item)}</li>`)}
    </ul>
    ${items.length > MOST ? html`<p class="hint">The first ${MOST} are listed.</p>` : nothing}`;
}
