/**
 * Requests to the server: addresses relative to the page, errors as one class, and one place that hears of a 401.
 */
import { parseRetryAfter } from "./backoff.js";

/** An answer that isn't a success, or none at all. */
export class ApiError extends Error {
  /**
   * @param {number} status 0: there was no answer
   * @param {string} code the server's, `network` without an answer
   * @param {string} message
   * @param {number|null} [retryAfterMs]
   */
  constructor(status, code, message, retryAfterMs = null) {
    super(message);
    this.status = status;
    this.code = code;
    this.retryAfterMs = retryAfterMs;
  }

  /** Whether the same request may succeed later. */
  get isPassing() {
    return this.status === 0 || this.status === 429 || this.status >= 500;
  }
}

/** The server that this page came from. */
export class Api {
  /**
   * @param {string} base the address of the page
   * @param {() => void} onUnauthorized called at each 401
   */
  constructor(base, onUnauthorized) {
    this.base = new URL(".", base);
    this.onUnauthorized = onUnauthorized;
  }

  /**
   * Return the address of a path like `jobs/ID/log`, with those parameters that aren't null.
   *
   * @param {string} path
   * @param {Record<string, string|number|boolean|null|undefined>} [parameters]
   */
  url(path, parameters = {}) {
    const url = new URL(path, this.base);
    for (const [name, value] of Object.entries(parameters)) {
      if (value !== null && value !== undefined && value !== "") url.searchParams.set(name, String(value));
    }
    return url.href;
  }

  /**
   * Send a request; ApiError unless it succeeds, and AbortError if its signal is aborted.
   *
   * @param {string} url
   * @param {RequestInit} [init]
   * @returns {Promise<Response>} a success, or 304
   */
  async send(url, init = {}) {
    let response;
    try {
      response = await fetch(url, { credentials: "same-origin", ...init });
    } catch (error) {
      if (init.signal?.aborted) throw error;
      throw new ApiError(0, "network", "The server can't be reached.");
    }
    if (response.ok || response.status === 304) return response;
    if (response.status === 401) this.onUnauthorized();
    throw await errorOf(response);
  }

  /**
   * @param {string} path
   * @param {Record<string, string|number|boolean|null|undefined>} [parameters]
   * @param {AbortSignal} [signal]
   * @returns {Promise<any>} what the JSON of the answer says
   */
  async get(path, parameters = {}, signal) {
    const response = await this.send(this.url(path, parameters), { signal, headers: { Accept: "application/json" } });
    return response.json();
  }

  /**
   * @param {string} path
   * @param {object|null} [body]
   * @param {string} [method]
   * @returns {Promise<any>} the JSON of the answer; null without one
   */
  async post(path, body = null, method = "POST") {
    /** @type {RequestInit} */
    const init = { method };
    if (body !== null)
      Object.assign(init, { body: JSON.stringify(body), headers: { "Content-Type": "application/json" } });
    const response = await this.send(this.url(path), init);
    return response.status === 204 ? null : response.json();
  }
}

/**
 * @param {Response} response
 * @returns {Promise<ApiError>}
 */
async function errorOf(response) {
  let [code, message] = [`http_${response.status}`, `The server answered ${response.status}.`];
  try {
    const said = (await response.json()).error;
    if (typeof said?.code === "string") [code, message] = [said.code, String(said.message)];
  } catch {
    // A proxy's own page, or none: the status says enough.
  }
  return new ApiError(response.status, code, message, parseRetryAfter(response.headers.get("Retry-After"), Date.now()));
}

/**
 * Return the address of a job, or of something beneath it.
 *
 * @param {string} id
 * @param {string} [beneath]
 */
export function jobPath(id, beneath = "") {
  return `jobs/${encodeURIComponent(id)}${beneath && `/${beneath}`}`;
}
