/**
 * Menus that open below their button: a `details`, which the keyboard opens by itself.
 */
import { html } from "./vendor.js";
import { icon } from "./icon.js";

/**
 * Return a menu; a click outside of it and Escape close it.
 *
 * @param {{label: string, iconName: string, word?: string}} face
 * @param {unknown} content
 */
export function menu({ label, iconName, word = "" }, content) {
  return html`<details class="menu" @toggle=${watch}>
    <summary class="icon-button" title=${label} aria-label=${label}>
      ${icon(iconName)}${word && html`<span class="wide">${word}</span>`}
    </summary>
    <div class="menu-body">${content}</div>
  </details>`;
}

/** @param {Event} event */
function watch(event) {
  const details = /** @type {HTMLDetailsElement} */ (event.currentTarget);
  if (!details.open) return;
  const stop = new AbortController();
  const close = () => {
    details.open = false;
    stop.abort();
  };
  const { signal } = stop;
  details.addEventListener("toggle", () => details.open || stop.abort(), { signal });
  document.addEventListener("pointerdown", (at) => details.contains(/** @type {Node} */ (at.target)) || close(), {
    signal,
  });
  details.addEventListener(
    "keydown",
    (stroke) => {
      if (stroke.key !== "Escape") return;
      stroke.stopPropagation();
      close();
      details.querySelector("summary")?.focus();
    },
    { signal },
  );
  details.addEventListener(
    "focusout",
    ({ relatedTarget }) => relatedTarget && !details.contains(/** @type {Node} */ (relatedTarget)) && close(),
    { signal },
  );
  details.addEventListener("click", (at) => /** @type {Element} */ (at.target).closest("a, .menu-do") && close(), {
    signal,
  });
}

/**
 * Return an entry that is on or off.
 *
 * @param {string} label
 * @param {boolean} isOn
 * @param {(isOn: boolean) => void} change
 */
export function check(label, isOn, change) {
  return html`<label class="menu-entry">
    <input
      type="checkbox"
      .checked=${isOn}
      @change=${(/** @type {Event} */ event) => change(/** @type {HTMLInputElement} */ (event.target).checked)}
    />
    ${label}
  </label>`;
}

/**
 * Return entries of which one is chosen.
 *
 * @template {string} T
 * @param {string} name
 * @param {string} legend
 * @param {[T, string][]} choices
 * @param {T} chosen
 * @param {(choice: T) => void} change
 */
export function choose(name, legend, choices, chosen, change) {
  return html`<fieldset class="menu-choices">
    <legend>${legend}</legend>
    ${choices.map(
      ([value, label]) =>
        html`<label class="menu-entry">
          <input type="radio" name=${name} .checked=${value === chosen} @change=${() => change(value)} /> ${label}
        </label>`,
    )}
  </fieldset>`;
}
