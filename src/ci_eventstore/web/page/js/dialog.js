/**
 * Dialogs: the browser's own, so that focus stays within and Escape closes them.
 */
import { html, render } from "./vendor.js";

/**
 * Ask before something that can't be undone.
 *
 * @param {{title: string, text: string, action: string, isDangerous?: boolean}} question
 * @returns {Promise<boolean>}
 */
export function confirmed({ title, text, action, isDangerous = false }) {
  return open(
    title,
    html`<p>${text}</p>
      <form method="dialog" class="dialog-buttons">
        <button value="no" class="button" autofocus>Go back</button>
        <button value="yes" class="button ${isDangerous ? "button-danger" : "button-primary"}">${action}</button>
      </form>`,
  ).then((answer) => answer === "yes");
}

/**
 * Show something until it is closed.
 *
 * @param {string} title
 * @param {unknown} content
 * @returns {Promise<string>}
 */
export function shown(title, content) {
  return open(
    title,
    html`${content}
      <form method="dialog" class="dialog-buttons"><button value="" class="button" autofocus>Close</button></form>`,
  );
}

/**
 * @param {string} title
 * @param {unknown} content
 * @returns {Promise<string>} the value of the button that closed it, "" for Escape
 */
function open(title, content) {
  const dialog = document.createElement("dialog");
  dialog.setAttribute("aria-labelledby", "dialog-title");
  render(html`<h2 id="dialog-title">${title}</h2>${content}`, dialog);
  document.body.append(dialog);
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close();
  });
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(dialog.returnValue);
    });
    dialog.showModal();
    // A long one begins at its title, though the button at its end has the focus.
    dialog.scrollTop = 0;
  });
}

/**
 * Ask for a number or a range.
 *
 * @param {string} title
 * @param {string} label
 * @returns {Promise<string>} "" if nothing was entered
 */
export function asked(title, label) {
  let text = "";
  const hear = (/** @type {Event} */ event) => (text = /** @type {HTMLInputElement} */ (event.target).value);
  const close = (/** @type {Event} */ event) =>
    /** @type {Element} */ (event.currentTarget).closest("dialog")?.close();
  const content = html`<form method="dialog" class="dialog-form">
    <label for="dialog-input">${label}</label>
    <input id="dialog-input" type="text" inputmode="numeric" autocomplete="off" autofocus @input=${hear} />
    <div class="dialog-buttons">
      <button type="button" class="button" @click=${close}>Go back</button>
      <button value="yes" class="button button-primary">Go</button>
    </div>
  </form>`;
  return open(title, content).then((answer) => (answer === "yes" ? text : ""));
}
