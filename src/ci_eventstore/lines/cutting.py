"""Cut a log's pieces into lines, within a budget. Pure.

Lines count from 1 and end at a newline only. Long ones are cut; their whole length is known.
"""

from collections import deque
from dataclasses import dataclass
from datetime import datetime
from json.encoder import encode_basestring

from ci_eventstore.lines.pieces import Piece, time_at

#: What a line takes in an answer beside its text.
LINE_OVERHEAD = 100


@dataclass(slots=True)
class Line:
    """A line, without its newline."""

    n: int
    #: When its beginning was written.
    time: datetime | None
    #: Its beginning, at most as much as was asked for.
    data: bytearray
    #: All of its bytes.
    size: int

    @property
    def text(self) -> str:
        """Its beginning as text, with U+FFFD for bytes that aren't UTF-8; no character is cut in two."""
        data = self.data if len(self.data) == self.size else whole_characters(self.data)
        return data.decode("utf-8", "replace")


def whole_characters(data: bytearray) -> bytearray:
    """Return the bytes without a character at their end of which a part is missing."""
    for back in range(1, min(4, len(data)) + 1):
        byte = data[-back]
        if byte < 0x80:
            break
        if byte >= 0xC0:
            needed = 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return data[:-back] if needed > back else data
    return data


class LineCutter:
    """Collects `count` lines from a line on, of pieces that follow each other.

    Of lines that don't fit into `room`, which counts JSON, those nearest the end are kept if `keeps_last`; else the
    cutter is done when it has filled the room. One line is kept in any case.
    """

    def __init__(self, first: int, count: int, max_line: int, room: int, *, keeps_last: bool = False) -> None:
        self._first, self._end = first, first + count
        self._max_line, self._room, self._keeps_last = max_line, room, keeps_last
        self._open: Line | None = None
        self._costs: deque[int] = deque()
        self.lines: deque[Line] = deque()
        self.is_done = count == 0

    @property
    def long_line(self) -> int | None:
        """The number of the line that is being read, if the rest of it isn't needed."""
        return self._open.n if self._open is not None and len(self._open.data) >= self._max_line else None

    def skip(self, size: int) -> None:
        """Go on that many bytes further on in a long line."""
        assert self._open is not None
        self._open.size += size

    def take(self, piece: Piece) -> None:
        """Take the next piece."""
        line = piece.before.lines + 1
        if self.is_done or piece.after.lines + 1 < self._first:
            return
        data, beginnings, place = piece.data, piece.beginnings, 0
        while line < self._first:
            place, line = data.index(b"\n", place) + 1, line + 1
        while place < len(data) and not self.is_done:
            newline = data.find(b"\n", place)
            end = len(data) if newline < 0 else newline
            if self._open is None:
                self._open = Line(line, time_at(beginnings, place), bytearray(), 0)
            room = self._max_line - len(self._open.data)
            self._open.data += data[place : min(end, place + room)]
            self._open.size += end - place
            if newline >= 0:
                self._close(self._open)
            place, line = end + 1, line + 1

    def finish(self) -> None:
        """Note that the log has no more."""
        if self._open is not None and not self.is_done:
            self._close(self._open)
        self.is_done = True

    def _close(self, line: Line) -> None:
        self._open = None
        cost = len(encode_basestring(line.text).encode()) + LINE_OVERHEAD
        if not self._keeps_last and self.lines and cost > self._room:
            self.is_done = True
            return
        self.lines.append(line)
        self._costs.append(cost)
        self._room -= cost
        while self._room < 0 and len(self.lines) > 1:
            self.lines.popleft()
            self._room += self._costs.popleft()
        self.is_done = line.n + 1 >= self._end
