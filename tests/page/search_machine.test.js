import assert from "node:assert/strict";
import { test } from "node:test";

import { MOST_HITS, MOST_OF_ANSWER, SearchMachine } from "../../src/ci_eventstore/web/page/js/job/search_machine.js";

const QUERY = { text: "error", mode: "text", isCase: false };

/** A machine that has found these lines in one finished request. */
function found(...lines) {
  const machine = new SearchMachine(QUERY);
  machine.begin();
  for (const n of lines) machine.take({ n, at: [[0, 5]], text: "error" });
  machine.take({ done: true, next: null, scanned: 100 });
  return machine;
}

test("hits are counted as they come", () => {
  const machine = new SearchMachine(QUERY);
  assert.equal(machine.summary, "No match");
  machine.begin();
  assert.equal(machine.summary, "Searching…");
  machine.take({
    n: 7,
    at: [
      [0, 5],
      [9, 14],
    ],
  });
  machine.take({ progress: { scanned: 50 } });
  assert.deepEqual([machine.count, machine.scanned, machine.summary], [2, 50, "1 line…, 50 lines searched"]);
  machine.take({ n: 9, at: [[0, 5]] });
  assert.equal(machine.take({ done: true, next: null, scanned: 100 }), false);
  assert.equal(machine.summary, "2 lines");
});

test("a request that ran out of its budget is followed by another one", () => {
  const machine = new SearchMachine(QUERY);
  machine.begin();
  machine.take({ n: 7, at: [[0, 5]] });
  assert.equal(machine.take({ done: false, next: 500, scanned: 499 }), true);
  machine.begin();
  machine.take({ progress: { scanned: 10 } });
  assert.deepEqual([machine.next, machine.scanned], [500, 509]);
  assert.equal(machine.take({ done: true, next: null, scanned: 100 }), false);
  assert.equal(machine.next, 600);
});

test("lines that come later are searched, an open one when it has ended", () => {
  const machine = found(7);
  assert.ok(!machine.isBehind(100, false));
  assert.ok(!machine.isBehind(101, true));
  assert.ok(machine.isBehind(101, false));
  machine.begin();
  assert.ok(!machine.isBehind(102, false));
  machine.take({ n: 101, at: [[1, 2]] });
  machine.take({ done: true, next: null, scanned: 1 });
  assert.deepEqual([machine.lines, machine.next, machine.scanned], [[7, 101], 102, 101]);
});

test("an open line is searched again when it has ended", () => {
  const machine = found(100);
  machine.setEnd(100, true);
  assert.ok(!machine.isBehind(100, true));
  assert.ok(machine.isBehind(100, false));
  machine.begin();
  machine.take({ n: 100, at: [[0, 5], [6, 11]] });
  machine.take({ done: true, next: null, scanned: 1 });
  assert.deepEqual([machine.lines, machine.count, machine.next], [[100], 2, 101]);
});

test("steps begin where the reader is, and go around", () => {
  const machine = found(10, 20, 30);
  assert.deepEqual(machine.step(1, 15), { line: 20, hasWrapped: false });
  assert.equal(machine.summary, "2 of 3");
  assert.deepEqual(machine.step(1, 0), { line: 30, hasWrapped: false });
  assert.deepEqual(machine.step(1, 0), { line: 10, hasWrapped: true });
  assert.deepEqual(machine.step(-1, 0), { line: 30, hasWrapped: true });
  assert.deepEqual(found(10, 20).step(-1, 15), { line: 10, hasWrapped: false });
  assert.deepEqual(found(10, 20).step(-1, 5), { line: 20, hasWrapped: true });
  assert.deepEqual(found(10, 20).step(1, 25), { line: 10, hasWrapped: true });
  assert.equal(found().step(1, 1), null);
});

test("a flood of hits is cut, and says so", () => {
  const machine = new SearchMachine(QUERY);
  machine.begin();
  for (let n = 1; n <= MOST_HITS + 1; n += 1) machine.take({ n, at: [[0, 1]] });
  assert.equal(machine.take({ done: false, next: MOST_HITS + 2, scanned: MOST_HITS + 1 }), false);
  assert.deepEqual([machine.lines.length, machine.summary], [MOST_HITS, "20,000+ lines"]);
  assert.equal(machine.note, "The search stopped at 20,000 lines, at line 20,000. Search for a longer text.");
  assert.ok(!machine.isBehind(10 * MOST_HITS, false));
});

test("as many hits as are kept end a search that isn't done", () => {
  const machine = new SearchMachine(QUERY);
  const answer = (first) => {
    machine.begin();
    for (let n = first; n < first + MOST_OF_ANSWER; n += 1) machine.take({ n, at: [[0, 1]] });
    return machine.take({ done: false, next: first + MOST_OF_ANSWER, scanned: MOST_OF_ANSWER });
  };
  assert.deepEqual([1, 5001, 10_001, 15_001].map(answer), [true, true, true, false]);
  assert.equal(machine.summary, "20,000+ lines");
});

test("hits in the end so far of a log that is too long are counted apart, anew each time", () => {
  const machine = new SearchMachine(QUERY);
  const ask = (count, of = { at: [[0, 5]] }) => {
    machine.begin();
    for (let n = 0; n < count; n += 1) machine.take({ provisional: { text: "error", ...of } });
    machine.take({ done: true, next: null, scanned: 100 });
    return [machine.summary, machine.note];
  };
  const note = "This log is too long to show whole while the job runs: ";
  assert.deepEqual(ask(2), ["0 lines", `${note}2 lines with hits in its end so far.`]);
  assert.deepEqual(ask(1), ["0 lines", `${note}1 line with hits in its end so far.`]);
  assert.equal(ask(MOST_OF_ANSWER)[1], `${note}5,000 lines or more with hits in its end so far.`);
  assert.deepEqual(ask(1, {}), ["No match", ""]);
});

test("a search that failed says why, and asks no more", () => {
  const machine = found(3);
  machine.begin();
  machine.fail("the pattern is wrong");
  assert.equal(machine.summary, "the pattern is wrong");
  assert.ok(!machine.isBehind(500, false));
});
