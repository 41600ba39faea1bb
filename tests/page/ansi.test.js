import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

import { MOST_RUNS, RESET, parseLine, stateAfter } from "../../src/ci_eventstore/web/page/js/log/ansi.js";
import { CONCEALED, DIM, INVERSE, PLAIN_STYLE, applySgr, styleOf }
  from "../../src/ci_eventstore/web/page/js/log/style.js";
import { withQuietMark } from "../../src/ci_eventstore/web/page/js/log/row.js";
import { random } from "./random.js";

const CASES = JSON.parse(readFileSync(new URL("plain_text.json", import.meta.url), "utf8"));

/** What is drawn: each run's text, and how it looks. */
const drawn = (line, before = RESET) => {
  const { text, runs } = parseLine(line, before);
  return runs.map(({ start, end, style, link }) => {
    const { className, color, background } = styleOf(style);
    const look = className || color || background ? [className, color, background].join("|") : "";
    return [text.slice(start, end), look, link];
  });
};

for (const { name, raw, plain } of CASES) {
  test(`plain text: ${name}`, () => assert.equal(parseLine(raw).text, plain));
}

test("colours of all three kinds become looks", () => {
  assert.deepEqual(drawn("\x1b[31mred\x1b[0m \x1b[1;92mbold\x1b[m"), [
    ["red", "fg-1||", null], [" ", "", null], ["bold", "log-bold fg-10||", null],
  ]);
  assert.deepEqual(drawn("\x1b[38;5;208ma\x1b[38:5:208mb"), [["ab", "fg-208||", null]]);
  const semicolons = applySgr(PLAIN_STYLE, "38;2;1;2;3");
  assert.equal(applySgr(PLAIN_STYLE, "38:2::1:2:3"), semicolons);
  assert.equal(applySgr(PLAIN_STYLE, "38:2:1:2:3"), semicolons);
  assert.equal(semicolons.front & 0xffffff, 0x010203);
});

test("a colour that is none leaves the others as they are", () => {
  for (const wrong of ["38;5;256", "38;5", "38;2;1;2", "38:2:1", "38:5:999", "38", "999"]) {
    assert.equal(applySgr(PLAIN_STYLE, wrong), PLAIN_STYLE, wrong);
  }
  assert.equal(applySgr(PLAIN_STYLE, "58;2;1;2;3;31").front, 1);
  assert.equal(applySgr(PLAIN_STYLE, "4:3;31").front, 1);
  assert.equal(applySgr(applySgr(PLAIN_STYLE, "4"), "4:0"), PLAIN_STYLE);
});

test("every attribute is removed by its own code and by a reset", () => {
  const codes = [[1, 22], [2, 22], [3, 23], [4, 24], [7, 27], [8, 28], [9, 29], [31, 39], [41, 49], [97, 39]];
  for (const [on, off] of codes) {
    const style = applySgr(PLAIN_STYLE, String(on));
    assert.notEqual(style, PLAIN_STYLE);
    assert.equal(applySgr(style, String(off)), PLAIN_STYLE);
    assert.equal(applySgr(style, ""), PLAIN_STYLE);
    assert.equal(applySgr(style, "0"), PLAIN_STYLE);
  }
});

test("text can be read in both themes, concealed or not, whatever it says", () => {
  const concealed = styleOf({ front: -1, back: -1, bits: CONCEALED });
  assert.match(concealed.className, /log-concealed/);
  assert.match(concealed.color, /^light-dark\(#[0-9a-f]{6}, #[0-9a-f]{6}\)$/);
  const same = styleOf({ front: 1, back: 1, bits: 0 });
  assert.equal(same.className, "bg-1");
  assert.notEqual(same.color, "");
  assert.notEqual(styleOf({ front: -1, back: -1, bits: INVERSE }).background, "");
  assert.notEqual(styleOf({ front: 3, back: -1, bits: DIM }).color, styleOf({ front: 3, back: -1, bits: 0 }).color);
});

test("style and link go on in the next line, no other sequence does", () => {
  const first = parseLine("\x1b[31ma\x1b]8;;https://a.example/\x07b");
  assert.deepEqual(drawn("c", first.state), [["c", "fg-1||", "https://a.example/"]]);
  for (const open of ["\x1b", "\x1b[", "\x1b[31", "\x1b]0;title", "\x1bP", "\x1b]8;;https://b.example"]) {
    const { text } = parseLine("shown", parseLine(`a${open}`).state);
    assert.equal(text, "shown", JSON.stringify(open));
  }
});

test("links lead where a page or a mail is, and nowhere else", () => {
  const link = (address) => drawn(`\x1b]8;;${address}\x1b\\x\x1b]8;;\x1b\\`)[0][2];
  assert.equal(link("https://a.example/x"), "https://a.example/x");
  assert.equal(link("mailto:ada@a.example"), "mailto:ada@a.example");
  const schemes = ["javascript", "JaVaScRiPt", "vbscript", "data", "file", "blob"];
  const scripts = schemes.map((scheme) => `${scheme}:alert(1)`);
  const wrong = ["/logout", "//a.example", "https://user:word@a.example", `https://a.example/${"x".repeat(3000)}`];
  for (const address of [...scripts, ...wrong]) {
    assert.equal(link(address), null, address);
  }
});

test("addresses in text are links, without what stands after them", () => {
  const links = (text) => drawn(text).filter(([, , link]) => link).map(([shown]) => shown);
  assert.deepEqual(links("see https://a.example/b?c=d). Then http://b.example, too"), ["https://a.example/b?c=d", "http://b.example"]);
  assert.deepEqual(links("(https://a.example/x_(y))"), ["https://a.example/x_(y)"]);
  assert.deepEqual(links("<https://a.example> \"https://b.example\""), ["https://a.example", "https://b.example"]);
  assert.deepEqual(links("\x1b[31mhttps://a.\x1b[32mexample/\x1b[0m"), ["https://a.", "example/"]);
  assert.deepEqual(links("xhttps://a.example http:// https://"), []);
});

test("a line of a million colours has two thousand runs and one for the rest", () => {
  const line = Array.from({ length: 5000 }, (_, index) => `\x1b[3${index % 8}mx`).join("");
  const { text, runs } = parseLine(line);
  assert.equal(text.length, 5000);
  assert.equal(runs.length, MOST_RUNS + 1);
  assert.equal(runs.at(-1).end, 5000);
  assert.equal(runs.at(-1).style, PLAIN_STYLE);
});

test("the mark of an error is dim, and what it says isn't", () => {
  const parts = (line) => {
    const { text, runs } = withQuietMark(parseLine(line));
    return runs.map(({ start, end, style }) => [text.slice(start, end), style.bits === DIM]);
  };
  assert.deepEqual(parts("::error file=a::broken: a::b"), [["::error file=a::", true], ["broken: a::b", false]]);
  assert.deepEqual(parts("##[warning]careful"), [["##[warning]", true], ["careful", false]]);
  for (const plain of ["::error::", "::error", "##[error", "a::b"]) assert.deepEqual(parts(plain), [[plain, false]]);
  assert.deepEqual(parts("::\x1b[31merror::a")[0], ["::", false]);
});

test("runs are all of the text in order, whatever is parsed; the short way leaves the same state", () => {
  const pieces = ["\x1b[", "\x1b]8;;https://a.example\x07", "31m", "0m", "38;5;", ":", "K", "2K", "\r", "\b", "\x1b", "é", "👩‍🔧", "\ud800",
    "\x07", "\x9b", "\x9c", "\x1bP", "\\", "C", "9999999999C", "abc", " https://b.example/x) ", "\t", "\x00", "\x18", "G", "D"];
  const next = random(15);
  for (let time = 0; time < 3000; time += 1) {
    let line = "";
    for (let size = next(20); size > 0; size -= 1) line += pieces[next(pieces.length)];
    const { text, runs, state } = parseLine(line);
    assert.equal(runs.map(({ start, end }) => text.slice(start, end)).join(""), text, JSON.stringify(line));
    assert.ok(runs.every(({ start, end }) => start < end), JSON.stringify(line));
    assert.ok(!/[\x00-\x08\x0a-\x1f\x7f-\x9f]/.test(text), JSON.stringify(line));
    assert.deepEqual(stateAfter(line, RESET), state);
    assert.equal(parseLine(text).text, text);
  }
});

test("hostile lines take no longer than their length says", () => {
  for (const piece of ["\x1b[", "\x1b[1", ";", "\x1b]", "(", "http://", "https://%", ")", "\x1b[9999C\r", "\x1b[K", "\u0301"]) {
    const start = performance.now();
    parseLine(`https://a.example/\x1b[38;${piece.repeat(16384 / piece.length)}`);
    assert.ok(performance.now() - start < 5000, piece);
  }
});
