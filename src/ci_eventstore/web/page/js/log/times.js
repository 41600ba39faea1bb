/** Times of lines as people want to read them. */

/** @typedef {"none" | "absolute" | "utc" | "elapsed"} TimeMode */

/**
 * Return a time of a line as text: on a clock here, on one in UTC, or since the job's start; "" for none.
 *
 * @param {string | null} time RFC 3339
 * @param {TimeMode} mode
 * @param {number} start milliseconds since 1970, for elapsed time
 */
export function formatLineTime(time, mode, start) {
  if (mode === "none" || time === null) return "";
  const at = Date.parse(time);
  if (Number.isNaN(at)) return "";
  if (mode === "elapsed") return formatElapsed(at - start);
  const date = new Date(at);
  if (mode === "utc") return date.toISOString().slice(0, 23).replace("T", " ");
  const local = new Date(at - date.getTimezoneOffset() * 60_000);
  return local.toISOString().slice(0, 23).replace("T", " ");
}

/**
 * Return a duration as hours, minutes, seconds and tenths; hours only if there are any.
 *
 * @param {number} milliseconds
 */
function formatElapsed(milliseconds) {
  if (Number.isNaN(milliseconds)) return "";
  const tenths = Math.max(0, Math.floor(milliseconds / 100));
  const two = (/** @type {number} */ value) => String(value).padStart(2, "0");
  const hours = Math.floor(tenths / 36000);
  const minutes = two(Math.floor(tenths / 600) % 60);
  return `${hours > 0 ? `${hours}:` : ""}${minutes}:${two(Math.floor(tenths / 10) % 60)}.${tenths % 10}`;
}
