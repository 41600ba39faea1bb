/**
 * The list as a reader left it for a job: with its filter, as far as it was scrolled, and at that job.
 */
import { formatRoute, NO_FILTER } from "../routes.js";

/** @import {Route} from "../types.js" */

/** Kept for as long as the tab is, also over a reload. */
const KEY = "ci-eventstore.list";

/** What leads back to the list, and what it then begins with. */
export class LeftList {
  constructor() {
    this.address = kept() ?? formatRoute({ page: "list", filter: NO_FILTER });
    /** The job that was looked at last, "" if none was. */
    this.job = "";
    /** How far the list was scrolled, and how many jobs it had drawn. */
    this._place = { address: "", top: 0, drawn: 0 };
  }

  /**
   * Note where the reader goes.
   *
   * @param {Route} route
   */
  visit(route) {
    if (route.page === "job") {
      this.job = route.id;
      return;
    }
    this.address = formatRoute(route);
    try {
      sessionStorage.setItem(KEY, this.address);
    } catch {
      // A browser that keeps nothing forgets it with the page.
    }
  }

  /**
   * Note how a list was left.
   *
   * @param {number} top
   * @param {number} drawn
   */
  leave(top, drawn) {
    this._place = { address: this.address, top, drawn };
  }

  /** How the list of this address was left; null if another one was. */
  get place() {
    return this._place.address === this.address ? this._place : null;
  }
}

/** @returns {string|null} */
function kept() {
  try {
    const address = sessionStorage.getItem(KEY);
    return address?.startsWith("#/") ? address : null;
  } catch {
    return null;
  }
}
