"""Lines as a terminal shows them, each by itself: without escapes, with what a carriage return overwrites gone. Pure.

The page's own parser (`js/log/ansi.js`) makes the same text, so that places in a line mean the same to both.

The expressions here are no user's, look at each character once, and never fail after they have gone on: no text makes
them slow. What moves the cursor is carried out by a machine; almost no line needs it.
"""

import re

#: Controls but tabs and newlines.
CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")
#: Those of them that are ASCII, and the others, in UTF-8. To remove bytes is the fastest way to see whether they occur.
_CONTROL_BYTES = bytes([*range(9), *range(0x0B, 0x20), 0x7F])
_OTHER_CONTROLS = re.compile(b"\xc2[\x80-\x9f]")
#: Sequences, each up to its end or to what it is broken off by: strings (OSC, DCS …), CSI, other escapes; controls.
_SEQUENCES = re.compile(
    "(?:\x1b[PX\\]^_]|[\x90\x98\x9d\x9e\x9f])[^\x07\x9c\x1b\x18\x1a\n]*(?:\x1b\\\\|[\x07\x9c\x18\x1a])?"
    "|(?:\x1b\\[|\x9b)[0-?]*[ -/]*[@-~]?"
    "|\x1b[ -/]*[0-~]?"
    "|[\x00-\x08\x0b-\x1f\x7f-\x9f]"
)
#: What most lines with escapes have, and nothing else.
_COLOUR = re.compile("\x1b\\[[0-9;:]*m")
#: What only lines have that move the cursor back, or erase something.
_MOVES = re.compile("[\r\x08]|(?:\x1b\\[|\x9b)[0-?]*[KCDGX]")
#: A move to the right reaches so far at most.
MOST_COLUMNS = 16384
#: So many cells of a line are blanked at most: each of a few bytes may ask for many.
MOST_BLANKED = 256 * 1024


def plain_lines(text: str) -> str:
    """Return lines, which may be many, as a terminal shows each of them; no newline comes or goes."""
    if "\r" in text:
        # It moves the cursor where nothing follows.
        text = text.replace("\r\n", "\n")
    colourless = _COLOUR.sub("", text) if "\x1b" in text else text
    if not _has_controls(colourless):
        return colourless
    # A line of which controls are left may have had sequences in sequences, and is read from its beginning.
    pairs = zip(colourless.split("\n"), text.split("\n"), strict=True)
    return "\n".join([plain_line(line) if CONTROLS.search(shown) else shown for shown, line in pairs])


def _has_controls(text: str) -> bool:
    """Return whether a text, which may be long, has controls but tabs and newlines."""
    raw = text.encode("utf-8", "surrogatepass")
    if len(raw.translate(None, _CONTROL_BYTES)) < len(raw):
        return True
    return not text.isascii() and _OTHER_CONTROLS.search(raw) is not None


def plain_line(line: str) -> str:
    """Return one line, which has no newline, as a terminal shows it."""
    return _shown(line) if _MOVES.search(line) else _SEQUENCES.sub("", line)


def _shown(line: str) -> str:
    """Return what a terminal shows of a line."""
    screen, place = _Screen(), 0
    for sequence in _SEQUENCES.finditer(line):
        screen.write(line[place : sequence.start()])
        _do(screen, sequence.group())
        place = sequence.end()
    screen.write(line[place:])
    return "".join(screen.cells)


def _do(screen: "_Screen", sequence: str) -> None:
    if sequence == "\r":
        screen.column = 0
        return
    if sequence == "\b":
        screen.move(screen.column - 1)
        return
    start = 2 if sequence.startswith("\x1b[") else 1 if sequence[0] == "\x9b" else 0
    parameters = sequence[start:-1]
    if start and sequence[-1:] in "KCDGX" and not parameters.strip("0123456789:;"):
        _control(screen, sequence[-1:], _first_number(parameters))


def _first_number(parameters: str) -> int:
    digits = parameters[: len(parameters) - len(parameters.lstrip("0123456789"))].lstrip("0")
    return MOST_COLUMNS if len(digits) > 5 else min(int(digits or 0), MOST_COLUMNS)


def _control(screen: "_Screen", final: str, first: int) -> None:
    count = first or 1
    if final == "K":
        screen.erase(first)
    elif final == "C":
        screen.move(screen.column + count)
    elif final == "D":
        screen.move(screen.column - count)
    elif final == "G":
        screen.move(count - 1)
    elif final == "X":
        screen.blank(screen.column, screen.column + count)


class _Screen:
    """The one line of a screen: a cell for each character."""

    def __init__(self) -> None:
        self.cells: list[str] = []
        self.column = 0
        self._left_to_blank = MOST_BLANKED

    def write(self, text: str) -> None:
        """Overwrite from the cursor on."""
        if not text:
            return
        if self.column > len(self.cells):
            self.cells += " " * (self.column - len(self.cells))
        self.cells[self.column : self.column + len(text)] = text
        self.column += len(text)

    def move(self, column: int) -> None:
        """Move within the line."""
        self.column = max(0, min(column, max(MOST_COLUMNS, len(self.cells))))

    def erase(self, part: int) -> None:
        """Erase from the cursor (0), up to it (1) or all (2)."""
        if part == 0:
            del self.cells[self.column :]
        elif part == 1:
            self.blank(0, self.column + 1)
        elif part == 2:
            self.cells.clear()

    def blank(self, start: int, end: int) -> None:
        """Overwrite cells that there are with blanks."""
        count = min(end, len(self.cells)) - start
        if 0 < count <= self._left_to_blank:
            self._left_to_blank -= count
            self.cells[start : start + count] = " " * count
