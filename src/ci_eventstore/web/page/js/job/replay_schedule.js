/**
 * When each line of a replay is due: as it was printed, at a speed, with long pauses cut short. Pure.
 */

/** No pause of a replay is longer than this, at speed 1. */
export const LONGEST_PAUSE_MS = 2000;
export const SPEEDS = [1, 2, 5, 10, 25, 100];

/** A clock that shows lines as time passes. */
export class ReplaySchedule {
  /**
   * @param {number} line the last one that is shown already
   * @param {number} speed
   */
  constructor(line, speed) {
    this.line = line;
    this.speed = speed;
    /** @type {number|null} */
    this._time = null;
    /** What has passed of the pause before the next line, at speed 1. */
    this._waited = 0;
  }

  /**
   * Go to another line; the one after it is due at once.
   *
   * @param {number} line
   */
  seek(line) {
    [this.line, this._time, this._waited] = [line, null, 0];
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
      const time = timeOf(this.line + 1);
      if (time === null) {
        this._waited = Math.min(this._waited, LONGEST_PAUSE_MS);
        break;
      }
      const pause = this._time === null ? 0 : Math.min(Math.max(time - this._time, 0), LONGEST_PAUSE_MS);
      if (pause > this._waited) break;
      this._waited -= pause;
      this._time = time;
      this.line += 1;
    }
    return this.line;
  }
}

/**
 * Return the next speed in a direction.
 *
 * @param {number} speed
 * @param {1|-1} direction
 */
export function nextSpeed(speed, direction) {
  const index = SPEEDS.findIndex((one) => one >= speed) + direction;
  return SPEEDS[Math.min(Math.max(index, 0), SPEEDS.length - 1)];
}
