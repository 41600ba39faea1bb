"""A log in pieces of some hundred kilobytes, each with where it stands and when its text was written."""

from bisect import bisect_right
from collections.abc import AsyncGenerator, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import accumulate
from typing import NamedTuple

from ci_eventstore.events.codec import Texts, decode_texts
from ci_eventstore.events.log_source import next_count
from ci_eventstore.events.reader import EventReader, Extent, Milestone
from ci_eventstore.keys import JobKeys

#: A piece has about this many bytes, and at most this many events. What is wanted often ends within the first ones.
PIECE_BYTES = 256 * 1024
PIECE_EVENTS = 1000


class Beginning(NamedTuple):
    """Where in a piece the text of an event begins, and when it was written."""

    offset: int
    time: datetime


@dataclass(frozen=True, slots=True)
class Piece:
    """The text of some events that follow each other."""

    before: Milestone
    data: bytes
    #: Of the events that have text.
    beginnings: Sequence[Beginning]
    after: Milestone

    @classmethod
    def of(cls, events: Texts, before: Milestone) -> "Piece":
        """Return the piece that events make which follow a milestone. Pure."""
        parts = [text.encode("utf-8", "surrogateescape") for text in events.texts]
        offsets = accumulate(map(len, parts), initial=0)
        found = [
            Beginning(offset, time) for offset, time, part in zip(offsets, events.times, parts, strict=False) if part
        ]
        data = b"".join(parts)
        lines, size = before.lines + data.count(b"\n"), before.bytes + len(data)
        return cls(before, data, found, Milestone(before.position + len(parts), lines, size))

    def texts(self) -> Iterator[tuple[datetime, bytes]]:
        """Yield the time and the text of each event that has text."""
        ends = [beginning.offset for beginning in self.beginnings[1:]]
        for (start, time), end in zip(self.beginnings, [*ends, len(self.data)], strict=False):
            yield time, self.data[start:end]


def time_at(beginnings: Sequence[Beginning], offset: int) -> datetime | None:
    """Return when the byte at an offset was written. Pure."""
    place = bisect_right(beginnings, offset, key=lambda beginning: beginning.offset) - 1
    return beginnings[place].time if place >= 0 else None


async def pieces(reader: EventReader, keys: JobKeys, extent: Extent, start: Milestone) -> AsyncGenerator[Piece]:
    """Yield the log after a milestone, up to the last event with text; events without text may be left out.

    StreamDamagedError if the log becomes another one meanwhile; LogDeletedError, JobGoneError.
    """
    previous = None
    count = extent.page_entries(PIECE_BYTES, PIECE_EVENTS)
    while start.position < extent.position and start.bytes < extent.bytes:
        extent.check_deleted(keys.job_id, start.position)
        payloads = await reader.payloads(keys, start.position, min(extent.position, start.position + count), previous)
        piece = Piece.of(decode_texts(payloads, start.position + 1, keys.job_id), start)
        yield piece
        start, previous = piece.after, payloads[-1]
        count = next_count(count, len(payloads), len(piece.data), PIECE_BYTES, PIECE_EVENTS)
        if not piece.data:
            further = await reader.milestone(keys, "bytes", start.bytes)
            if further.position > start.position:
                start, previous = further, None
