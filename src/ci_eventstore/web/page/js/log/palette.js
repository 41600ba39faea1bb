/**
 * The colours of a terminal in both themes, and what keeps text readable on any background.
 *
 * A colour is a number, 0xRRGGBB. The stylesheet's classes for the 256 colours of the palette are made from this
 * module (`tests/page/make_colors.js`), so the two agree.
 */

/** @typedef {"light" | "dark"} Theme */

/** @type {readonly Theme[]} */
export const THEMES = ["light", "dark"];

/** The page's own colours of a log. */
export const BACKGROUND = { light: 0xffffff, dark: 0x0d1117 };
/** Behind chosen lines; text that can be read on it can be read on the page's own background as well. */
export const CHOSEN = { light: 0xfff8d0, dark: 0x241f10 };
export const FOREGROUND = { light: 0x1f2328, dark: 0xe6edf3 };

/** Text has at least this contrast with what is behind it, as WCAG 2 asks for. */
export const LEAST_CONTRAST = 4.6;

/** The sixteen that a theme chooses: black, red, green, yellow, blue, magenta, cyan, white, and the bright ones. */
const THEMED = {
  light: [
    0x24292f, 0xcf222e, 0x116329, 0x7a5200, 0x0969da, 0x8250df, 0x1b7c83, 0x6e7781,
    0x57606a, 0xa40e26, 0x1a7f37, 0x633c01, 0x0550ae, 0x6639ba, 0x136061, 0x424a53,
  ],
  dark: [
    0x7d8590, 0xff7b72, 0x3fb950, 0xd29922, 0x58a6ff, 0xbc8cff, 0x39c5cf, 0xb1bac4,
    0x8b949e, 0xffa198, 0x56d364, 0xe3b341, 0x79c0ff, 0xd2a8ff, 0x56d4dd, 0xffffff,
  ],
};

/** As backgrounds, the sixteen colours are the terminal's. */
const PLAIN = [
  0x000000, 0xcd3131, 0x0dbc79, 0xe5e510, 0x2472c8, 0xbc3fbc, 0x11a8cd, 0xe5e5e5,
  0x666666, 0xf14c4c, 0x23d18b, 0xf5f543, 0x3b8eea, 0xd670d6, 0x29b8db, 0xffffff,
];

/**
 * Return a colour of the palette of 256.
 *
 * @param {number} index from 0 to 255
 * @param {Theme | null} theme the theme for the first sixteen as text; null: as backgrounds
 * @returns {number}
 */
export function paletteColor(index, theme = null) {
  if (index < 16) return (theme ? THEMED[theme] : PLAIN)[index];
  if (index >= 232) return (8 + 10 * (index - 232)) * 0x010101;
  const place = index - 16;
  const level = (/** @type {number} */ step) => (step === 0 ? 0 : 55 + 40 * step);
  return (level(Math.floor(place / 36)) << 16) | (level(Math.floor(place / 6) % 6) << 8) | level(place % 6);
}

/**
 * Return the relative luminance of a colour, from 0 to 1.
 *
 * @param {number} color
 */
function luminance(color) {
  const linear = (/** @type {number} */ byte) => {
    const value = byte / 255;
    return value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
  };
  return 0.2126 * linear(color >> 16) + 0.7152 * linear((color >> 8) & 255) + 0.0722 * linear(color & 255);
}

/**
 * Return the contrast of two colours as WCAG counts it, from 1 to 21.
 *
 * @param {number} one
 * @param {number} other
 */
export function contrast(one, other) {
  const [low, high] = [luminance(one), luminance(other)].sort((a, b) => a - b);
  return (high + 0.05) / (low + 0.05);
}

/**
 * Return the colour that lies between two, at `share` of the way to the second.
 *
 * @param {number} from
 * @param {number} to
 * @param {number} share from 0 to 1
 */
export function mix(from, to, share) {
  let mixed = 0;
  for (const shift of [16, 8, 0]) {
    const [a, b] = [(from >> shift) & 255, (to >> shift) & 255];
    mixed |= Math.round(a + (b - a) * share) << shift;
  }
  return mixed;
}

/**
 * Return the colour nearest to `color`, towards black or white, that can be read on `background`.
 *
 * @param {number} color
 * @param {number} background
 */
export function readable(color, background) {
  if (contrast(color, background) >= LEAST_CONTRAST) return color;
  const end = contrast(0xffffff, background) > contrast(0x000000, background) ? 0xffffff : 0x000000;
  let [near, far] = [0, 1];
  for (let step = 0; step < 7; step += 1) {
    const middle = (near + far) / 2;
    if (contrast(mix(color, end, middle), background) >= LEAST_CONTRAST) far = middle;
    else near = middle;
  }
  return mix(color, end, far);
}

/**
 * Return a colour as CSS writes it.
 *
 * @param {number} color
 */
export function toCss(color) {
  return `#${color.toString(16).padStart(6, "0")}`;
}
