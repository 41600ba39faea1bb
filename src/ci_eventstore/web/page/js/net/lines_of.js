/** Answers that are read line by line, as they come. */

/** A longer line is handed out in parts. */
const MOST_UNITS = 32 * 1024 * 1024;

/**
 * @param {Response} response
 * @returns {AsyncGenerator<string>} its lines, without their newlines
 */
export async function* linesOf(response) {
  const reader = /** @type {ReadableStream<Uint8Array>} */ (response.body).getReader();
  const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    rest += done ? decoder.decode() : decoder.decode(value, { stream: true });
    const lines = rest.split("\n");
    rest = lines.pop() ?? "";
    yield* lines;
    if (done) break;
    if (rest.length > MOST_UNITS) {
      yield rest;
      rest = "";
    }
  }
  if (rest) yield rest;
}
