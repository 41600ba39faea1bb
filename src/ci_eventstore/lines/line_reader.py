"""Read a job's log by lines: from a number, from a time, or its end, and single lines by their bytes.

Wherever a line stands, an entry of the sparse index stands shortly before it, and another one shortly after a long one.
"""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime

from ci_eventstore.events.log_index import milliseconds_of
from ci_eventstore.events.reader import EventReader, Extent, Milestone
from ci_eventstore.keys import JobKeys
from ci_eventstore.lines.cutting import Line, LineCutter
from ci_eventstore.lines.indexes import LogIndexes, last_at_most, last_before
from ci_eventstore.lines.pieces import Piece, pieces

#: An answer has at most this many bytes.
ANSWER_BYTES = 1024 * 1024
#: What is read for an answer, roughly, unless a single line takes more.
READ_BYTES = 8 * 1024 * 1024
#: What surrounds the lines of an answer.
FRAME_BYTES = 1024


@dataclass(frozen=True, slots=True)
class Log:
    """A job's log at one moment."""

    keys: JobKeys
    extent: Extent
    #: Of the job and its store.
    incarnation: str


@dataclass(frozen=True, slots=True)
class Wanted:
    """What lines are read: `count` of them, each with at most `max_line` bytes."""

    count: int
    max_line: int


class LineReader:
    """Reads lines of logs; the errors of `EventReader`."""

    def __init__(self, reader: EventReader) -> None:
        self._reader = reader
        self._indexes = LogIndexes(reader)

    async def index(self, log: Log) -> Sequence[Milestone]:
        """Return the log's sparse index."""
        return await self._indexes.read(log.keys, log.extent, log.incarnation)

    def pieces(self, log: Log, start: Milestone) -> AsyncGenerator[Piece]:
        """Yield the log's text after a milestone."""
        return pieces(self._reader, log.keys, log.extent, start)

    async def start_of(self, log: Log, line: int) -> Milestone:
        """Return the last milestone after which a line begins."""
        # The line before has to end after it: a milestone may stand in the middle of a line.
        return last_at_most(await self.index(log), "lines", line - 2)

    async def from_line(self, log: Log, line: int, wanted: Wanted) -> list[Line]:
        """Return lines from one on; fewer if the answer or the work would be too large."""
        cutter = LineCutter(line, wanted.count, wanted.max_line, ANSWER_BYTES - FRAME_BYTES)
        await self._fill(cutter, log, await self.start_of(log, line), READ_BYTES)
        return list(cutter.lines)

    async def last(self, log: Log, total: int, wanted: Wanted) -> list[Line]:
        """Return the last lines; fewer if the answer or the work would be too large."""
        line = max(total - wanted.count + 1, 1)
        start = await self.start_of(log, line)
        near = last_at_most(await self.index(log), "bytes", log.extent.bytes - READ_BYTES)
        if near.position > start.position:
            line = min(near.lines + 2, total)
            start = await self.start_of(log, line)
        cutter = LineCutter(line, wanted.count, wanted.max_line, ANSWER_BYTES - FRAME_BYTES, keeps_last=True)
        await self._fill(cutter, log, start, None)
        return list(cutter.lines)

    async def line_at(self, log: Log, time: datetime, total: int) -> int:
        """Return the number of the line that was being written at a time, or was the next; else that of the last."""
        limit = milliseconds_of(time)
        async with aclosing(self.pieces(log, last_before(await self.index(log), time))) as found:
            async for piece in found:
                for beginning in piece.beginnings:
                    if milliseconds_of(beginning.time) >= limit:
                        return piece.before.lines + piece.data.count(b"\n", 0, beginning.offset) + 1
        return max(total, 1)

    async def span(self, log: Log, line: int) -> tuple[int, int] | None:
        """Return the bytes of the log between which a line stands, without its newline; None if there is none."""
        found = await self.from_line(log, line, Wanted(1, 1))
        if not found:
            return None
        start = await self.start_of(log, line)
        async with aclosing(self.pieces(log, start)) as all_pieces:
            async for piece in all_pieces:
                if piece.after.lines + 1 >= line:
                    place, data = 0, piece.data
                    for _ in range(line - 1 - piece.before.lines):
                        place = data.index(b"\n", place) + 1
                    first = piece.before.bytes + place
                    return first, first + found[0].size
        return None

    async def between(self, log: Log, first: int, end: int) -> bytes:
        """Return bytes of the log from `first` up to the one before `end`."""
        found = []
        start = last_at_most(await self.index(log), "bytes", first)
        async with aclosing(self.pieces(log, start)) as all_pieces:
            async for piece in all_pieces:
                found.append(piece.data[max(first - piece.before.bytes, 0) : end - piece.before.bytes])
                if piece.after.bytes >= end:
                    break
        return b"".join(found)

    async def _fill(self, cutter: LineCutter, log: Log, start: Milestone, budget: int | None) -> None:
        read: int = 0
        while not cutter.is_done:
            further = None
            async with aclosing(self.pieces(log, start)) as found:
                async for piece in found:
                    cutter.take(piece)
                    read += piece.after.bytes - piece.before.bytes
                    if cutter.is_done or (budget is not None and read >= budget and cutter.lines):
                        return
                    further = await self._in_long_line(log, cutter, piece.after)
                    if further is not None:
                        break
            if further is None:
                cutter.finish()
                return
            cutter.skip(further.bytes - piece.after.bytes)
            start = further

    async def _in_long_line(self, log: Log, cutter: LineCutter, here: Milestone) -> Milestone | None:
        """Return the last milestone in the line that is being read, if that can be skipped."""
        line = cutter.long_line
        if line is None:
            return None
        further = last_at_most(await self.index(log), "lines", line - 1)
        return further if further.bytes > here.bytes and further.position <= log.extent.position else None
