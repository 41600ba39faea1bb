"""Read a job's log: its extent, its events in pages without a hole, and the ring of a log over its budget.

Events in the ring have no position, and may be left out by the time the job ends.
"""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from ci_common.errors import JobNotFoundError, LogDeletedError
from ci_common.models import JobEvent
from ci_eventstore.connection.nodes import Nodes
from ci_eventstore.connection.replies import as_optional_texts
from ci_eventstore.errors import ProjectionDamagedError, StreamDamagedError
from ci_eventstore.events.codec import decode_event, is_same_entry
from ci_eventstore.events.log_source import PAGE_BYTES, PAGE_ENTRIES, LogSource, check_standing, next_count
from ci_eventstore.events.records import Place
from ci_eventstore.events.sealed_log import StoredEntry, end_in
from ci_eventstore.keys import JobKeys


class Extent(NamedTuple):
    """How far a job's log goes, and where the job's end is, by its hash at one moment."""

    position: int
    end_position: int | None
    #: Of all events' text: bytes and newlines.
    bytes: int
    lines: int = 0
    #: How many facts stand after the last event.
    part: int = 0
    #: The position at which the log last outgrew its budget.
    truncated_at: int | None = None
    #: The job's incarnation, if it has one.
    incarnation: str | None = None
    #: The position of the last event that was deleted with the log.
    deleted_to: int | None = None

    def check_deleted(self, job_id: str, after: int) -> None:
        """Raise LogDeletedError if the events after a position were deleted. Pure."""
        if self.deleted_to is not None and after < self.deleted_to:
            raise LogDeletedError(job_id, self.deleted_to)

    @property
    def is_outgrown(self) -> bool:
        """Whether the job runs and its log has outgrown its budget: readers see only the beginning."""
        return self.truncated_at is not None and self.end_position is None

    def page_entries(self, page_bytes: int = PAGE_BYTES, limit: int = PAGE_ENTRIES, least: int = 10) -> int:
        """Return how many entries of this log make a page of about `page_bytes`."""
        return max(least, min(limit, page_bytes * self.position // max(self.bytes, 1)))


#: At most this many entries are read for payloads, facts among them.
MOST_PAYLOADS = 4000
#: How many events of a ring make a page.
RING_PAGE_EVENTS = 16


@dataclass(frozen=True, slots=True)
class Ring:
    """What the ring of one job held at one moment."""

    job_id: str
    #: What was left out before the ring, at that moment.
    lost_bytes: int
    lost_lines: int
    #: How many lines end in its own text.
    lines: int
    _payloads: Sequence[bytes]

    @property
    def mark(self) -> str:
        """The line that says that the following text isn't final; it begins a line, like the one in an ended log."""
        lost = f"; {self.lost_bytes} bytes in {self.lost_lines} lines are left out so far" if self.lost_bytes else ""
        return f"\n[provisional from here on, until the job ends{lost}]\n"

    def pages(self) -> Iterator[list[JobEvent]]:
        """Yield the mark and the events, without ids, in pages. StoreFormatError."""
        for start in range(0, max(len(self._payloads), 1), RING_PAGE_EVENTS):
            payloads = self._payloads[start : start + RING_PAGE_EVENTS]
            page = [replace(decode_event(payload, 0, self.job_id), id=None) for payload in payloads]
            if start == 0:
                page.insert(0, JobEvent("log", self.mark, timestamp=page[0].timestamp if page else None))
            yield page

    def has_open_end(self) -> bool:
        """Return whether its last line has no newline; the mark has one. StoreFormatError."""
        for payload in reversed(self._payloads):
            if text := decode_event(payload, 0, self.job_id).data:
                return not text.endswith("\n")
        return False


async def read_ring(nodes: Nodes, keys: JobKeys) -> Ring | None:
    """Return what a job's ring holds; None if there is none. ProjectionDamagedError."""
    reply: Sequence[bytes] = await nodes.read("HGETALL", keys.ring)
    if not reply:
        return None
    fields = dict(zip(reply[::2], reply[1::2], strict=True))
    try:
        first, last = int(fields[b"first"]), int(fields[b"last"])
        entries = [fields[b"%d" % place].split(b" ", 2) for place in range(first, last + 1)]
        lines = sum(int(newlines) for _, newlines, _ in entries)
        lost_bytes, lost_lines = int(fields[b"lost_bytes"]), int(fields[b"lost_lines"])
    except (KeyError, ValueError) as error:
        raise ProjectionDamagedError(keys.job_id, f"its ring can't be read: {error!r}") from error
    return Ring(keys.job_id, lost_bytes, lost_lines, lines, [payload for _, _, payload in entries])


#: How many events the search for the last text before a position reads first: after the text comes the job's end.
LAST_EVENTS = 2


class Milestone(NamedTuple):
    """An entry of the sparse index: how many lines and bytes of text a log has up to a position, and when."""

    position: int
    lines: int
    bytes: int
    #: In milliseconds since 1970; 0 if the event has no zone, or there is none.
    time: int = 0


START = Milestone(0, 0, 0)


class EventReader:
    """Reads the logs of a store's jobs."""

    def __init__(self, nodes: Nodes, source: LogSource) -> None:
        self._nodes = nodes
        self.source = source

    async def extent(self, keys: JobKeys, user_id: str | None = None) -> Extent:
        """Return how far the log goes.

        JobNotFoundError, also for another user's job, ProjectionMissingError, ProjectionDamagedError.
        """
        reply = await self._nodes.read_together("HMGET", keys.hash, *Extent._fields, "user_id", "log")
        position, end, size, lines, part, truncated_at, incarnation, deleted, owner, log = as_optional_texts(reply)
        if log is not None:
            # A packed record leaves out what follows from the rest.
            if position is None and (place := end_in(log)) is not None:
                position, part = str(place.position), str(place.part)
            end = position if end is None else end
        if position is None:
            await check_standing(self._nodes, keys)
        if user_id not in (None, owner) or not any(part is not None for part in reply):
            raise JobNotFoundError(keys.job_id)
        if position is None:
            raise ProjectionDamagedError(keys.job_id, "where its log ends can't be read")
        try:
            return Extent(
                position=int(position),
                end_position=None if end is None else int(end),
                bytes=int(size or 0),
                lines=int(lines or 0),
                part=int(part or 0),
                truncated_at=None if truncated_at is None else int(truncated_at),
                incarnation=incarnation,
                deleted_to=None if deleted is None else int(deleted),
            )
        except ValueError as error:
            raise ProjectionDamagedError(keys.job_id, f"a position of its hash is {error}") from error

    async def read(
        self, keys: JobKeys, after: int, extent: Extent, limit: int | None = None, previous: JobEvent | None = None
    ) -> list[JobEvent]:
        """Return the visible events after a position, at most `limit`, up to the log's extent.

        `previous` is the event at that position, if the caller has read it: it still has to be there.
        StreamDamagedError if an event is missing or another one is in its place; an empty list never stands for a
        missing event. LogDeletedError, JobGoneError.
        """
        extent.check_deleted(keys.job_id, after)
        events: list[JobEvent] = []
        last = extent.position if limit is None else min(extent.position, after + limit)
        count = extent.page_entries()
        while after < last:
            known = len(events)
            try:
                entries = await self._page(keys, after, last, count, previous)
                after = _take_visible(keys.job_id, entries, after, events)
            except StreamDamagedError:
                # If the job or its log was deleted meanwhile, this raises that error instead.
                (await self.extent(keys)).check_deleted(keys.job_id, after)
                raise
            previous = events[-1]
            count = next_page_entries(count, events[known:], PAGE_BYTES)
        return events

    async def payloads(self, keys: JobKeys, after: int, last: int, previous: bytes | None = None) -> list[bytes]:
        """Return the payloads of the visible events after a position up to another one, or of the first of them.

        Times and texts of them are decoded several times as fast as events. `previous` is the payload at the first
        position, if the caller has read it: it still has to be there. The errors of `read`.
        """
        entries = await self.source.range(keys, Place(after + 1), Place(last), MOST_PAYLOADS)
        if entries and entries[-1][0] == b"%d-0" % (after + len(entries)):
            # Fast path for almost every page: there are no facts in it.
            visible = [payload for _, payload in entries]
        else:
            visible = [payload for stream_id, payload in entries if stream_id.endswith(b"-0")]
        reached = Place.parse(entries[-1][0]).position if entries else after
        is_same = True
        if previous is not None:
            found = await self.source.range(keys, Place(after), Place(after), 1)
            is_same = len(found) == 1 and is_same_entry(found[0][1], previous)
        if len(visible) != reached - after or not visible or not is_same:
            extent = await self.extent(keys)
            extent.check_deleted(keys.job_id, after)
            # It says what is missing.
            await self.read(keys, after, extent, last - after)
            raise StreamDamagedError(keys.job_id, after + is_same, None)
        return visible

    async def has_open_end(self, keys: JobKeys, extent: Extent, until: int | None = None) -> bool:
        """Return whether the text up to a position, or all of it, ends without a newline. StreamDamagedError."""
        count, first = LAST_EVENTS, extent.deleted_to or 0
        until = extent.position if until is None else min(until, extent.position)
        while until > first and extent.bytes:
            after = max(until - count, first)
            for event in reversed(await self.read(keys, after, extent, until - after)):
                if event.type == "log" and event.data:
                    return not event.data.endswith("\n")
            until = after
            if count == LAST_EVENTS:
                # After the first milestone that counts all bytes, there is no text.
                index = await self.milestones(keys)
                until = min(until, next((entry.position for entry in index if entry.bytes >= extent.bytes), until))
            count = min(4 * count, PAGE_ENTRIES)
        return False

    async def head_and_ring(self, keys: JobKeys, user_id: str | None = None) -> tuple[Extent, Ring | None]:
        """Return how far the log goes, and its end so far if it has outgrown its budget and the job runs.

        JobNotFoundError, also for another user's job, ProjectionMissingError, ProjectionDamagedError.
        """
        extent = await self.extent(keys, user_id)
        if not extent.is_outgrown:
            return extent, None
        ring = await read_ring(self._nodes, keys)
        # If the job has ended meanwhile, its log has the ring's events.
        extent = await self.extent(keys, user_id)
        return extent, ring if extent.is_outgrown else None

    async def _page(
        self, keys: JobKeys, after: int, last: int, count: int, previous: JobEvent | None
    ) -> Sequence[StoredEntry]:
        """Return the entries after a position, of the history that has `previous` there."""
        entries = await self.source.range(keys, Place(after + 1), Place(last), count)
        if previous is not None:
            # Read last: if it is unchanged, the history was the same when the page was read.
            found = await self.source.range(keys, Place(after), Place(after), 1)
            if [decode_event(payload, after) for _, payload in found] != [previous]:
                raise StreamDamagedError(keys.job_id, after, None)
        if not entries:
            raise StreamDamagedError(keys.job_id, after + 1, None)
        return entries

    async def position_of_line(self, keys: JobKeys, line: int) -> int:
        """Return the position of the last event in the sparse index after which the line begins; 0 for none."""
        # The line before has to end after it: an entry may stand in the middle of a line.
        return (await self.milestone(keys, "lines", line - 2)).position

    async def milestone(self, keys: JobKeys, what: Literal["position", "lines", "bytes"], limit: int) -> Milestone:
        """Return the last entry of the sparse index with at most `limit` positions, lines or bytes before it."""
        entries = await self.milestones(keys)
        place = bisect_right(entries, limit, key=lambda entry: int(getattr(entry, what)))
        return entries[place - 1] if place else START

    async def milestones(self, keys: JobKeys) -> list[Milestone]:
        """Return all entries of the sparse index. ProjectionDamagedError."""
        texts = await self.source.milestones(keys)
        try:
            found = [[int(number) for number in text.split(" ")] for text in texts]
            return [Milestone(position, lines, size, time) for position, lines, size, time in found]
        except (ValueError, TypeError) as error:
            raise ProjectionDamagedError(keys.job_id, f"its sparse index can't be read: {error}") from error


def next_page_entries(count: int, page: Sequence[JobEvent], page_bytes: int) -> int:
    """Return how many entries the page after one of `count` may have, by the size of its events. Pure."""
    return next_count(count, len(page), sum(len(event.data or "") for event in page), page_bytes, PAGE_ENTRIES)


def _take_visible(job_id: str, entries: Sequence[StoredEntry], cursor: int, events: list[JobEvent]) -> int:
    """Append the entries' visible events to `events`, and return the position of the last one."""
    for stream_id, payload in entries:
        if stream_id.endswith(b"-0"):
            cursor += 1
            if stream_id != b"%d-0" % cursor:
                raise StreamDamagedError(job_id, cursor, Place.parse(stream_id).position)
            events.append(decode_event(payload, cursor, job_id))
    return cursor
