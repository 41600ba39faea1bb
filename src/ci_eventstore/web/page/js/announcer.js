/**
 * Messages for screen readers: one `role=status` for the page, a few words at most every two seconds.
 */

const QUIET_MS = 2000;

/** Says things, the newest of each kind; what is outdated before its turn isn't said. */
export class Announcer {
  /** @param {HTMLElement} element with `role=status` */
  constructor(element) {
    this._element = element;
    /** @type {Map<string, string>} */
    this._waiting = new Map();
    this._timer = 0;
  }

  /**
   * @param {string} kind a later message of the same kind takes an earlier one's place
   * @param {string} text
   */
  say(kind, text) {
    this._waiting.set(kind, text);
    this._timer ||= window.setTimeout(() => this._speak(), 100);
  }

  _speak() {
    const [first] = this._waiting;
    if (!first) {
      this._timer = 0;
      return;
    }
    this._waiting.delete(first[0]);
    // The same words again are heard only if the text changes.
    this._element.textContent = this._element.textContent === first[1] ? `${first[1]}\u00a0` : first[1];
    this._timer = window.setTimeout(() => this._speak(), QUIET_MS);
  }
}
