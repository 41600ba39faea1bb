/**
 * The bar of a replay: a scrubber over the time that the job took, with the time under the pointer.
 */
import { html } from "../vendor.js";
import { formatCount } from "../counts.js";
import { formatDuration, formatTime } from "../durations.js";
import { icon } from "../icon.js";
import { LONGEST_PAUSE_MS, SPEEDS } from "./replay_schedule.js";

/** @import {Replay} from "./replay.js" */

/** So much of a scrubber's width is its thumb's, whose middle stands for the time. */
const THUMB = 16;

/**
 * Return the bar.
 *
 * @param {Replay} replay
 * @param {() => void} close
 */
export function drawReplay(replay, close) {
  const isPlaying = replay.isPlaying.value;
  const line = `Line ${formatCount(replay.line.value)} of ${formatCount(replay.total)}`;
  const { value: span } = replay.span;
  const time = replay.time.value ?? span?.from ?? 0;
  const place = span ? `${formatDuration(time - span.from)} of ${formatDuration(span.to - span.from)}` : "";
  return html`<div class="replay-bar" role="group" aria-label="Replay">
    <button class="icon-button" title=${isPlaying ? "Pause" : "Play"} aria-label=${isPlaying ? "Pause" : "Play"}
      @click=${() => replay.toggle()}>${icon(isPlaying ? "pause" : "play")}</button>
    <span class="replay-scrubber">
      <input class="replay-scrub" type="range" min="0" max=${span ? span.to - span.from : 0} step="any"
        .value=${String(span ? time - span.from : 0)} ?disabled=${!span} aria-label="Time"
        aria-valuetext="${place}, ${formatTime(new Date(time).toISOString())}, ${line}"
        @input=${(/** @type {Event} */ event) => void replay.seek((span?.from ?? 0) + numberOf(event))}
        @keydown=${(/** @type {KeyboardEvent} */ event) => step(event, replay)}
        @pointermove=${(/** @type {PointerEvent} */ event) => preview(event, replay)}
        @pointerleave=${(/** @type {PointerEvent} */ event) => (previewOf(event).hidden = true)} />
      <output class="replay-preview" aria-hidden="true" hidden></output>
    </span>
    <span class="replay-place">${place} <span class="dim">${line}</span></span>
    <label class="field"><span class="visually-hidden">Speed</span>
      <select @change=${(/** @type {Event} */ event) => replay.setSpeed(numberOf(event))}>
        ${SPEEDS.map(
          (speed) => html`<option value=${speed} ?selected=${speed === replay.speed.value}>${speed}×</option>`,
        )}
      </select>
    </label>
    <span class="hint replay-hint">Pauses last at most ${LONGEST_PAUSE_MS / 1000} s</span>
    <button class="icon-button" aria-label="End the replay" title="End the replay" @click=${close}>${icon("x")}</button>
  </div>`;
}

/**
 * Show the time under the pointer, above it.
 *
 * @param {PointerEvent} event
 * @param {Replay} replay
 */
function preview(event, replay) {
  const span = replay.span.peek();
  if (!span) return;
  const element = previewOf(event);
  const { left, width } = /** @type {Element} */ (event.currentTarget).getBoundingClientRect();
  const share = Math.min(Math.max((event.clientX - left - THUMB / 2) / Math.max(width - THUMB, 1), 0), 1);
  const time = span.from + share * (span.to - span.from);
  const clock = formatTime(new Date(time).toISOString()).slice(11);
  element.textContent = `${formatDuration(time - span.from)} · ${clock}`;
  element.hidden = false;
  const half = element.offsetWidth / 2;
  element.style.left = `${Math.min(Math.max(event.clientX - left, half), width - half)}px`;
}

/** @param {PointerEvent} event */
function previewOf(event) {
  return /** @type {HTMLElement} */ (/** @type {Element} */ (event.currentTarget).nextElementSibling);
}

/**
 * Go a hundredth of the time with an arrow, a tenth with Page Up and Page Down.
 *
 * @param {KeyboardEvent} event
 * @param {Replay} replay
 */
function step(event, replay) {
  const span = replay.span.peek();
  const share = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageDown: -10, PageUp: 10 }[event.key];
  if (!span || !share) return;
  event.preventDefault();
  const time = (replay.time.peek() ?? span.from) + (share / 100) * (span.to - span.from);
  void replay.seek(Math.min(Math.max(time, span.from), span.to));
}

/** @param {Event} event */
function numberOf(event) {
  return Number(/** @type {HTMLInputElement|HTMLSelectElement} */ (event.target).value);
}
