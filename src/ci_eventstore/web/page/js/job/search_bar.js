/**
 * The bar for searching the log.
 */
import { html, nothing } from "../vendor.js";
import { icon } from "../icon.js";

/** @import {Query, SearchMachine} from "./search_machine.js" */

/**
 * @typedef {object} SearchActions
 * @property {(changed: Partial<Query>) => void} change
 * @property {(direction: 1|-1) => void} step
 * @property {() => void} close
 */

/**
 * Return the bar.
 *
 * @param {Query} query
 * @param {SearchMachine|null} machine
 * @param {SearchActions} actions
 */
export function drawSearchBar(query, machine, { change, step, close }) {
  const keydown = (/** @type {KeyboardEvent} */ event) => {
    if (event.key === "Enter") step(event.shiftKey ? -1 : 1);
    else if (event.key === "Escape") close();
    else return;
    event.preventDefault();
    event.stopPropagation();
  };
  const isFruitless = machine !== null && !machine.isRunning && machine.lines.length + machine.provisional === 0;
  return html`<div class="search-bar" role="search" aria-label="Log" @keydown=${keydown}>
    <label class="field field-text search-text">
      <span class="visually-hidden">Search the whole log</span>
      ${icon("search")}
      <input
        type="text"
        placeholder="Search the whole log"
        autocomplete="off"
        autocapitalize="off"
        spellcheck="false"
        aria-invalid=${machine?.error ? "true" : "false"}
        .value=${query.text}
        @input=${(/** @type {Event} */ event) => change({ text: /** @type {HTMLInputElement} */ (event.target).value })}
      />
    </label>
    <button
      class="icon-button toggle-case"
      title="Upper and lower case differ"
      aria-label="Upper and lower case differ"
      aria-pressed=${query.isCase}
      @click=${() => change({ isCase: !query.isCase })}
    >Aa</button>
    <button
      class="icon-button toggle-regex"
      title="Regular expression"
      aria-label="Regular expression"
      aria-pressed=${query.mode === "regex"}
      @click=${() => change({ mode: query.mode === "regex" ? "text" : "regex" })}
    >.*</button>
    <span class="search-count ${isFruitless || machine?.error ? "search-none" : ""}" title=${machine?.error ?? ""}>
      ${machine?.summary ?? ""}
    </span>
    ${drawSteps(step, close)} ${machine?.note ? html`<p class="search-note">${machine.note}</p>` : nothing}
  </div>`;
}

/**
 * @param {SearchActions["step"]} step
 * @param {SearchActions["close"]} close
 */
function drawSteps(step, close) {
  const [previous, next] = [() => step(-1), () => step(1)];
  return html`<button class="icon-button" title="Previous hit (Shift Enter)" aria-label="Previous hit"
      @click=${previous}>${icon("chevron-up")}
    </button>
    <button class="icon-button" title="Next hit (Enter)" aria-label="Next hit" @click=${next}>
      ${icon("chevron-down")}
    </button>
    <button class="icon-button" title="Close (Escape)" aria-label="Close the search" @click=${close}>
      ${icon("x")}
    </button>`;
}
