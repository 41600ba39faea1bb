/**
 * The form that asks for an API key.
 */
import { html, render } from "./vendor.js";
import { icon } from "./icon.js";

/** @import {Login} from "./session.js" */

/** Shows the form until somebody has logged in. */
export class LoginForm {
  /**
   * @param {HTMLElement} element
   * @param {Login} login
   */
  constructor(element, login) {
    this._element = element;
    this._login = login;
    this._error = "";
    this._isBusy = false;
    this._draw();
  }

  /** Give it the keyboard. */
  focus() {
    this._element.querySelector("input")?.focus();
  }

  /** Remove the form. */
  destroy() {
    render(null, this._element);
  }

  /** @param {SubmitEvent} event */
  async _submit(event) {
    event.preventDefault();
    const form = /** @type {HTMLFormElement} */ (event.target);
    const key = String(new FormData(form).get("key") ?? "").trim();
    if (!key || this._isBusy) return;
    [this._isBusy, this._error] = [true, ""];
    this._draw();
    try {
      this._error = await this._login.enter(key);
    } finally {
      this._isBusy = false;
    }
    if (!this._error) return;
    this._draw();
    form.querySelector("input")?.select();
  }

  _draw() {
    render(
      html`<form class="login" @submit=${(/** @type {SubmitEvent} */ event) => void this._submit(event)}>
        <h1 tabindex="-1">Log in</h1>
        <label for="key">API key</label>
        <input
          id="key"
          name="key"
          type="password"
          autocomplete="current-password"
          autocapitalize="off"
          spellcheck="false"
          placeholder="ci_…"
          required
          aria-describedby="key-help key-error"
        />
        <p id="key-error" class="login-error" role="alert">
          ${this._error && html`${icon("circle-x")} ${this._error}`}
        </p>
        <button class="button button-primary" ?disabled=${this._isBusy}>
          ${this._isBusy ? "Logging in…" : "Log in"}
        </button>
        <p id="key-help" class="hint">
          An operator makes one with <code>ci-eventstore key create USER</code>. The browser keeps a session for seven
          days, not the key.
        </p>
      </form>`,
      this._element,
    );
  }
}
