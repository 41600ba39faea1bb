/**
 * Draws what stands where a log would.
 */
import { html, nothing } from "../vendor.js";
import { icon } from "../icon.js";

/** @import {Placard} from "./job_states.js" */

/**
 * @param {Placard|null} placard
 * @param {() => void} retry asks again at once
 */
export function drawPlacard(placard, retry) {
  if (!placard) return nothing;
  const { name, title, text, isRetried } = placard;
  return html`<div class="placard placard-${name}">
    ${icon(placard.icon)}
    <h2>${title}</h2>
    <p>${text}</p>
    ${isRetried ? html`<button class="button" @click=${retry}>${icon("rotate-cw")}Try again now</button>` : nothing}
  </div>`;
}
