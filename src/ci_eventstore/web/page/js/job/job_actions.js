/**
 * What can be done with a job: cancel it, submit it again, copy its log, link to its lines.
 */
import { countOf, formatCount } from "../counts.js";
import { confirmed } from "../dialog.js";
import { hasEnded, titleOf } from "../jobs/outcome.js";
import { textBetween, writeClipboard } from "../log/selection.js";
import { ApiError, jobPath } from "../net/api.js";
import { formatRoute } from "../routes.js";
import { signal } from "../vendor.js";

/** @import {Page} from "../main.js" */
/** @import {JobData} from "./job_data.js" */
/** @import {LineRange} from "../types.js" */

const NOTHING_COPIED = "The browser let nothing into the clipboard.";
/** More lines than this aren't copied: a download is for them. */
const MOST_COPIED = 50_000;

/** Actions on the job of a page; each says what came of it. */
export class JobActions {
  /**
   * @param {Page} page
   * @param {JobData} data
   */
  constructor(page, data) {
    this._page = page;
    this._data = data;
    this.isBusy = signal(false);
    /** What to show for a while. */
    this.notice = signal("");
    this._timer = 0;
  }

  /** Cancel the job, if that is meant. */
  async cancel() {
    const job = this._data.job.peek();
    if (!job) return;
    const isMeant = await confirmed({
      title: "Cancel this job?",
      text: job.status === "queued"
        ? `“${titleOf(job)}” leaves its queue, and never runs.`
        : `“${titleOf(job)}” is stopped, and can't be taken up again where it was.`,
      action: "Cancel the job",
      isDangerous: true,
    });
    if (!isMeant) return;
    await this._try(async () => {
      const cancelled = await this._page.login.api.post(jobPath(this._data.id, "cancel"), {});
      this.say(hasEnded(cancelled) ? "Cancelled." : "Its controller stops it now.");
      this._data.learn(cancelled);
    });
  }

  /** Submit the same command again, and go to the new job. */
  async again() {
    await this._try(async () => {
      const job = await this._page.login.api.post(jobPath(this._data.id, "again"));
      this._page.announcer.say("notice", "Submitted again. This is the new job.");
      this._page.go({ page: "job", id: job.job_id, lines: null });
    });
  }

  /**
   * Copy lines as text: without colours, numbers and times.
   *
   * @param {LineRange} range
   */
  async copyLines({ from, to }) {
    const first = Math.max(from, to - MOST_COPIED + 1);
    const [start, end] = [
      { line: first, offset: 0 },
      { line: to, offset: Infinity },
    ];
    const coming = textBetween(this._data.store, start, end, new AbortController().signal);
    const isCopied = await this._copy(coming.then(({ text }) => text));
    if (!isCopied) return;
    const { lines } = await coming;
    const count = countOf(lines, "line");
    this.say(first > from ? `Copied the last ${count}. Download the log for all.` : `Copied ${count}.`);
  }

  /**
   * Say what was copied by hand, unless it is all.
   *
   * @param {{lines: number, isCut: boolean}} copied no lines if that failed
   */
  tellCopied({ lines, isCut }) {
    if (lines === 0) this.say(NOTHING_COPIED);
    else if (isCut) this.say(`Copied the first ${formatCount(lines)} lines. Download the log for all.`);
  }

  /** @param {LineRange} lines */
  async copyLink(lines) {
    const hash = formatRoute({ page: "job", id: this._data.id, lines });
    const address = new URL(hash, document.baseURI).href;
    if (await this._copy(Promise.resolve(address))) this.say("Copied the link.");
  }

  /**
   * @param {Promise<string>} coming
   * @returns {Promise<boolean>} whether it is in the clipboard
   */
  async _copy(coming) {
    try {
      await writeClipboard(coming);
      return true;
    } catch {
      this.say(NOTHING_COPIED);
      return false;
    }
  }

  /**
   * Show a message for a while, and read it out.
   *
   * @param {string} text
   */
  say(text) {
    this.notice.value = text;
    this._page.announcer.say("notice", text);
    clearTimeout(this._timer);
    this._timer = window.setTimeout(() => (this.notice.value = ""), 5000);
  }

  /** @param {() => Promise<void>} act */
  async _try(act) {
    this.isBusy.value = true;
    try {
      await act();
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      this.say(error.message);
    } finally {
      this.isBusy.value = false;
    }
  }
}
