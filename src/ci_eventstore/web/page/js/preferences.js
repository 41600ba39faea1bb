/**
 * What this browser remembers: how a person likes to read.
 */
import { effect, signal } from "./vendor.js";

const KEY = "ci-eventstore.page";

/**
 * @typedef {object} Preferences
 * @property {"system"|"light"|"dark"} theme
 * @property {boolean} wrap
 * @property {import("./log/times.js").TimeMode} times
 * @property {boolean} isScreenReader
 * @property {boolean} hasKeys whether single letters are commands
 */

/** @type {Preferences} */
const DEFAULTS = { theme: "system", wrap: false, times: "none", isScreenReader: false, hasKeys: true };

export const preferences = signal(load());

/** @param {Partial<Preferences>} changed */
export function prefer(changed) {
  preferences.value = { ...preferences.value, ...changed };
}

effect(() => {
  document.documentElement.dataset.theme = preferences.value.theme;
  try {
    localStorage.setItem(KEY, JSON.stringify(preferences.value));
  } catch {
    // A browser that keeps nothing forgets them with the page.
  }
});

/** @returns {Preferences} */
function load() {
  try {
    const kept = JSON.parse(localStorage.getItem(KEY) ?? "{}");
    const known = Object.entries(kept).filter(
      ([name, value]) => typeof value === typeof DEFAULTS[/** @type {keyof Preferences} */ (name)],
    );
    return { ...DEFAULTS, ...Object.fromEntries(known) };
  } catch {
    return DEFAULTS;
  }
}
