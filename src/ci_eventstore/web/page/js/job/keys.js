/**
 * The keys of a job's page. Pure.
 *
 * Single letters count only while the log has focus, and can be turned off (WCAG 2.1.4).
 */

/**
 * @typedef {"search"|"nextHit"|"previousHit"|"nextMark"|"previousMark"|"goToLine"|"follow"|"wrap"} ViewCommand
 * @typedef {ViewCommand|"times"|"contents"|"fold"|"foldGroup"|"turnGroup"|"help"|"close"} Command
 *
 * @typedef {object} Stroke
 * @property {string} key
 * @property {boolean} ctrlKey
 * @property {boolean} metaKey
 * @property {boolean} altKey
 */

/** Every key, what it does and its command, as the help lists them. */
export const KEYS = /** @type {{keys: string[], command: Command, about: string}[]} */ ([
  { keys: ["/"], command: "search", about: "Search the whole log (also Ctrl F; again: the browser's search)" },
  { keys: ["n"], command: "nextHit", about: "Next hit" },
  { keys: ["N"], command: "previousHit", about: "Previous hit" },
  { keys: ["e"], command: "nextMark", about: "Next error or warning" },
  { keys: ["E"], command: "previousMark", about: "Previous error or warning" },
  { keys: ["g"], command: "goToLine", about: "Go to a line" },
  { keys: ["f"], command: "follow", about: "Follow the end, or let go" },
  { keys: ["w"], command: "wrap", about: "Wrap long lines" },
  { keys: ["t"], command: "times", about: "Times of lines: none, local, UTC, since the start" },
  { keys: ["c"], command: "contents", about: "Contents: groups and errors" },
  { keys: ["z"], command: "fold", about: "Fold or open all groups" },
  { keys: ["x"], command: "foldGroup", about: "Fold the group that one is in; again: the one around it" },
  { keys: ["Enter"], command: "turnGroup", about: "Open the folded group that one is at, or fold the one around" },
  { keys: ["?"], command: "help", about: "This list" },
  { keys: ["Escape"], command: "close", about: "Close what is open, or forget the selected lines" },
]);

const COMMANDS = new Map(KEYS.flatMap(({ keys, command }) => keys.map((key) => [key, command])));

/**
 * Return the command of a key; null if it has none here, so that the browser does what it does.
 *
 * @param {Stroke} stroke
 * @param {{isInLog: boolean, isInSearch: boolean, isOnControl: boolean, hasLetters: boolean}} place
 * @returns {Command|null}
 */
export function commandOf(stroke, { isInLog, isInSearch, isOnControl, hasLetters }) {
  if ((stroke.ctrlKey || stroke.metaKey) && !stroke.altKey) {
    return stroke.key.toLowerCase() === "f" && !isInSearch ? "search" : null;
  }
  if (stroke.altKey || stroke.ctrlKey || stroke.metaKey) return null;
  if (stroke.key === "Escape") return "close";
  const isLetter = stroke.key.length === 1;
  return isInLog && (isLetter ? hasLetters : !isOnControl) ? (COMMANDS.get(stroke.key) ?? null) : null;
}
