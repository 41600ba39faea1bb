import assert from "node:assert/strict";
import { test } from "node:test";

import { formatRoute, parseLines, parseRoute, pickLine } from "../../src/ci_eventstore/web/page/js/routes.js";

const job = (id, lines = null) => ({ page: "job", id, lines });
const list = (status = "", queue = "", text = "") => ({ page: "list", filter: { status, queue, text } });

test("an address names a list or a job", () => {
  assert.deepEqual(parseRoute(""), list());
  assert.deepEqual(parseRoute("#/?status=failed&queue=slow&q=make%20test"), list("failed", "slow", "make test"));
  assert.deepEqual(parseRoute("#/jobs/4f1c"), job("4f1c"));
  assert.deepEqual(parseRoute("#/jobs/4f1c?line=7"), job("4f1c", { from: 7, to: 7 }));
  assert.deepEqual(parseRoute("#/jobs/4f1c?line=9-7"), job("4f1c", { from: 7, to: 9 }));
  assert.deepEqual(parseRoute("#/jobs/%E0%A4%A"), job("%E0%A4%A"));
  for (const strange of ["#/jobs/", "#/jobs/a/b", "#x", "#/other"]) assert.equal(parseRoute(strange).page, "list");
});

test("every route comes back from its address", () => {
  for (const route of [list(), list("running", "a b", "ü&?#/"), job("a b?#%"), job("x", { from: 1, to: 999999 })]) {
    assert.deepEqual(parseRoute(formatRoute(route)), route);
  }
});

test("lines are numbers from one on", () => {
  assert.deepEqual(parseLines("L3-L5"), { from: 3, to: 5 });
  for (const text of ["", "0", "-1", "1-", "a", "1.5", "1-2-3", "9".repeat(16)]) assert.equal(parseLines(text), null);
});

test("a click picks a line, with shift a range from the end that stays", () => {
  const [one, range] = [
    { from: 5, to: 5 },
    { from: 5, to: 9 },
  ];
  assert.deepEqual(pickLine(null, 5, false), one);
  assert.deepEqual(pickLine(null, 5, true), one);
  assert.equal(pickLine(one, 5, false), null);
  assert.deepEqual(pickLine(one, 9, true), range);
  assert.deepEqual(pickLine(range, 7, true), { from: 5, to: 7 });
  assert.deepEqual(pickLine(range, 2, true), { from: 2, to: 9 });
  assert.deepEqual(pickLine(range, 7, false), { from: 7, to: 7 });
});
