/**
 * The vendored libraries, named in one place: where their files lie is known here alone.
 */
export { html, nothing, render } from "../vendor/lit-html/lit-html.js";
export { repeat } from "../vendor/lit-html/directives/repeat.js";
export { batch, computed, effect, signal } from "../vendor/signals-core/signals-core.js";
export { createParser } from "../vendor/eventsource-parser/index.js";

/**
 * @template T
 * @typedef {import("../vendor/signals-core/signals-core.js").Signal<T>} Signal
 */
