import assert from "node:assert/strict";
import { test } from "node:test";

import { firstLineOf, foldedAtFirst, FoldsWhileFollowing } from "../../src/ci_eventstore/web/page/js/job/folding.js";
import { placardOf } from "../../src/ci_eventstore/web/page/js/job/job_states.js";
import { commandOf, KEYS } from "../../src/ci_eventstore/web/page/js/job/keys.js";
import { LONGEST_PAUSE_MS, ReplaySchedule } from "../../src/ci_eventstore/web/page/js/job/replay_schedule.js";
import { lineOf, paceOf, rowOf, rowsOf, timesOf } from "../../src/ci_eventstore/web/page/js/job/strip_scale.js";

const job = (changed = {}) => ({ job_id: "4f1c", status: "running", success: null, start_time: "x", ...changed });
const group = (line, end, changed = {}) => ({ line, end, is_open: end === null, ...changed });

test("a log with lines has no placard, whatever the job does", () => {
  for (const status of ["running", "completed", "failed"]) assert.equal(placardOf(job({ status }), 1, null), null);
});

test("each state that is no log has its placard", () => {
  const ended = { status: "completed", success: true };
  const expected = [
    [null, null, "loading"],
    [job({ status: "queued", start_time: null, place: null }), null, "waiting"],
    [job(), null, "silent"],
    [job(ended), null, "empty"],
    [job({ status: "cancelled", start_time: null }), null, "unstarted"],
    [job({ ...ended, log_deleted: true }), null, "log-deleted"],
    [null, { status: 404, code: "not_found", message: "" }, "absent"],
    [null, { status: 410, code: "gone", message: "" }, "deleted"],
    [job(ended), { status: 410, code: "log_deleted", message: "" }, "log-deleted"],
    [job(ended), { status: 503, code: "archive_unavailable", message: "" }, "archive-away"],
    [job({ ...ended, log_archived: true }), null, "fetching", 7, false],
    [null, { status: 503, code: "unavailable", message: "" }, "unavailable"],
    [null, { status: 0, code: "network", message: "" }, "unavailable"],
    [null, { status: 429, code: "busy", message: "" }, "busy"],
    [null, { status: 400, code: "invalid", message: "no" }, "trouble"],
  ];
  const titles = new Map();
  for (const [known, trouble, name, lines = 0, isRead = true] of expected) {
    const placard = placardOf(known, lines, trouble, isRead);
    assert.equal(placard.name, name);
    titles.set(name, placard.title);
  }
  // No two of them look alike: the log that is being fetched, and the archive that is away.
  assert.equal(new Set(titles.values()).size, titles.size);
  assert.equal(placardOf(job({ ...ended, log_archived: true }), 7, null, true), null);
});

test("a waiting job says how many are before it", () => {
  const titles = [0, 1, 2000].map((place) => placardOf(job({ status: "queued", place, queue: "q" }), 0, null).title);
  assert.deepEqual(titles, [
    "Waiting: next in line",
    "Waiting: 1 job waits before it",
    "Waiting: 2,000 jobs wait before it",
  ]);
});

test("groups that are over are folded, but not those with errors", () => {
  const groups = [group(1, 50), group(5, 20), group(25, 30), group(60, 70), group(80, null)];
  const error = { line: 27, kind: "error" };
  assert.deepEqual([...foldedAtFirst(groups, [error, { line: 65, kind: "warning" }], true)], [5, 60]);
  assert.deepEqual([...foldedAtFirst(groups.slice(0, 4), [], true)], [1, 5, 25]);
  assert.deepEqual([...foldedAtFirst(groups.slice(0, 4), [], false)], [1, 5, 25, 60]);
});

test("a group that ends well folds while one follows, once, when something comes after it", () => {
  const folds = new FoldsWhileFollowing();
  const following = { isFollowing: true, total: 30, looked: null };
  const next = (groups, changed = {}, marks = []) => [...folds.next(groups, marks, { ...following, ...changed })];
  assert.deepEqual(next([group(5, 9), group(12, 30), group(20, null)]), [5]);
  assert.deepEqual(next([group(5, 9), group(12, 30)], { total: 31 }), [12]);
  assert.deepEqual(next([group(5, 9), group(12, 30)], { total: 40 }), []);
  assert.deepEqual(next([group(32, 35)], { total: 40, isFollowing: false }), []);
  assert.deepEqual(next([group(32, 35)], { total: 41 }), []);
});

test("a group with an error, a choice or a chosen line in it stays open", () => {
  const following = { isFollowing: true, total: 30, looked: null };
  const groups = [group(1, 20), group(5, 9), group(22, 25)];
  const next = (folds, marks, looked = null) => [...folds.next(groups, marks, { ...following, looked })];
  const error = (line) => [{ line, kind: "error" }];
  assert.deepEqual(next(new FoldsWhileFollowing(), error(12)), [5, 22]);
  assert.deepEqual(next(new FoldsWhileFollowing(), error(9)), [22]);
  assert.deepEqual(next(new FoldsWhileFollowing(), [{ line: 9, kind: "warning" }]), [1, 5, 22]);
  assert.deepEqual(next(new FoldsWhileFollowing(), [], { from: 24, to: 28 }), [1, 5]);
  const folds = new FoldsWhileFollowing();
  folds.choose([5]);
  assert.deepEqual(next(folds, []), [22]);
});

test("a page opens at the end, at the first error or at the beginning", () => {
  const open = (changed) => firstLineOf({ isRunning: false, hasFailed: false, firstError: null, total: 9, ...changed });
  assert.deepEqual([open({ isRunning: true }), open({ hasFailed: true, firstError: 4 })], [null, 4]);
  assert.deepEqual([open({ hasFailed: true }), open({ firstError: 4 })], [9, 1]);
});

test("letters are commands in the log alone, and if they are wanted", () => {
  const inLog = { isInLog: true, isInSearch: false, hasLetters: true };
  const stroke = (key, changed = {}) => ({ key, ctrlKey: false, metaKey: false, altKey: false, ...changed });
  for (const { keys, command } of KEYS) for (const key of keys) assert.equal(commandOf(stroke(key), inLog), command);
  assert.equal(commandOf(stroke("n"), { ...inLog, isInLog: false }), null);
  assert.equal(commandOf(stroke("n"), { ...inLog, hasLetters: false }), null);
  assert.equal(commandOf(stroke("Enter"), { ...inLog, hasLetters: false }), "turnGroup");
  assert.equal(commandOf(stroke("Enter"), { ...inLog, isOnControl: true }), null);
  assert.equal(commandOf(stroke("n"), { ...inLog, isOnControl: true }), "nextHit");
  assert.equal(commandOf(stroke("Enter"), { ...inLog, isInLog: false }), null);
  assert.equal(commandOf(stroke("n", { altKey: true }), inLog), null);
  assert.equal(commandOf(stroke("c", { ctrlKey: true }), inLog), null);
  assert.equal(commandOf(stroke("Escape"), { ...inLog, isInLog: false }), "close");
});

test("Ctrl F is the page's search, in the search it is the browser's", () => {
  const place = { isInLog: false, isInSearch: false, hasLetters: false };
  for (const changed of [{ ctrlKey: true }, { metaKey: true }]) {
    const stroke = { key: "f", ctrlKey: false, metaKey: false, altKey: false, ...changed };
    assert.equal(commandOf(stroke, place), "search");
    assert.equal(commandOf(stroke, { ...place, isInSearch: true }), null);
  }
});

test("a replay keeps pauses, but no long ones", () => {
  const times = [0, 100, 100, 60_000, 60_001];
  const replay = new ReplaySchedule(0, 1);
  const advance = (elapsed) => replay.advance(elapsed, (line) => times[line - 1] ?? null, times.length);
  assert.equal(advance(0), 1);
  assert.equal(advance(99), 1);
  assert.equal(advance(1), 3);
  assert.equal(advance(LONGEST_PAUSE_MS - 1), 3);
  assert.equal(advance(1), 4);
  assert.equal(advance(1), 5);
  assert.equal(advance(1000), 5);
});

test("a replay's clock runs with the lines, and through a pause that is cut as far as the next line", () => {
  const times = [1000, 2000, 62_000];
  const replay = new ReplaySchedule(0, 1, 0);
  const clocks = [500, 500, 500, 500, 1000, 500, 500].map((elapsed) => {
    replay.advance(elapsed, (line) => times[line - 1] ?? null, times.length);
    return [replay.line, replay.time];
  });
  const expected = [[0, 500], [1, 1000], [1, 1500], [2, 2000], [2, 32_000], [2, 47_000], [3, 62_000]];
  assert.deepEqual(clocks, expected);
  replay.seek(1, 1700);
  assert.equal(replay.time, 1700);
  assert.equal(
    replay.advance(299, (line) => times[line - 1], 3),
    1,
  );
  assert.equal(
    replay.advance(1, (line) => times[line - 1], 3),
    2,
  );
});

test("a replay is as fast as it is told, waits for lines, and goes where it is sent", () => {
  const replay = new ReplaySchedule(0, 100);
  assert.equal(
    replay.advance(10, (line) => (line - 1) * 1000, 10),
    2,
  );
  assert.equal(
    replay.advance(1000, () => null, 10),
    2,
  );
  assert.equal(
    replay.advance(0, (line) => (line - 1) * 1000, 10),
    4,
  );
  replay.seek(8, null);
  assert.equal(
    replay.advance(0, (line) => (line - 1) * 1000, 10),
    9,
  );
  const backwards = new ReplaySchedule(0, 1);
  assert.equal(
    backwards.advance(0, (line) => -line, 3),
    3,
  );
});

test("the strip's rows stand for lines, the first for the first and the last for the last", () => {
  for (const [total, height] of [
    [1, 100],
    [50, 100],
    [100, 100],
    [1_000_000, 431],
  ]) {
    assert.equal(rowOf(1, total, height), 0);
    assert.ok(rowOf(total, total, height) < height);
    for (let row = 0; row < height; row += 7) {
      const line = lineOf(row, total, height);
      assert.ok(line >= 1 && line <= total);
      if (total >= height) assert.ok(Math.abs(rowOf(line, total, height) - row) <= 1, `${row} of ${total}`);
    }
  }
  assert.deepEqual(rowsOf([1, 2, 3, 500, 1000], 1000, 10), [0, 4, 9]);
});

test("the pace goes up to that of the slowest row", () => {
  const index = [1, 251, 501, 1000].map((line, n) => ({ line, at: [0, 1000, 1000, 5000][n] }));
  const pace = paceOf(index, 1000, 4);
  assert.equal(Math.max(...pace), 1);
  assert.ok(pace[0] > 0 && pace[0] < pace[2]);
  assert.deepEqual(paceOf([], 10, 2), [0, 0]);
});

test("the strip knows when lines were written by the index, by groups, and by the job's start and end", () => {
  const began = (line, end, seconds, at) => ({ line, end, seconds, t: new Date(at).toISOString() });
  const times = (outline, start = 0, end = NaN) => {
    const found = timesOf({ index: [], groups: [], ...outline }, { start, end, total: 9 });
    return found.map(({ line, at }) => [line, at]);
  };
  assert.deepEqual(times({}, 0, 5000), []);
  assert.deepEqual(times({ index: [{ line: 5, at: 300 }] }, NaN), [[5, 300]]);
  const groups = [began(1, 4, 2, 1000), began(2, 3, 0.5, 1200), began(6, null, null, 2900)];
  assert.deepEqual(times({ groups }, 0, 5000),
    [[1, 0], [1, 1000], [2, 1200], [3, 1700], [4, 3000], [6, 3000], [6, 3000], [9, 5000]]);
  assert.deepEqual(times({ groups: [{ ...groups[0], t: null }] }, 0, 5000), []);
});
