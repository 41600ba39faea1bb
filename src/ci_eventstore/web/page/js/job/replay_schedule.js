/**
 * When each line of a replay is due: as it was printed, at a speed, with long pauses cut short. Pure.
 */

/** No pause of a replay is longer than this, at speed 1. */
export const LONGEST_PAUSE_MS = 2000;
export const SPEEDS = [1, 2, 5, 10, 25, 100];

/** A clock that shows lines as time passes. Its times are those at which lines were printed. */
export class ReplaySchedule {
  /**
   * @param {number} line the last one that is shown already
   * @param {number} speed
   * @param {number|null} [time] the clock's; null: that of the next line
   */
  constructor(line, speed, time = null) {
    this.line = line;
    this.speed = speed;
    /** Where the pause before the next line began. */
    this._from = time;
    /** What has passed of that pause, at speed 1. */
    this._waited = 0;
    /** The next line's time, as far as it is known. */
    this._next = /** @type {number|null} */ (null);
  }

  /**
   * Go to another time, at which some lines were printed already.
   *
   * @param {number} line the last one of these
   * @param {number|null} time
   */
  seek(line, time) {
    [this.line, this._from, this._waited, this._next] = [line, time, 0, null];
  }

  /** What the clock shows; null before the first line of a replay without a time. Cut pauses are passed through. */
  get time() {
    if (this._from === null) return null;
    const gap = Math.max((this._next ?? this._from) - this._from, 0);
    return this._from + (gap * Math.min(this._waited, this._pause)) / (this._pause || 1);
  }

  /** How long to wait for the next line. */
  get _pause() {
    const gap = this._from === null || this._next === null ? 0 : this._next - this._from;
    return Math.min(Math.max(gap, 0), LONGEST_PAUSE_MS);
  }

  /**
   * Let time pass; return how many of the lines to come are due by now.
   *
   * @param {number} elapsedMs
   * @param {(n: number) => number|null} timeOf when a line was printed; null: it isn't known yet, so wait for it
   * @param {number} total
   * @returns {number} the last line that is shown now
   */
  advance(elapsedMs, timeOf, total) {
    this._waited += elapsedMs * this.speed;
    while (this.line < total) {
      this._next = timeOf(this.line + 1);
      if (this._next === null) {
        this._waited = Math.min(this._waited, LONGEST_PAUSE_MS);
        break;
      }
      const pause = this._pause;
      if (pause > this._waited) break;
      this._waited -= pause;
      this._from = Math.max(this._from ?? this._next, this._next);
      this.line += 1;
    }
    return this.line;
  }
}
