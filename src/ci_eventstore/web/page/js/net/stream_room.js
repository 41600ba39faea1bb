/**
 * Room for streams among all tabs of a browser: over HTTP/1.1 it has six connections to a server, and a seventh tab's
 * very document would wait for one of them.
 *
 * Each tab tells the others when its stream begins. A tab that has heard of as many newer ones as there is room for
 * closes its own, and comes back in a while, as the newest: tabs take turns. Nothing is kept, so that no tab that
 * crashed keeps its place.
 */

/** Two connections stay for everything else. */
export const MOST_STREAMS = 4;

/**
 * @typedef {object} Channel what a BroadcastChannel does
 * @property {(message: unknown) => void} postMessage
 * @property {((event: MessageEvent) => void) | null} onmessage
 * @property {() => void} close
 */

/** The place of one stream. */
export class StreamRoom {
  /**
   * @param {() => void} onfull the stream is to be closed; its place is gone already
   * @param {Channel} [channel]
   * @param {number} [most]
   */
  constructor(onfull, channel = new BroadcastChannel("ci-eventstore-streams"), most = mostStreams()) {
    this._onfull = onfull;
    this._channel = channel;
    this._most = most;
    this._id = Math.random();
    this._isIn = false;
    /** @type {Set<number>} streams that began after this one */
    this._newer = new Set();
    channel.onmessage = ({ data }) => this._hear(data);
  }

  /** The stream begins. */
  enter() {
    this._newer.clear();
    this._tell(true);
  }

  /** The stream has ended. */
  leave() {
    if (this._isIn) this._tell(false);
  }

  /** There won't be a stream any more. */
  close() {
    this.leave();
    this._channel.close();
  }

  /** @param {boolean} isIn */
  _tell(isIn) {
    this._isIn = isIn;
    this._channel.postMessage({ id: this._id, isIn });
  }

  /** @param {{id: number, isIn: boolean}} message */
  _hear({ id, isIn }) {
    if (!this._isIn) return;
    if (isIn) this._newer.add(id);
    else this._newer.delete(id);
    if (this._newer.size < this._most) return;
    this.leave();
    this._onfull();
  }
}

/** Return how many streams this page's server may have from one browser. */
function mostStreams() {
  const [navigation] = performance.getEntriesByType("navigation");
  const protocol = navigation instanceof PerformanceNavigationTiming ? navigation.nextHopProtocol : "";
  return /^(h2|h3)/.test(protocol) ? Infinity : MOST_STREAMS;
}
