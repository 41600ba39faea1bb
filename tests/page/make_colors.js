// Writes the part of log.css that has the palette's colours: `node tests/page/make_colors.js`.

import { readFileSync, writeFileSync } from "node:fs";

import { BACKGROUND, CHOSEN, FOREGROUND, THEMES, paletteColor, readable, toCss }
  from "../../src/ci_eventstore/web/page/js/log/palette.js";

export const SHEET = new URL("../../src/ci_eventstore/web/page/log.css", import.meta.url);
const HEAD = "/* The colours of the palette, made from js/log/palette.js by tests/page/make_colors.js. */";

const inThemes = (colors) => {
  const [light, dark] = THEMES.map((theme) => toCss(colors(theme)));
  return light === dark ? light : `light-dark(${light}, ${dark})`;
};

/** Return the stylesheet with its last part made anew. */
export function makeColors(sheet) {
  const lines = [sheet.slice(0, sheet.indexOf(HEAD)).trimEnd(), "", HEAD];
  lines.push(`:root { --log-front: ${inThemes((theme) => FOREGROUND[theme])}; }`);
  lines.push(`:root { --log-back: ${inThemes((theme) => BACKGROUND[theme])}; }`);
  lines.push(`:root { --log-row-chosen: ${inThemes((theme) => CHOSEN[theme])}; }`);
  for (let index = 0; index < 256; index += 1) {
    const front = inThemes((theme) => readable(paletteColor(index, theme), CHOSEN[theme]));
    lines.push(`.fg-${index} { color: ${front}; }`);
    lines.push(`.bg-${index} { background-color: ${toCss(paletteColor(index))}; }`);
  }
  return `${lines.join("\n")}\n`;
}

if (process.argv[1] === new URL(import.meta.url).pathname) {
  writeFileSync(SHEET, makeColors(readFileSync(SHEET, "utf8")));
}
