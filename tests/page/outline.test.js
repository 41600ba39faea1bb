import assert from "node:assert/strict";
import { test } from "node:test";

import { Folds } from "../../src/ci_eventstore/web/page/js/log/folds.js";
import { Outline } from "../../src/ci_eventstore/web/page/js/log/outline.js";
import { random } from "./random.js";

const group = (line, end, depth = 0) => (
  { line, end, depth, title: `g${line}`, is_open: end === null, t: null, seconds: null }
);

test("rows and lines agree with a list of all lines, whatever is folded", () => {
  const next = random(3);
  for (let time = 0; time < 300; time += 1) {
    const total = 1 + next(60);
    const groups = Array.from({ length: next(6) }, () => {
      const line = 1 + next(70);
      return group(line, next(5) === 0 ? null : line + next(20));
    });
    const folds = new Folds();
    folds.hide(groups);
    const isHidden = (line) => groups.some((one) => line > one.line && line <= (one.end ?? Infinity));
    const shown = Array.from({ length: total }, (_, index) => index + 1).filter((line) => !isHidden(line));
    assert.equal(folds.rowCount(total), shown.length);
    shown.forEach((line, row) => {
      assert.equal(folds.lineOf(row), line);
      assert.equal(folds.rowOf(line), row);
    });
    for (let line = 1; line <= total; line += 1) {
      assert.equal(folds.isHidden(line), isHidden(line));
      if (isHidden(line)) assert.equal(folds.rowOf(line), shown.filter((one) => one < line).length - 1);
    }
  }
});

test("folds of ten thousand groups in ten million lines are looked up", () => {
  const folds = new Folds();
  folds.hide(Array.from({ length: 10_000 }, (_, index) => group(index * 1000 + 1, index * 1000 + 900)));
  for (let row = 0; row < 100_000; row += 1) assert.equal(folds.rowOf(folds.lineOf(row)), row);
  assert.equal(folds.rowCount(10_000_000), 10_000_000 - 10_000 * 899);
});

test("answers are put together: a group's end comes later, marks come once", () => {
  const outline = new Outline();
  let changes = 0;
  outline.addEventListener("change", () => { changes += 1; });
  const none = { groups: [], marks: [], index: [], total: 0 };
  const marks = [{ line: 3, kind: "error", text: "a" }];
  outline.update({ ...none, groups: [group(1, null)], marks, position: 4 });
  outline.update({ ...none, groups: [group(1, 9), group(2, 5, 1)], marks, position: 8 });
  outline.update({ ...none, position: 9 });
  assert.deepEqual(outline.groups.map(({ line, end }) => [line, end]), [[1, 9], [2, 5]]);
  assert.equal(outline.marks.length, 1);
  assert.deepEqual([2, 3, 4].map((line) => outline.kindAt(line)), [null, "error", null]);
  assert.equal(outline.position, 9);
  assert.equal(changes, 2);
  outline.reset();
  assert.deepEqual([outline.groups, outline.marks, outline.position], [[], [], 0]);
});

test("groups around a line are opened for it, and no others", () => {
  const outline = new Outline();
  const groups = [group(1, 20), group(3, 10, 1), group(4, 6, 2), group(12, 15, 1), group(30, null)];
  outline.update({ groups, marks: [], index: [], total: 40, position: 1 });
  assert.deepEqual(outline.groupsAround(5).map(({ line }) => line), [1, 3, 4]);
  assert.deepEqual(outline.groupsAround(11).map(({ line }) => line), [1]);
  assert.deepEqual(outline.groupsAround(25), []);
  assert.deepEqual(outline.groupsAround(39).map(({ line }) => line), [30]);
  assert.deepEqual([1, 2, 3, 5, 11, 12, 15, 20, 21, 30, 31].map((line) => outline.depthOf(line)),
    [0, 1, 1, 3, 1, 1, 2, 1, 0, 0, 1]);
  outline.setFolded(new Set([1, 3, 12, 30]));
  assert.ok(outline.folds.isHidden(5));
  assert.deepEqual([...outline.foldedWithout(5)], [12, 30]);
  assert.deepEqual([...outline.foldedWithout(3)], [3, 12, 30]);
  outline.setFolded(new Set([3]));
  assert.deepEqual([5, 3, 1, 13, 12, 25].map((line) => outline.openAround(line)?.line), [1, 1, 1, 12, 12, undefined]);
});

test("marks are gone to in both directions, by kind", () => {
  const outline = new Outline();
  const marks = [[5, "error"], [7, "warning"], [9, "error"]].map(([line, kind]) => ({ line, kind, text: "" }));
  outline.update({ groups: [], marks, index: [], total: 10, position: 1 });
  assert.equal(outline.markFrom(0)?.line, 5);
  assert.equal(outline.markFrom(5)?.line, 9);
  assert.equal(outline.markFrom(9), null);
  assert.equal(outline.markFrom(9, { isBackward: true })?.line, 5);
  assert.equal(outline.markFrom(5, { kinds: ["error", "warning"] })?.line, 7);
});
