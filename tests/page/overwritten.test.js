import assert from "node:assert/strict";
import { test } from "node:test";

import { parseLine } from "../../src/ci_eventstore/web/page/js/log/ansi.js";
import { markOverwritten } from "../../src/ci_eventstore/web/page/js/log/overwritten.js";

/** The lines, counted from 1, that are marked of those up to `last`; the others are here, but not on the screen. */
const marked = (texts, last = texts.length) => {
  const store = { peek: (n) => texts[n - 1] ?? null, parsed: (n) => parseLine(texts[n - 1]) };
  const rows = texts.slice(0, last).map((text, index) => (
    { n: index + 1, parsed: parseLine(text), isOverwritten: false }
  ));
  markOverwritten(rows, store);
  return rows.filter(({ isOverwritten }) => isOverwritten).map(({ n }) => n);
};

test("of a progress that is drawn again and again, the last drawing stays", () => {
  const frame = (percent, up) => [`${up}\x1b[2Ka ${percent} %`, `\x1b[2Kb ${percent} %`, "\x1b[Kc"];
  const texts = ["before", ...frame(1, ""), ...frame(50, "\x1b[3A"), ...frame(100, "\x1b[3F"), "after"];
  assert.deepEqual(marked(texts), [2, 3, 4, 5, 6, 7]);
  assert.deepEqual(marked(texts, 5), [2, 3, 4, 5]);
});

test("moves up and down again within a line leave the lines above, and so do lines without moves", () => {
  assert.deepEqual(marked(["a", "b", "\x1b[2Aa 2\x1b[2B", "c"]), []);
  assert.deepEqual(marked(["a", "b", "c"]), []);
  assert.deepEqual(marked(["a", "b", "\x1b[2Aa 2", "\x1b[1Bc", "d"]), [1]);
});

test("erasing line by line moves up as well; what is only erased marks nothing", () => {
  assert.deepEqual(marked(["one", "two", "\x1b[2K\x1b[1A\x1b[2K\x1b[1A\x1b[2K\x1b[Gdone"]), [1]);
  assert.deepEqual(marked(["one", "two", "\x1b[1A\x1b[2K"]), []);
});

test("no number leads far", () => {
  assert.equal(parseLine("\x1b[9999999999Aa").up, 50);
  assert.equal(parseLine("\x1b[99B\x1b[99B").up, -50);
  assert.deepEqual(marked(["a", "b", "\x1b[999Ac"]), []);
});
