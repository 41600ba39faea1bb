import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

import { BACKGROUND, CHOSEN, FOREGROUND, LEAST_CONTRAST, THEMES, contrast, mix, paletteColor, readable, toCss }
  from "../../src/ci_eventstore/web/page/js/log/palette.js";
import { SHEET, makeColors } from "./make_colors.js";

test("the cube and the greys are those of a terminal", () => {
  assert.equal(paletteColor(16), 0x000000);
  assert.equal(paletteColor(196), 0xff0000);
  assert.equal(paletteColor(208), 0xff8700);
  assert.equal(paletteColor(231), 0xffffff);
  assert.equal(paletteColor(232), 0x080808);
  assert.equal(paletteColor(255), 0xeeeeee);
});

test("contrast goes from one to twenty-one", () => {
  assert.equal(contrast(0x777777, 0x777777), 1);
  assert.equal(Math.round(contrast(0x000000, 0xffffff)), 21);
});

test("every colour can be read on every background after it was mended", () => {
  for (let back = 0; back < 256; back += 1) {
    for (let front = 0; front < 256; front += 5) {
      const [color, background] = [paletteColor(front), paletteColor(back)];
      assert.ok(contrast(readable(color, background), background) >= LEAST_CONTRAST - 0.05, `${front} on ${back}`);
    }
  }
});

test("a colour that can be read stays", () => {
  for (const theme of THEMES) assert.equal(readable(FOREGROUND[theme], BACKGROUND[theme]), FOREGROUND[theme]);
});

test("mixing and writing keep all three parts", () => {
  assert.equal(mix(0x102030, 0x304050, 0.5), 0x203040);
  assert.equal(toCss(0x0000ff), "#0000ff");
});

test("the stylesheet has the colours of this module", () => {
  const sheet = readFileSync(SHEET, "utf8");
  assert.equal(makeColors(sheet), sheet);
});

test("what can be read on a chosen line can be read on others", () => {
  for (const theme of THEMES) {
    for (let index = 0; index < 256; index += 1) {
      const color = readable(paletteColor(index, theme), CHOSEN[theme]);
      assert.ok(contrast(color, BACKGROUND[theme]) >= 4.5, `${theme} ${index}`);
    }
  }
});
