"""The sparse indexes of logs, kept in memory.

An index only grows, as long as its job has the same incarnation and its log isn't deleted.
"""

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Sequence
from datetime import datetime
from typing import Literal

from ci_eventstore.events.log_index import INDEX_BYTES, INDEX_EVENTS, milliseconds_of
from ci_eventstore.events.reader import START, EventReader, Extent, Milestone
from ci_eventstore.keys import JobKeys

#: All indexes together have at most this many entries, each of about 200 bytes.
KEPT_ENTRIES = 100_000


Measure = Literal["position", "lines", "bytes"]


def last_at_most(index: Sequence[Milestone], what: Measure, limit: int) -> Milestone:
    """Return the last entry with at most `limit` positions, lines or bytes before it; START if there is none. Pure."""
    place = bisect_right(index, limit, key=lambda entry: int(getattr(entry, what)))
    return index[place - 1] if place else START


def last_before(index: Sequence[Milestone], time: datetime) -> Milestone:
    """Return the last entry before which nothing was written at that time or later. Pure."""
    limit, found = milliseconds_of(time), START
    for entry in index:
        if entry.time >= limit:
            break
        found = entry
    return found


class LogIndexes:
    """Reads sparse indexes, each again only when the log has grown enough to have another entry."""

    def __init__(self, reader: EventReader) -> None:
        self._reader = reader
        self._kept: OrderedDict[tuple[str, str, int | None], list[Milestone]] = OrderedDict()
        self._entries = 0

    async def read(self, keys: JobKeys, extent: Extent, incarnation: str) -> list[Milestone]:
        """Return all entries up to a log's extent, and perhaps some that came since. ProjectionDamagedError."""
        known_as = keys.job_id, incarnation, extent.deleted_to
        known = self._kept.get(known_as)
        if known is not None:
            last = known[-1] if known else START
            if extent.position - last.position < INDEX_EVENTS and extent.bytes - last.bytes < INDEX_BYTES:
                self._kept.move_to_end(known_as)
                return known
        index = await self._reader.milestones(keys)
        self._entries += len(index) - len(self._kept.pop(known_as, ()))
        self._kept[known_as] = index
        while self._entries > KEPT_ENTRIES and len(self._kept) > 1:
            self._entries -= len(self._kept.popitem(last=False)[1])
        return index
