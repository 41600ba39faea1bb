/**
 * A word about the connection when it is lost, and another when it is back.
 */
import { signal } from "./vendor.js";

/** @import {Announcer} from "./announcer.js" */
/** @import {StreamState} from "./net/live_stream.js" */

const BACK_MS = 4000;
/** A short break, as when the server restarts, needs no word. */
const PATIENCE_MS = 1500;

/** What the page says of its connection: nothing as long as all is well. */
export class Connection {
  /** @param {Announcer} announcer */
  constructor(announcer) {
    this._announcer = announcer;
    /** @type {import("./vendor.js").Signal<"well"|"lost"|"back">} */
    this.word = signal("well");
    this._timer = 0;
  }

  /** @param {StreamState} state of the stream that the page follows now */
  set(state) {
    if (state === "lost") {
      if (this.word.value === "well" && !this._timer) this._after(PATIENCE_MS, () => this._say("lost"));
      if (this.word.value === "back") this._say("lost");
    } else if (state === "open" || state === "ended") {
      if (this.word.value === "lost") {
        this._say("back");
        this._after(BACK_MS, () => (this.word.value = "well"));
      } else if (this.word.value === "well") {
        this._after(0, () => undefined);
      }
    } else if (state === "paused" || state === "refused") {
      this.word.value = "well";
      this._after(0, () => undefined);
    }
  }

  /** Say nothing more of a stream that nobody follows now. */
  forget() {
    this._after(0, () => undefined);
    this.word.value = "well";
  }

  /** @param {"lost"|"back"} word */
  _say(word) {
    this.word.value = word;
    this._announcer.say("connection", word === "lost" ? "Connection lost. Trying again." : "Connected again.");
  }

  /**
   * @param {number} delay
   * @param {() => void} act
   */
  _after(delay, act) {
    clearTimeout(this._timer);
    this._timer = window.setTimeout(() => {
      this._timer = 0;
      act();
    }, delay);
  }
}
