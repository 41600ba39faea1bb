"""Lines as a terminal shows them: without escapes, with what a carriage return overwrites gone. Pure.

The page's own parser (`js/log/ansi.js`) makes the same text, so that places in a line mean the same to both.
"""

import re

#: What isn't plain: controls but tabs and newlines.
CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")
#: Sequences that only colour, and erasures after the last character: most lines with escapes have no others.
_COLOURS = re.compile("\x1b\\[(?:[0-?]*m|0?K)")
_PLAIN_BYTES = bytes(byte for byte in range(256) if byte in (9, 10) or (0x20 <= byte != 0x7F and byte != 0xC2))
_C1 = re.compile(b"\xc2[\x80-\x9f]")

#: A move to the right reaches so far at most.
_MOST_COLUMNS = 16_384
#: The introducers of strings: DCS, SOS, OSC, PM, APC.
_STRINGS = frozenset("PX]^_")
_C1_STRINGS = frozenset("\x90\x98\x9d\x9e\x9f")
_STRING_END = re.compile("[\x07\x9c\x1b\x18\x1a]")
_CONTROL = re.compile(r"([0-?]*)([ -/]*)([@-~])?")
_ESCAPE = re.compile(r"[ -/]*[0-~]?")


def plain_lines(text: str) -> str:
    """Return lines, which may be many, as a terminal shows each of them; no newline comes or goes."""
    found = _controls_in(text)
    if not found:
        return text
    if len(found) == 1:
        [control] = found
        return "\n".join([plain_line(line) if control in line else line for line in text.split("\n")])
    return "\n".join([plain_line(line) if CONTROLS.search(line) else line for line in text.split("\n")])


def plain_line(line: str) -> str:
    """Return one line, which has no newline, as a terminal shows it."""
    found = _COLOURS.sub("", line)
    return _Screen(line).text if CONTROLS.search(found) else found


def _controls_in(text: str) -> set[str]:
    """Return which controls there are; several times as fast as looking for each."""
    raw = text.encode("utf-8", "surrogatepass")
    rest = raw.translate(None, _PLAIN_BYTES)
    found = set(rest.replace(b"\xc2", b"").decode())
    if b"\xc2" in rest:
        found |= {match[0].decode() for match in _C1.finditer(raw)}
    return found


class _Screen:
    """The one line of a screen, after a text was written to it; each character is looked at once."""

    def __init__(self, text: str) -> None:
        self._cells: list[str] = []
        self._column = 0
        place = 0
        while place < len(text):
            place = self._read(text, place)

    @property
    def text(self) -> str:
        """What the line shows."""
        return "".join(self._cells)

    def _read(self, text: str, place: int) -> int:
        """Take the character or the sequence at a place; return the place after it."""
        character = text[place]
        if character == "\x1b":
            return self._escape(text, place + 1)
        if character == "\x9b":
            return self._control(text, place + 1)
        if character in _C1_STRINGS:
            return _string_end(text, place + 1)
        if character == "\t" or " " <= character < "\x7f" or character > "\x9f":
            self._write(character)
        elif character == "\r":
            self._column = 0
        elif character == "\b":
            self._move(self._column - 1)
        return place + 1

    def _write(self, character: str) -> None:
        if self._column == len(self._cells):
            self._cells.append(character)
        else:
            self._cells.extend(" " * (self._column + 1 - len(self._cells)))
            self._cells[self._column] = character
        self._column += 1

    def _move(self, column: int) -> None:
        self._column = max(0, min(column, max(_MOST_COLUMNS, len(self._cells))))

    def _escape(self, text: str, place: int) -> int:
        first = text[place : place + 1]
        if first == "[":
            return self._control(text, place + 1)
        if first in _STRINGS:
            return _string_end(text, place + 1)
        found = _ESCAPE.match(text, place)
        return found.end() if found else place

    def _control(self, text: str, place: int) -> int:
        found = _CONTROL.match(text, place)
        assert found is not None
        parameters, between, final = found.groups()
        if final and not between and not set(parameters) & set("<=>?"):
            self._do(final, parameters)
        return found.end()

    def _do(self, final: str, parameters: str) -> None:
        digits = re.match(r"[0-9]*", parameters)
        first = min(int((digits and digits[0][:9]) or 0), _MOST_COLUMNS)
        count = first or 1
        if final == "K":
            self._erase(first)
        elif final == "C":
            self._move(self._column + count)
        elif final == "D":
            self._move(self._column - count)
        elif final == "G":
            self._move(count - 1)
        elif final == "X":
            self._blank(self._column, self._column + count)

    def _erase(self, part: int) -> None:
        if part == 1:
            self._blank(0, self._column + 1)
        elif part in (0, 2):
            del self._cells[self._column if part == 0 else 0 :]

    def _blank(self, start: int, end: int) -> None:
        for place in range(start, min(end, len(self._cells))):
            self._cells[place] = " "


def _string_end(text: str, start: int) -> int:
    """Return the place after a string, which ends with BEL, ST or the line; an escape in it begins another sequence."""
    found = _STRING_END.search(text, start)
    if found is None:
        return len(text)
    if found[0] != "\x1b":
        return found.end()
    return found.end() + 1 if text[found.end() : found.end() + 1] == "\\" else found.start()
