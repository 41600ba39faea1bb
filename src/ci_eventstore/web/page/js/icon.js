/** Icons of the page's one file of them. */
import { html } from "./vendor.js";

const FILE = new URL("../icons.svg", import.meta.url).href;

/**
 * Return an icon; it says nothing to a screen reader, a word has to stand beside it.
 *
 * @param {string} name
 */
export function icon(name) {
  return html`<svg class="icon icon-${name}" aria-hidden="true"><use href="${FILE}#${name}"></use></svg>`;
}
