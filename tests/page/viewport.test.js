import assert from "node:assert/strict";
import { test } from "node:test";

import { MOST_PIXELS, Viewport } from "../../src/ci_eventstore/web/page/js/log/viewport.js";
import { random } from "./random.js";

/** A scroll box as browsers make it: it rounds to whole pixels, and stays within its spacer. */
class Box {
  constructor(rowCount, heightOf = null) {
    this.viewport = new Viewport();
    this.viewport.rowCount = rowCount;
    this.viewport.useHeights(heightOf);
    this.top = 0;
  }

  scrollTo(top) {
    this.top = Math.round(Math.max(0, Math.min(top, this.viewport.most)));
    this.viewport.scrolled(this.top);
  }

  scroll(step) {
    this.scrollTo(this.top + step);
  }

  rest() {
    this.top = Math.round(this.viewport.rest());
    this.viewport.top = this.top;
  }

  get shown() {
    const { place, rowHeight } = this.viewport;
    return place.row * rowHeight + place.pixel;
  }
}

test("a log that fits isn't scrolled", () => {
  for (const rows of [0, 1, 30]) {
    const box = new Box(rows);
    assert.equal(box.viewport.most, 0);
    assert.ok(box.viewport.isAtEnd);
    box.scroll(100);
    box.rest();
    assert.deepEqual([box.top, box.viewport.place], [0, { row: 0, pixel: 0 }]);
    assert.equal(box.viewport.rows().last, rows - 1);
  }
});

for (const rows of [31, 1000, 399_999, 400_001, 1_000_000, 10_000_000, 1_000_000_000]) {
  test(`small steps are pixels among ${rows} rows, at both ends and between`, () => {
    const box = new Box(rows);
    assert.ok(box.viewport.spacer <= MOST_PIXELS);
    const most = rows * 20 - 600;
    for (const start of [0, Math.floor(rows / 3), rows - 1]) {
      box.viewport.goTo(start);
      box.rest();
      let expected = box.shown;
      for (const step of [100, 53, 120, -100, -53, -999, 777, 1]) {
        box.scroll(step);
        expected = Math.max(0, Math.min(most, expected + step));
        assert.ok(Math.abs(box.shown - expected) <= 1, `${start} ${step}: ${box.shown} ${expected}`);
        box.rest();
        expected = box.shown;
      }
    }
  });

  test(`the ends of ${rows} rows are reached by dragging, by steps and by going there`, () => {
    const box = new Box(rows);
    const end = rows * 20 - 600;
    box.scrollTo(Infinity);
    assert.equal(box.shown, end);
    assert.ok(box.viewport.isAtEnd);
    box.rest();
    assert.equal(box.top, Math.round(box.viewport.most));
    box.scrollTo(0);
    assert.equal(box.shown, 0);
    box.viewport.goToEnd();
    box.rest();
    for (let step = 0; step < 40; step += 1) {
      box.scroll(-100);
      box.rest();
    }
    for (let step = 0; step < 40; step += 1) {
      box.scroll(100);
      box.rest();
    }
    assert.equal(box.shown, end);
    box.viewport.goTo(Math.min(rows - 1, 150), "start");
    box.rest();
    for (let step = 0; step < 40; step += 1) {
      box.scroll(-100);
      box.rest();
    }
    assert.equal(box.shown, 0);
  });

  test(`the thumb in the middle is the middle of ${rows} rows, and stays there at rest`, () => {
    const box = new Box(rows);
    for (const share of [0.1, 0.5, 0.77]) {
      box.scrollTo(0);
      box.scrollTo(box.viewport.most * share);
      const { top } = box;
      if (box.viewport.most > 5000) {
        assert.ok(Math.abs(box.shown / (rows * 20 - 600) - share) < 0.03, `${share} ${box.shown}`);
      }
      box.rest();
      assert.ok(Math.abs(box.top - top) <= 1);
    }
  });
}

test("a row is gone to as it is asked for", () => {
  const { viewport } = new Box(1000);
  viewport.goTo(500);
  assert.deepEqual(viewport.place, { row: 500, pixel: 0 });
  viewport.goTo(500, "end");
  assert.deepEqual(viewport.rows(), { first: 471, last: 500 });
  viewport.goTo(500, "center");
  assert.deepEqual(viewport.place, { row: 485, pixel: 10 });
  viewport.goTo(490, "nearest");
  assert.deepEqual(viewport.place, { row: 485, pixel: 10 });
  viewport.goTo(999, "start");
  assert.ok(viewport.isAtEnd);
  viewport.goTo(-5);
  assert.deepEqual(viewport.place, { row: 0, pixel: 0 });
});

test("rows of other heights: both ends are reached, the screen is full, and steps are pixels", () => {
  const next = random(7);
  for (let time = 0; time < 10; time += 1) {
    const rows = 40 + next(3000);
    const heights = Array.from({ length: rows }, () => 20 * (1 + (next(5) === 0 ? next(40) : 0)));
    const box = new Box(rows, (row) => heights[row]);
    const sum = (list) => list.reduce((whole, height) => whole + height, 0);
    const place = () => sum(heights.slice(0, box.viewport.place.row)) + box.viewport.place.pixel;
    const end = sum(heights) - 600;
    // Nobody knows the average well before all rows were seen.
    box.viewport.average = 15 + next(200);
    box.viewport.goToEnd();
    assert.equal(place(), end);
    box.rest();
    for (let step = 0; step < 200; step += 1) {
      const before = place();
      const size = next(600) - 300;
      const [top, { most }] = [box.top, box.viewport];
      box.scroll(size);
      const isFree = top + size > 0 && top + size < most && Math.abs(size) <= 1200;
      const expected = Math.max(0, Math.min(end, before + size));
      if (isFree) assert.ok(Math.abs(place() - expected) <= 1, `${place()} ${expected}`);
      if (next(3) === 0) box.rest();
    }
    for (let step = 0; step < 3000 && place() > 0; step += 1) {
      box.scroll(-200);
      box.rest();
    }
    assert.equal(place(), 0);
    for (let step = 0; step < 3000 && !box.viewport.isAtEnd; step += 1) {
      box.scroll(200);
      box.rest();
    }
    assert.equal(place(), end);
  }
});

test("rows that are folded away leave a place that there is", () => {
  const { viewport } = new Box(1000);
  viewport.goTo(900);
  viewport.rowCount = 20;
  viewport.clamp();
  assert.deepEqual(viewport.place, { row: 0, pixel: 0 });
  viewport.rowCount = 0;
  viewport.clamp();
  assert.deepEqual(viewport.rows(8), { first: 0, last: -1 });
});
