"""A job's log as text, whole or by lines, sent in parts: as it is, compressed, or plain."""

import asyncio
import zlib
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing

from ci_common.models import utc_now
from ci_eventstore.events.codec import texts_of
from ci_eventstore.events.reader import START, EventReader, Milestone, Ring
from ci_eventstore.events.records import TimestampedLines, rfc3339
from ci_eventstore.lines.indexes import last_at_most
from ci_eventstore.lines.line_reader import LineReader, Log
from ci_eventstore.lines.pieces import Piece
from ci_eventstore.lines.plain import plain_lines

#: The connection gets at most this many bytes at once.
SENT_BYTES = 128 * 1024


class LogText:
    """A job's log as it stands: what comes later isn't in it."""

    def __init__(self, reader: EventReader, lines: LineReader, log: Log, ring: Ring | None = None) -> None:
        """Read a log up to its extent, then a running job's ring if that is given."""
        self._ring = ring
        self._reader = reader
        self._lines = lines
        self._log = log

    @property
    def has_ring(self) -> bool:
        """Whether the log goes on with the events of a ring, after a line that says so."""
        return self._ring is not None

    async def between(self, first: int, end: int) -> AsyncGenerator[bytes]:
        """Yield the bytes from `first` up to the one before `end`."""
        start = last_at_most(await self._lines.index(self._log), "bytes", first)
        skipped, left = first - start.bytes, end - first
        async for piece in self._lines.pieces(self._log, start):
            for data in _parts(piece.data):
                wanted = data[skipped : skipped + left]
                skipped = max(skipped - len(data), 0)
                left -= len(wanted)
                if wanted:
                    yield wanted
            if left <= 0:
                return

    async def last_lines(self, count: int | None, *, with_times: bool) -> AsyncGenerator[bytes]:
        """Yield the last lines, or all; with times, each begins with the time at which it was printed."""
        first = 1 if count is None else max(await self._line_count() - count, 0) + 1
        async with aclosing(self.lines(first, None, with_times=with_times)) as found:
            async for part in found:
                yield part

    async def lines(self, first: int, last: int | None, *, with_times: bool) -> AsyncGenerator[bytes]:
        """Yield the lines from one to another, both included and counted from 1; None: to the end."""
        stamp = TimestampedLines().stamp
        start = await self._lines.start_of(self._log, first)
        skipped, left = first - 1 - start.lines, None if last is None else last - first + 1
        async for piece in self._pieces_and_ring(start):
            data = b"".join([stamp(*text) for text in piece.texts()]) if with_times else piece.data
            start_byte, skipped = _skip(data, skipped)
            end_byte = len(data)
            if left is not None and not skipped:
                end_byte, left = _skip(data[start_byte:], left)
                end_byte += start_byte
            for part in _parts(data[start_byte:end_byte]):
                yield part
            if left == 0:
                return

    async def _pieces_and_ring(self, start: Milestone) -> AsyncIterator[Piece]:
        async for piece in self._lines.pieces(self._log, start):
            yield piece
        for events in self._ring.pages() if self._ring is not None else ():
            yield Piece.of(texts_of(events), START)

    async def _line_count(self) -> int:
        """Return how many lines the log has; text after the last newline counts as one."""
        extent, ring = self._log.extent, self._ring
        if ring is None:
            return extent.lines + await self._reader.has_open_end(self._log.keys, extent)
        return extent.lines + ring.mark.count("\n") + ring.lines + ring.has_open_end()


def _skip(data: bytes, lines: int) -> tuple[int, int]:
    """Return where the first `lines` lines end in the data, and how many are left to skip after it."""
    start = 0
    while lines:
        end = data.find(b"\n", start)
        if end < 0:
            return len(data), lines
        start, lines = end + 1, lines - 1
    return start, 0


def _parts(data: bytes) -> list[bytes]:
    if len(data) <= SENT_BYTES:
        return [data] if data else []
    return [data[start : start + SENT_BYTES] for start in range(0, len(data), SENT_BYTES)]


async def gzipped(parts: AsyncGenerator[bytes]) -> AsyncGenerator[bytes]:
    """Yield a text as one gzip file, compressed in a thread, so that the server answers others meanwhile."""
    compressor = zlib.compressobj(6, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
    async for part in parts:
        if packed := await asyncio.to_thread(compressor.compress, part):
            yield packed
    yield compressor.flush()


#: A line that is longer is made plain in parts.
PLAIN_BYTES = 1024 * 1024
#: How wide the time in front of a line is.
TIME_WIDTH = len(rfc3339(utc_now())) + 1


async def made_plain(parts: AsyncGenerator[bytes], *, with_times: bool) -> AsyncGenerator[bytes]:
    """Yield a text as a terminal would show it, each line by itself; in a thread, so that others are answered."""
    held, width = b"", TIME_WIDTH if with_times else 0
    async with aclosing(parts):
        async for part in parts:
            data = held + part
            end = data.rfind(b"\n") + 1 or (len(data) if len(data) >= PLAIN_BYTES else 0)
            held = data[end:]
            if end:
                yield await asyncio.to_thread(_plain, data[:end], width)
    if held:
        yield await asyncio.to_thread(_plain, held, width)


def _plain(data: bytes, time_width: int) -> bytes:
    """Return lines without escapes; what is in front of each stays."""
    text = data.decode("utf-8", "surrogateescape")
    if time_width:
        lines = [line[:time_width] + plain_lines(line[time_width:]) for line in text.split("\n")]
        text = "\n".join(lines)
    else:
        text = plain_lines(text)
    return text.encode("utf-8", "surrogateescape")
