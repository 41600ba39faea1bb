/**
 * Who looks at the page.
 */
import { signal } from "./vendor.js";
import { Api, ApiError } from "./net/api.js";

/** @import {Session} from "./types.js" */

/**
 * @typedef {{kind: "unknown"|"out"|"away"}|{kind: "in", session: Session}} Standing
 *   `away`: the server doesn't answer, so nobody knows
 */

/** Nobody is asked for a key: an application that has the routes knows its users itself. */
const UNASKED = /** @type {Session} */ ({ user_id: null, name: null, expires: null, sees: "own" });

/** The login of this browser, which any request may find to have ended. */
export class Login {
  constructor() {
    /** @type {import("./vendor.js").Signal<Standing>} */
    this.standing = signal({ kind: "unknown" });
    this.api = new Api(document.baseURI, () => (this.standing.value = { kind: "out" }));
  }

  /** Ask the server who is logged in. */
  async load() {
    try {
      this.standing.value = { kind: "in", session: await this.api.get("session") };
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      if (error.status === 404) this.standing.value = { kind: "in", session: UNASKED };
      else if (error.status !== 401) this.standing.value = { kind: "away" };
    }
  }

  /**
   * Log in; return why that failed, "" for a success.
   *
   * @param {string} key
   * @returns {Promise<string>}
   */
  async enter(key) {
    try {
      await this.api.post("login", { key });
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      if (error.status === 401) return "This key isn't valid: it may have been revoked.";
      if (error.status === 404) return "This server has a login of its own. Log in there, then come back.";
      return error.message;
    }
    await this.load();
    return this.standing.value.kind === "in" ? "" : "The browser didn't keep the session. Does it refuse cookies?";
  }

  /** Log out. */
  async leave() {
    await this.api.post("logout").catch(() => null);
    this.standing.value = { kind: "out" };
  }
}
