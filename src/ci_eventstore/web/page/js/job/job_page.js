/** A job. */
export class JobPage {
  /**
   * @param {HTMLElement} element
   * @param {import("../main.js").Page} page
   * @param {string} id
   */
  constructor(element, page, id) {
    page.setTitle(id);
    element.textContent = id;
  }
  /** Remove it. */
  destroy() {}
}
