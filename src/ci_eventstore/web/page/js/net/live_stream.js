/**
 * A stream of server-sent events that stays: it reconnects with its newest id, notices a dead connection, and lets go
 * of it while nobody looks, since a browser has only six connections to a server over HTTP/1.1.
 */
import { createParser } from "../vendor.js";
import { ApiError } from "./api.js";
import { retryDelay } from "./backoff.js";
import { StreamRoom } from "./stream_room.js";

/** @import {Api} from "./api.js" */

/** The server sends at least a heartbeat each 15 seconds; after this much silence the connection is dead. */
const SILENCE_MS = 40_000;
/** A hidden page lets go after this long. */
const HIDDEN_MS = 30_000;
/** A page that had to make room for others' streams comes back after this long. */
const TURN_MS = 4000;

/**
 * @typedef {"connecting"|"open"|"lost"|"paused"|"refused"|"ended"} StreamState
 *
 * @typedef {object} StreamCallbacks
 * @property {(name: string, data: any, id: string|null) => void} onmessage an event's name ("" without one), its JSON
 * @property {(state: StreamState, error: ApiError|null) => void} onstate
 * @property {(lastId: string|null) => string} url the address to ask for, after an event
 */

/** One stream; it begins with `open` and ends with `close`. */
export class LiveStream {
  /**
   * @param {Api} api
   * @param {StreamCallbacks} callbacks
   * @param {Document} [page]
   */
  constructor(api, callbacks, page = document) {
    this._api = api;
    this._callbacks = callbacks;
    this._page = page;
    /** @type {string|null} */
    this.lastId = null;
    this._failures = 0;
    this._isOpen = false;
    this._isClosed = false;
    /** @type {AbortController|null} */
    this._connection = null;
    this._timer = 0;
    this._hiddenTimer = 0;
    this._visibility = () => this._watchVisibility();
    this._online = () => this._wake();
    this._room = new StreamRoom(() => this._makeRoom());
  }

  /** Connect, and stay connected. */
  open() {
    this._page.addEventListener("visibilitychange", this._visibility);
    window.addEventListener("online", this._online);
    if (this._page.visibilityState === "hidden") this._watchVisibility();
    void this._connect();
  }

  /** Disconnect for good. */
  close() {
    this._isClosed = true;
    this._page.removeEventListener("visibilitychange", this._visibility);
    window.removeEventListener("online", this._online);
    this._release();
    this._room.close();
  }

  _release() {
    clearTimeout(this._timer);
    clearTimeout(this._hiddenTimer);
    this._connection?.abort();
    this._connection = null;
    this._room.leave();
  }

  _watchVisibility() {
    clearTimeout(this._hiddenTimer);
    if (this._page.visibilityState === "hidden") {
      this._hiddenTimer = window.setTimeout(() => this._pause(), HIDDEN_MS);
    } else {
      this._wake();
    }
  }

  _pause() {
    if (this._isClosed) return;
    this._release();
    this._callbacks.onstate("paused", null);
  }

  _makeRoom() {
    this._pause();
    this._timer = window.setTimeout(() => this._wake(), TURN_MS);
  }

  /** Connect at once instead of waiting any longer. */
  _wake() {
    if (this._isClosed || this._connection || this._page.visibilityState === "hidden") return;
    clearTimeout(this._timer);
    void this._connect();
  }

  async _connect() {
    const connection = new AbortController();
    this._connection = connection;
    this._isOpen = false;
    this._room.enter();
    this._callbacks.onstate("connecting", null);
    let error = null;
    try {
      const isEnded = await this._read(connection);
      if (connection.signal.aborted && connection.signal.reason !== "silence") return;
      if (isEnded) return this._end("ended", null);
    } catch (caught) {
      if (connection.signal.aborted && connection.signal.reason !== "silence") return;
      error = caught instanceof ApiError ? caught : new ApiError(0, "network", "The connection was lost.");
    }
    if (this._connection !== connection) return;
    this._connection = null;
    this._room.leave();
    if (error && !error.isPassing) return this._end("refused", error);
    this._failures += 1;
    this._callbacks.onstate("lost", error);
    if (this._isClosed) return;
    const delay = retryDelay(this._failures, Math.random(), error?.retryAfterMs ?? null);
    this._timer = window.setTimeout(() => this._wake(), delay);
  }

  /**
   * @param {StreamState} state
   * @param {ApiError|null} error
   */
  _end(state, error) {
    this.close();
    this._callbacks.onstate(state, error);
  }

  /**
   * Read one connection to its end.
   *
   * @param {AbortController} connection
   * @returns {Promise<boolean>} whether the server has nothing more to send, ever
   */
  async _read(connection) {
    const url = this._callbacks.url(this.lastId);
    let silence = 0;
    const listen = () => {
      clearTimeout(silence);
      silence = window.setTimeout(() => connection.abort("silence"), SILENCE_MS);
    };
    listen();
    try {
      const headers = { Accept: "text/event-stream" };
      const response = await this._api.send(url, { signal: connection.signal, headers, cache: "no-store" });
      if (response.status === 204 || !response.body) return true;
      const parser = createParser({ onEvent: (event) => this._hear(connection, event) });
      const decoder = new TextDecoder();
      const reader = response.body.getReader();
      for (;;) {
        const { done, value } = await reader.read();
        if (done) return false;
        listen();
        parser.feed(decoder.decode(value, { stream: true }));
      }
    } finally {
      clearTimeout(silence);
    }
  }

  /**
   * @param {AbortController} connection
   * @param {{event?: string, id?: string, data: string}} event
   */
  _hear(connection, event) {
    if (connection.signal.aborted) return;
    if (event.id !== undefined) this.lastId = event.id;
    if (!this._isOpen) this._callbacks.onstate("open", null);
    this._isOpen = true;
    this._failures = 0;
    this._callbacks.onmessage(event.event ?? "", JSON.parse(event.data), event.id ?? null);
  }
}
