import assert from "node:assert/strict";
import { test } from "node:test";

import { LineStore } from "../../src/ci_eventstore/web/page/js/log/line_store.js";
import { random } from "./random.js";

/** A server's log: output comes in events, which are its positions. */
class Log {
  constructor() {
    this.text = "";
    this.position = 0;
    this.requests = [];
    this.isAway = false;
    this.most = Infinity;
    this.gate = Promise.resolve();
  }

  get lines() {
    if (this.text !== this.split?.text) {
      const lines = this.text.split("\n");
      if (lines.at(-1) === "") lines.pop();
      this.split = { text: this.text, lines };
    }
    return this.split.lines;
  }

  get isOpen() {
    return this.text !== "" && !this.text.endsWith("\n");
  }

  /** Write output; return the frame of a live stream. */
  write(data) {
    const line = this.text.split("\n").length;
    this.text += data;
    this.position += 1;
    return [data, "2026-11-26T12:00:00Z", line, this.position];
  }

  fetch = async ({ from, count, signal }) => {
    this.requests.push({ from, count, signal });
    if (this.isAway) throw new Error("away");
    const { lines, isOpen, position } = this;
    const some = lines.slice(from - 1, from - 1 + Math.min(count, this.most));
    await this.gate;
    signal.throwIfAborted();
    return {
      first: from, total: lines.length, is_open: isOpen, position, ended: false, incarnation: "i",
      lines: some.map((text, index) => ({ n: from + index, t: "2026-11-26T12:00:00Z", text })),
    };
  };
}

const until = async (condition) => {
  for (let time = 0; time < 2000 && !condition(); time += 1) {
    await new Promise((resolve) => { setTimeout(resolve, 5); });
  }
  assert.ok(condition());
};

const opened = async (log, n = 1) => {
  const store = new LineStore({ fetchLines: log.fetch });
  store.setTotals({ lines: log.lines.length, isOpen: log.isOpen, position: log.position });
  await until(() => store.get(n) !== null);
  return store;
};

const filled = (lines) => {
  const log = new Log();
  log.write(Array.from({ length: lines }, (_, index) => `line ${index + 1}\n`).join(""));
  return log;
};

test("a line that isn't here comes, with its page; others don't exist", async () => {
  const log = filled(2000);
  const store = await opened(log, 700);
  assert.equal(store.get(700).text, "line 700");
  assert.equal(store.get(1000).text, "line 1000");
  assert.equal(store.get(0), null);
  assert.equal(store.get(2001), null);
  assert.deepEqual(log.requests.map(({ from, count }) => [from, count]), [[501, 500]]);
});

test("an answer with fewer lines is continued", async () => {
  const log = filled(2000);
  log.most = 200;
  const store = await opened(log, 700);
  await until(() => store.get(1000) !== null);
  assert.deepEqual(log.requests.map(({ from }) => from), [501, 701, 901]);
});

test("pages that are no longer looked at are given up, those beside are fetched ahead", async () => {
  const log = filled(20_000);
  const store = new LineStore({ fetchLines: log.fetch });
  store.setTotals({ lines: 20_000, isOpen: false, position: 1 });
  let open = () => {};
  log.gate = new Promise((resolve) => { open = resolve; });
  store.show(1, 40, 1);
  store.show(10_000, 10_040, 1);
  assert.ok(log.requests[0].signal.aborted);
  open();
  await until(() => store.peek(10_600) !== null);
  assert.equal(store.peek(1), null);
});

test("two hundred pages stay, those looked at last", async () => {
  const log = filled(150_000);
  const store = await opened(log, 1);
  for (let n = 1; n <= 150_000; n += 25_000) {
    store.get(1);
    store.show(n, n + 24_999);
    await until(() => store.peek(n + 24_999) !== null);
  }
  assert.notEqual(store.peek(1), null);
  assert.equal(store.peek(501), null);
  assert.notEqual(store.peek(149_999), null);
});

test("a failure is reported and tried again", async () => {
  const log = filled(10);
  log.isAway = true;
  const store = new LineStore({ fetchLines: log.fetch });
  store.setTotals({ lines: 10, isOpen: false, position: 1 });
  let failures = 0;
  store.addEventListener("failure", () => { failures += 1; });
  store.get(5);
  await until(() => failures === 1);
  log.isAway = false;
  await until(() => store.get(5) !== null);
});

test("live output grows lines, pages and totals; a line may come in pieces", async () => {
  const log = filled(499);
  const store = await opened(log, 499);
  for (const data of ["a", "b\nc\n", "", "d", "\n", "\n\ne"]) store.append(...log.write(data));
  assert.deepEqual([store.total, store.isOpen], [log.lines.length, true]);
  assert.deepEqual([500, 501, 502, 503, 504, 505].map((n) => store.get(n)?.text), ["ab", "c", "d", "", "", "e"]);
  assert.equal(log.requests.length, 1);
});

test("output that an answer had already isn't added again", async () => {
  const log = filled(10);
  const frames = ["x", "y\nz"].map((data) => log.write(data));
  const store = await opened(log, 12);
  for (const frame of frames) store.append(...frame);
  assert.deepEqual([11, 12].map((n) => store.get(n)?.text), ["xy", "z"]);
  store.append(...log.write("!\n"));
  assert.equal(store.get(12)?.text, "z!");
});

test("a very long line is cut, and its whole length is known", async () => {
  const log = new Log();
  const store = new LineStore({ fetchLines: log.fetch });
  for (let time = 0; time < 100; time += 1) store.append(...log.write("é".repeat(1000)));
  assert.equal(store.get(1)?.text.length, 16384);
  assert.equal(store.get(1)?.bytes, 200_000);
});

test("all that is held has one budget of text", async () => {
  const store = new LineStore({ fetchLines: () => Promise.reject(new Error("away")) });
  for (let n = 1; n <= 2000; n += 1) store.append(`${"x".repeat(16_000)}\n`, null, n, n);
  assert.equal(store.peek(1), null);
  assert.notEqual(store.peek(2000), null);
});

test("colours go on from the page before, once it is here", async () => {
  const log = new Log();
  log.write(`${"x\n".repeat(499)}\x1b[31mred\nstill\n`);
  const store = await opened(log, 501);
  assert.equal(store.parsed(501).runs[0].style.front, -1);
  await until(() => store.get(500) !== null);
  assert.equal(store.parsed(501).runs[0].style.front, 1);
  assert.equal(store.parsed(501), store.parsed(501));
});

test("a line that begins as it did stays the same, so that its row does", async () => {
  const log = new Log();
  log.write(`\x1b[31mred\x1b[0m\n${"x\n".repeat(600)}`);
  const store = await opened(log, 501);
  const parsed = store.parsed(501);
  await until(() => store.get(500) !== null);
  assert.equal(store.parsed(501), parsed);
});

test("a reset forgets all, and answers of the log before", async () => {
  const log = filled(600);
  const store = await opened(log, 1);
  let open = () => {};
  log.gate = new Promise((resolve) => { open = resolve; });
  store.get(501);
  store.reset();
  open();
  await new Promise((resolve) => { setTimeout(resolve, 20); });
  assert.deepEqual([store.total, store.peek(1), store.peek(501)], [0, null, null]);
});

test("lines are read over any distance, those that aren't here are fetched", async () => {
  const log = filled(5000);
  const store = await opened(log, 2000);
  const texts = [];
  for await (const line of store.read(1990, 4321, new AbortController().signal)) texts.push(line.text);
  assert.deepEqual(texts, log.lines.slice(1989, 4321));
});

test("many lines are read as one text", async () => {
  const log = filled(5000);
  /** @type {number[][]} */
  const asked = [];
  const store = new LineStore({
    fetchLines: log.fetch,
    async *readText({ from, to }) {
      asked.push([from, to]);
      yield* log.lines.slice(from - 1, to);
    },
  });
  store.setTotals({ lines: log.lines.length, isOpen: log.isOpen, position: log.position });
  const read = [];
  for await (const { n, text } of store.read(2, 4999, new AbortController().signal)) read.push([n, text]);
  assert.deepEqual(read, log.lines.slice(1, 4999).map((text, place) => [place + 2, text]));
  for await (const line of store.read(4000, 9999, new AbortController().signal)) assert.equal(line.n > 3999, true);
  assert.deepEqual(asked, [[2, 4999]]);
});

test("whatever is written, looked at and lost, lines are those of the log", async () => {
  const next = random(11);
  for (let time = 0; time < 6; time += 1) {
    const log = new Log();
    const store = new LineStore({ fetchLines: log.fetch });
    let frames = [];
    for (let step = 0; step < 80; step += 1) {
      const lines = Array.from({ length: next(60) }, () => (next(4) === 0 ? "\n\n" : `w${next(99)}\n`));
      const data = lines.join("") + "t".repeat(next(3));
      if (data) frames.push(log.write(data));
      if (next(4) > 0) {
        for (const frame of frames) store.append(...frame);
        frames = [];
      } else if (next(4) === 0) {
        store.setTotals({ lines: log.lines.length, isOpen: log.isOpen, position: log.position });
      }
      for (let look = next(3); look > 0 && store.total; look -= 1) {
        const n = 1 + next(store.total);
        store.show(n, n + 40, next(3) - 1);
        store.get(n);
      }
      if (next(3) === 0) await new Promise((resolve) => { setTimeout(resolve, next(4)); });
    }
    for (const frame of frames) store.append(...frame);
    const { lines } = log;
    assert.equal(store.total, lines.length);
    assert.equal(store.isOpen, log.isOpen);
    for (let n = 1; n <= lines.length; n += 97) {
      await until(() => store.get(n) !== null && store.get(n).text === lines[n - 1]);
    }
    await until(() => store.get(lines.length)?.text === lines.at(-1));
    for (let n = 1; n <= lines.length; n += 1) {
      const held = store.peek(n);
      if (held) assert.equal(held.text, lines[n - 1], `${time} ${n}`);
    }
  }
});
