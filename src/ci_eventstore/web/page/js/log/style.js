/**
 * How text of a terminal looks: what SGR sequences change, and what a page needs to draw it.
 *
 * A style is a frozen object; equal styles are nearly always the same object, so that neighbours compare quickly.
 */

import { BACKGROUND, CHOSEN, FOREGROUND, THEMES, contrast, mix, paletteColor, readable, toCss } from "./palette.js";

/** @typedef {import("./palette.js").Theme} Theme */

/** Attributes of a style, as bits. */
const BOLD = 1;
export const DIM = 2;
const ITALIC = 4;
const UNDERLINE = 8;
export const INVERSE = 16;
export const CONCEALED = 32;
const STRUCK = 64;

/** The colour that is the theme's own; 0 to 255 are the palette's, TRUE and more are 24 bits of their own. */
const OWN = -1;
const TRUE = 0x1000000;

/**
 * @typedef {object} Style
 * @property {number} front the colour of text
 * @property {number} back the colour behind it
 * @property {number} bits attributes
 */

/** @type {Style} */
export const PLAIN_STYLE = Object.freeze({ front: OWN, back: OWN, bits: 0 });

/** A log may have any number of styles, so what is remembered is forgotten when it is too much. */
const MOST_STYLES = 4096;
/** @type {Map<string, Style>} */
const styles = new Map();

/**
 * @param {number} front
 * @param {number} back
 * @param {number} bits
 * @returns {Style}
 */
function styleWith(front, back, bits) {
  if (front === OWN && back === OWN && bits === 0) return PLAIN_STYLE;
  const key = `${front},${back},${bits}`;
  let style = styles.get(key);
  if (!style) {
    if (styles.size >= MOST_STYLES) styles.clear();
    style = Object.freeze({ front, back, bits });
    styles.set(key, style);
  }
  return style;
}

/** Attributes that a parameter sets, and those that one removes. */
const SET = new Map([[1, BOLD], [2, DIM], [3, ITALIC], [4, UNDERLINE], [7, INVERSE], [8, CONCEALED], [9, STRUCK]]);
const REMOVED = new Map([
  [22, BOLD | DIM], [23, ITALIC], [24, UNDERLINE], [27, INVERSE], [28, CONCEALED], [29, STRUCK],
]);

/** What a sequence makes of a style; the same few come again and again. */
const MOST_CHANGES = 512;
/** @type {WeakMap<Style, Map<string, Style>>} */
const changes = new WeakMap();

/**
 * Return the style after an SGR sequence.
 *
 * @param {Style} style the one before
 * @param {string} parameters what stands between `ESC [` and `m`, with semicolons, colons or both
 * @returns {Style}
 */
export function applySgr(style, parameters) {
  let known = changes.get(style);
  if (!known || known.size > MOST_CHANGES) {
    known = new Map();
    changes.set(style, known);
  }
  let after = known.get(parameters);
  if (!after) {
    after = changed(style, parameters);
    known.set(parameters, after);
  }
  return after;
}

/**
 * @param {Style} style
 * @param {string} parameters
 */
function changed(style, parameters) {
  let { front, back, bits } = style;
  const fields = parameters.split(";").map((field) => field.split(":").map(toNumber));
  for (let place = 0; place < fields.length; place += 1) {
    const field = fields[place];
    const code = field[0];
    if (code === 0) [front, back, bits] = [OWN, OWN, 0];
    else if (code === 4 && field[1] === 0) bits &= ~UNDERLINE;
    else if (code === 21) bits |= UNDERLINE;
    else if (SET.has(code)) bits |= /** @type {number} */ (SET.get(code));
    else if (REMOVED.has(code)) bits &= ~(/** @type {number} */ (REMOVED.get(code)));
    else if (code === 38 || code === 48 || code === 58) {
      const [color, used] = field.length > 1 ? [colorOf(field), 0] : colorAfter(fields, place);
      place += used;
      if (color !== null && code === 38) front = color;
      if (color !== null && code === 48) back = color;
    } else if (code === 39) front = OWN;
    else if (code === 49) back = OWN;
    else if (code >= 30 && code <= 37) front = code - 30;
    else if (code >= 40 && code <= 47) back = code - 40;
    else if (code >= 90 && code <= 97) front = code - 82;
    else if (code >= 100 && code <= 107) back = code - 92;
  }
  return styleWith(front, back, bits);
}

/**
 * @param {string} digits
 */
function toNumber(digits) {
  return digits === "" ? 0 : Math.min(Number(digits), 65535);
}

/**
 * Return the colour of `38:5:N`, `38:2:R:G:B` or `38:2::R:G:B`; null: none.
 *
 * @param {number[]} field
 * @returns {number | null}
 */
function colorOf(field) {
  if (field[1] === 5) return field[2] < 256 ? field[2] : null;
  return field[1] === 2 && field.length >= 5 ? trueColor(field.slice(field.length >= 6 ? 3 : 2)) : null;
}

/**
 * Return the colour of `38;5;N` or `38;2;R;G;B`, and how many fields it takes after the first.
 *
 * @param {number[][]} fields
 * @param {number} place
 * @returns {[number | null, number]}
 */
function colorAfter(fields, place) {
  const values = fields.slice(place + 1, place + 5).map((field) => field[0]);
  if (values[0] === 5) return [values[1] < 256 ? values[1] : null, 1 + Number(values.length > 1)];
  if (values[0] === 2) return [values.length === 4 ? trueColor(values.slice(1)) : null, values.length];
  return [null, 0];
}

/**
 * @param {number[]} parts
 * @returns {number | null}
 */
function trueColor([red, green, blue]) {
  return Math.max(red, green, blue) < 256 ? TRUE | (red << 16) | (green << 8) | blue : null;
}

/**
 * @typedef {object} Look
 * @property {string} className classes of `log.css`, with spaces; "" for plain text
 * @property {string} color a value for `style.color`; "" if the classes have it
 * @property {string} background likewise
 */

const CLASSES = /** @type {const} */ ([
  [BOLD, "log-bold"], [ITALIC, "log-italic"], [UNDERLINE, "log-underline"], [STRUCK, "log-struck"],
  [CONCEALED, "log-concealed"],
]);

/** @type {WeakMap<Style, Look>} */
const looks = new WeakMap();

/**
 * Return how a style looks. Colours of the palette are classes; where they meet others, they become values that can
 * be read in both themes. Concealed text is shown, dimmed: what a log has can't be hidden.
 *
 * @param {Style} style
 * @returns {Look}
 */
export function styleOf(style) {
  let look = looks.get(style);
  if (!look) {
    look = makeLook(style);
    looks.set(style, look);
  }
  return look;
}

/**
 * @param {Style} style
 * @returns {Look}
 */
function makeLook({ front, back, bits }) {
  const names = CLASSES.filter(([bit]) => bits & bit).map(([, name]) => /** @type {string} */ (name));
  const isDim = (bits & (DIM | CONCEALED)) !== 0;
  const isPlain = back === OWN && !(bits & INVERSE) && !isDim;
  if (isPlain && front < TRUE) {
    if (front !== OWN) names.push(`fg-${front}`);
    return { className: names.join(" "), color: "", background: "" };
  }
  const pairs = THEMES.map((theme) => colorsIn(theme, front, back, bits));
  const isFilled = back !== OWN || (bits & INVERSE) !== 0;
  const isClass = isFilled && !(bits & INVERSE) && back < TRUE;
  if (isClass) names.push(`bg-${back}`);
  return {
    className: names.join(" "),
    color: inBothThemes(pairs.map(([text]) => text)),
    background: isFilled && !isClass ? inBothThemes(pairs.map(([, behind]) => behind)) : "",
  };
}

/**
 * Return the colours of text and what is behind it, in a theme.
 *
 * @param {Theme} theme
 * @param {number} front
 * @param {number} back
 * @param {number} bits
 */
function colorsIn(theme, front, back, bits) {
  let behind = resolve(back, BACKGROUND[theme], null);
  // On a colour, text without one is black or white, whichever is clearer.
  const clearer = contrast(behind, FOREGROUND.dark) > contrast(behind, FOREGROUND.light) ? "dark" : "light";
  let text = resolve(front, FOREGROUND[back === OWN ? theme : clearer], theme);
  if (bits & INVERSE) [text, behind] = [behind, text];
  if (bits & (DIM | CONCEALED)) text = mix(text, behind, 0.35);
  const isBare = back === OWN && !(bits & INVERSE);
  return [readable(text, isBare ? CHOSEN[theme] : behind), behind];
}

/**
 * @param {number} color
 * @param {number} own
 * @param {Theme | null} theme
 */
function resolve(color, own, theme) {
  if (color === OWN) return own;
  return color >= TRUE ? color & 0xffffff : paletteColor(color, theme);
}

/**
 * @param {number[]} colors
 */
function inBothThemes([light, dark]) {
  return light === dark ? toCss(light) : `light-dark(${toCss(light)}, ${toCss(dark)})`;
}
