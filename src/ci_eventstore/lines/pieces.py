"""A log in pieces of about a mebibyte, each with where it stands and when its text was written."""

from bisect import bisect_right
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from ci_common.models import JobEvent
from ci_eventstore.events.reader import EventReader, Extent, Milestone, next_page_entries
from ci_eventstore.events.records import log_bytes, log_text, text_size
from ci_eventstore.keys import JobKeys

#: A piece has about this many bytes, and at most this many events.
PIECE_BYTES = 1024 * 1024
PIECE_EVENTS = 1000


class Beginning(NamedTuple):
    """Where in a piece the text of an event begins, and when it was written."""

    offset: int
    time: datetime | None


@dataclass(frozen=True, slots=True)
class Piece:
    """The text of some events that follow each other."""

    before: Milestone
    events: Sequence[JobEvent]
    after: Milestone

    @classmethod
    def of(cls, events: Sequence[JobEvent], before: Milestone) -> "Piece":
        """Return the piece that events make which follow a milestone. Pure."""
        size = lines = 0
        for event in events:
            added, newlines = text_size(log_text(event))
            size, lines = size + added, lines + newlines
        position = events[-1].id or before.position
        return cls(before, events, Milestone(position, before.lines + lines, before.bytes + size))

    @property
    def data(self) -> bytes:
        """The text, made anew at each call."""
        return b"".join(map(log_bytes, self.events))

    @property
    def beginnings(self) -> list[Beginning]:
        """Where each event with text begins, made anew at each call."""
        found, offset = [], 0
        for event in self.events:
            if text := log_text(event):
                found.append(Beginning(offset, event.timestamp))
                offset += text_size(text)[0]
        return found


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
        events = await reader.read(keys, start.position, extent, count, previous)
        piece = Piece.of(events, start)
        yield piece
        is_empty = piece.after.bytes == start.bytes
        start, previous = piece.after, events[-1]
        count = min(next_page_entries(count, events, PIECE_BYTES), PIECE_EVENTS)
        if is_empty:
            further = await reader.milestone(keys, "bytes", start.bytes)
            if further.position > start.position:
                start, previous = further, None
