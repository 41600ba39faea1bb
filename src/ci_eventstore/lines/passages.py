"""A log in passages of whole lines, read fast from any line on: what searches and outlines are made of."""

import asyncio
from bisect import bisect_right
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from itertools import accumulate, compress

from ci_eventstore.events.codec import Texts, decode_texts
from ci_eventstore.events.log_source import next_count
from ci_eventstore.events.reader import EventReader
from ci_eventstore.lines.line_reader import LineReader, Log

#: Of one read.
READ_EVENTS = 2000
READ_BYTES = 2 * 1024 * 1024
#: Of lines that are searched at once, so that their hits take little memory and a search can look at the clock.
PART_CHARACTERS = 256 * 1024
#: Of a longer line, about so many characters are in a passage.
LONGEST_LINE = 1024 * 1024


@dataclass(frozen=True)
class Passage:
    """Lines that follow each other; all end with a newline, but for the log's last one."""

    #: The number of the first line.
    first: int
    text: str
    #: Where in the text an event's text begins, and when that was written.
    starts: Sequence[int]
    times: Sequence[datetime]
    #: Of the last event that was read.
    position: int

    def time_at(self, place: int) -> datetime:
        """Return when the text at a place was written."""
        return self.times[max(0, bisect_right(self.starts, place) - 1)]

    @property
    def has_open_end(self) -> bool:
        """Whether its last line has no newline."""
        return self.text != "" and not self.text.endswith("\n")

    @cached_property
    def line_count(self) -> int:
        """How many lines it has."""
        return self.text.count("\n") + self.has_open_end

    def parts(self, of_line: int) -> Iterator["Passage"]:
        """Yield its lines in smaller passages; of a line, so many characters at most."""
        text, begin, number, most = self.text, 0, self.first, min(PART_CHARACTERS, of_line)
        while begin < len(text):
            end = text.rfind("\n", begin, begin + most) + 1 or text.find("\n", begin + most) + 1 or len(text)
            of_part = text[begin:end]
            if len(of_part) > of_line + of_part.endswith("\n"):
                of_part = of_part[:of_line] + "\n" * of_part.endswith("\n")
            index = max(0, bisect_right(self.starts, begin) - 1)
            starts = [start - begin for start in self.starts[index : bisect_right(self.starts, end)]]
            part = Passage(number, of_part, starts, self.times[index : index + len(starts)], self.position)
            yield part
            begin, number = end, number + part.line_count


class PassageReader:
    """Reads logs as fast as it goes; the errors of `EventReader`."""

    def __init__(self, reader: EventReader, lines: LineReader) -> None:
        self._reader = reader
        self._lines = lines

    async def passages(self, log: Log, first_line: int, *, reads_ahead: bool = True) -> AsyncGenerator[Passage]:
        """Yield all lines from one on; whoever wants but a few of them reads no page ahead."""
        start = await self._lines.start_of(log, first_line)
        # A milestone may stand in the middle of a line, and that line is before the first.
        count = log.extent.page_entries(READ_BYTES, READ_EVENTS)
        cutter = _Cutter(start.lines + 1, first_line, count, is_in_line=start.position > 0)
        log.extent.check_deleted(log.keys.job_id, start.position)
        async with aclosing(self._pages(log, start.position, cutter, reads_ahead=reads_ahead)) as pages:
            async for first, payloads in pages:
                events = decode_texts(payloads, first, log.keys.job_id)
                if passage := cutter.add(events, first + len(payloads) - 1):
                    yield passage
        if passage := cutter.rest(log.extent.position):
            yield passage

    async def _pages(
        self, log: Log, after: int, cutter: "_Cutter", *, reads_ahead: bool
    ) -> AsyncGenerator[tuple[int, list[bytes]]]:
        """Yield payloads with the first one's position.

        If it reads ahead, the server finds the next ones while these are looked through; so their number is what the
        cutter found right for the last but one.
        """
        end, reading = log.extent.position, None
        try:
            while after < end:
                reading = reading or self._begin(log, after, cutter.count)
                payloads = await reading
                first, after = after + 1, after + len(payloads)
                reading = self._begin(log, after, cutter.count) if reads_ahead and after < end else None
                yield first, payloads
        finally:
            if reading is not None:
                reading.cancel()
                await asyncio.gather(reading, return_exceptions=True)

    def _begin(self, log: Log, after: int, count: int) -> "asyncio.Task[list[bytes]]":
        last = min(log.extent.position, after + count)
        return asyncio.create_task(self._reader.payloads(log.keys, after, last))

    async def passages_from_end(self, log: Log, first_line: int, last_line: int) -> AsyncGenerator[tuple[Passage, int]]:
        """Yield the lines from one to another, the last ones first, in passages with the last line that each is for."""
        while last_line >= first_line:
            start = await self._lines.start_of(log, last_line)
            begin = max(start.lines + 2 if start.position else 1, first_line)
            found = list[Passage]()
            async with aclosing(self.passages(log, begin, reads_ahead=False)) as passages:
                async for passage in passages:
                    if passage.first <= last_line:
                        found.append(passage)
                    if passage.first + passage.line_count > last_line:
                        break
            for passage in reversed(found):
                yield passage, last_line
            last_line = begin - 1


class _Cutter:
    """Cuts texts of events, as they come, after newlines."""

    def __init__(self, line: int, wanted: int, count: int, *, is_in_line: bool) -> None:
        self._line = line
        self._wanted = wanted
        self._is_in_line = is_in_line
        self._texts: list[str] = []
        self._times: list[datetime] = []
        #: Of the line that has no end yet.
        self._size = 0
        #: How many events make a page.
        self.count = count

    def add(self, events: Texts, position: int) -> Passage | None:
        """Take events; return all lines that have ended and are wanted."""
        whole = "".join(events.texts)
        newline = whole.rfind("\n")
        self.count = next_count(self.count, len(events.texts), len(whole), READ_BYTES, READ_EVENTS)
        if newline >= 0 or self._size < LONGEST_LINE:
            # Without texts that are empty: a place in the passage is then in one of them.
            self._times += compress(events.times, events.texts)
            self._texts += filter(None, events.texts)
        self._size = len(whole) - newline - 1 if newline >= 0 else self._size + len(whole)
        return self._cut(position) if newline >= 0 else None

    def rest(self, position: int) -> Passage | None:
        """Return the log's last line, if it has no end."""
        if not self._texts or self._line < self._wanted or self._is_in_line:
            return None
        return self._passage("".join(self._texts), self._texts, self._times, position)

    def _cut(self, position: int) -> Passage | None:
        whole = "".join(self._texts)
        end, begin = whole.rfind("\n") + 1, 0
        if self._is_in_line:
            begin, self._is_in_line, self._line = whole.index("\n") + 1, False, self._line + 1
        while self._line < self._wanted and begin < end:
            begin, self._line = whole.index("\n", begin) + 1, self._line + 1
        texts, times = self._texts, self._times
        self._texts, self._times = ([whole[end:]], [times[-1]]) if end < len(whole) else ([], [])
        if self._texts:
            self._times = [_time_of(texts, times, end)]
        if begin >= end:
            return None
        passage = self._passage(whole[begin:end], texts, times, position, begin)
        self._line += passage.line_count
        return passage

    def _passage(
        self, text: str, texts: Sequence[str], times: Sequence[datetime], position: int, begin: int = 0
    ) -> Passage:
        starts = list(accumulate(map(len, texts), initial=-begin))[:-1]
        return Passage(self._line, text, starts, times, position)


def _time_of(texts: Sequence[str], times: Sequence[datetime], place: int) -> datetime:
    """Return the time of the text that has a place of all texts together."""
    for text, time in zip(texts, times, strict=True):
        if place < len(text):
            return time
        place -= len(text)
    return times[-1]
