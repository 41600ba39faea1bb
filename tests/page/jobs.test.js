import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

import { formatCount } from "../../src/ci_eventstore/web/page/js/counts.js";
import {
  formatAgo,
  formatCounting,
  formatDuration,
  jobDuration,
} from "../../src/ci_eventstore/web/page/js/durations.js";
import { JobTable, NEWEST, newestNote } from "../../src/ci_eventstore/web/page/js/jobs/job_table.js";
import {
  formatCommand,
  formatEnd,
  matches,
  outcomeOf,
  titleOf,
} from "../../src/ci_eventstore/web/page/js/jobs/outcome.js";
import { parseRetryAfter, retryDelay } from "../../src/ci_eventstore/web/page/js/net/backoff.js";

const NOW = Date.parse("2030-01-02T03:00:00Z");
const at = (seconds) => new Date(NOW + seconds * 1000).toISOString();
const job = (changed = {}) => ({
  job_id: "4f1c",
  status: "running",
  success: null,
  created_at: at(-60),
  start_time: at(-30),
  end_time: null,
  queue: "default",
  command: ["make", "test"],
  ...changed,
});

test("counts have commas between thousands", () => {
  const counts = [0, 999, 1000, 12345, 1234567];
  assert.deepEqual(counts.map(formatCount), ["0", "999", "1,000", "12,345", "1,234,567"]);
});

test("durations have at most two units and roll over in time", () => {
  const expected = [
    [-5, "0.0 s"],
    [840, "0.8 s"],
    [9949, "9.9 s"],
    [9950, "10 s"],
    [59_499, "59 s"],
    [59_500, "1 min 00 s"],
    [185_000, "3 min 05 s"],
    [3_599_600, "1 h 00 min"],
    [7_800_000, "2 h 10 min"],
    [86_400_000 * 4 + 3_600_000 * 3, "4 d 3 h"],
  ];
  for (const [milliseconds, text] of expected) assert.equal(formatDuration(milliseconds), text);
  assert.equal(formatCounting(9_900), "9 s");
  assert.equal(formatCounting(65_000), "1 min 05 s");
});

test("ages are words, also when clocks disagree", () => {
  const ages = [-99, 5, 30, 300, 7200, 100_000, 400_000].map((seconds) => formatAgo(at(-seconds), NOW));
  assert.deepEqual(ages, ["just now", "just now", "30 s ago", "5 min ago", "2 h ago", "yesterday", "4 days ago"]);
  assert.equal(formatAgo(null, NOW), "");
});

test("a job waits, runs, then has run", () => {
  assert.deepEqual(jobDuration(job({ status: "queued", start_time: null }), NOW), {
    kind: "waits",
    milliseconds: 60_000,
  });
  assert.deepEqual(jobDuration(job(), NOW), { kind: "runs", milliseconds: 30_000 });
  assert.deepEqual(jobDuration(job({ status: "failed", end_time: at(-10) }), NOW), {
    kind: "ran",
    milliseconds: 20_000,
  });
  assert.equal(jobDuration(job({ status: "cancelled", start_time: null, end_time: at(0) }), NOW).kind, "none");
});

test("what a job came to is one word", () => {
  const expected = [
    ["queued", null, "Waiting"],
    ["running", null, "Running"],
    ["completed", true, "Passed"],
    ["completed", false, "Failed"],
    ["completed", null, "Ended"],
    ["failed", false, "Failed"],
    ["cancelled", false, "Cancelled"],
  ];
  for (const [status, success, word] of expected) assert.equal(outcomeOf(job({ status, success })).word, word);
  assert.equal(formatEnd(job({ exit_code: 0 })), "exit code 0");
  assert.equal(formatEnd(job({ signal: "SIGKILL" })), "killed by SIGKILL");
  assert.equal(formatEnd(job()), "");
});

test("a job is called by its name, its command or its id", () => {
  assert.equal(titleOf(job({ name: "nightly" })), "nightly");
  assert.equal(titleOf(job()), "make test");
  assert.equal(titleOf(job({ command: null })), "4f1c");
  assert.equal(formatCommand(["sh", "-c", "a && b"]), "a && b");
  assert.equal(formatCommand(["echo", "it's", "a b"]), "echo 'it'\\''s' 'a b'");
});

test("filters ask for a status, a queue and all words, anywhere", () => {
  const known = JSON.parse(readFileSync(new URL("list_text.json", import.meta.url), "utf8"));
  const ask = (changed) => matches(known.job, { status: "", queue: "", text: "", ...changed });
  for (const { name, text, is_found: isFound } of known.cases) assert.equal(ask({ text }), isFound, name);
  assert.ok(ask({ status: "running", queue: "slow", text: "build" }));
  assert.ok(!ask({ status: "failed" }));
  assert.ok(!ask({ queue: "default" }));
});

test("the table keeps the newest jobs in order", () => {
  const table = new JobTable();
  const many = Array.from({ length: NEWEST }, (_, n) => job({ job_id: `j${n}`, created_at: at(-n) }));
  table.replace(many);
  assert.ok(table.isFull);
  table.put(job({ job_id: "new", created_at: at(1), queue: "a" }));
  assert.equal(table.rows.length, NEWEST);
  assert.deepEqual([table.rows[0].job_id, table.rows.at(-1).job_id], ["new", `j${NEWEST - 2}`]);
  table.put(job({ job_id: "j5", created_at: at(-5), status: "failed" }));
  assert.equal(table.rows[6].status, "failed");
  table.remove("new");
  table.replace([job()]);
  assert.ok(!table.isFull);
  assert.deepEqual(table.queues, ["a", "default"]);
  table.replace([job()], false);
  assert.ok(table.isFull);
});

test("a list of the newest jobs says so, and what isn't searched", () => {
  const note = (changed) => newestNote({ status: "", queue: "", text: "", ...changed });
  assert.equal(note({}), " of the newest 1,000. Older ones aren't shown.");
  assert.equal(note({ text: "a" }), " of the newest 1,000. Only these are searched.");
  assert.equal(note({ queue: "q" }), " of the newest 1,000 that the server has of this kind. Older ones aren't shown.");
});

test("tries come later and later, never sooner than the server asks", () => {
  assert.deepEqual(
    [1, 2, 3, 9].map((failures) => retryDelay(failures, 0)),
    [500, 1000, 2000, 15_000],
  );
  assert.deepEqual(
    [1, 2, 3, 9].map((failures) => retryDelay(failures, 1)),
    [1000, 2000, 4000, 30_000],
  );
  assert.equal(retryDelay(1, 0.5, 60_000), 60_500);
  assert.equal(parseRetryAfter("7", NOW), 7000);
  assert.equal(parseRetryAfter("Wed, 02 Jan 2030 03:00:30 GMT", NOW), 30_000);
  assert.equal(parseRetryAfter("9".repeat(12), NOW), 600_000);
  for (const header of [null, "", "soon"]) assert.equal(parseRetryAfter(header, NOW), null);
});
