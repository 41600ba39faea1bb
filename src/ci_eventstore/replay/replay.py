"""Read a job's records again, from one point of its history to another, and fold them up to one.

A point is a position or a time. Events don't always have rising times: clocks jump, and writers bring times of their
own. So a time means a place by one rule: what comes before the first record that is later.
"""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime, timedelta

from ci_common.errors import InvalidArgumentError, LogDeletedError
from ci_common.models import JobEvent, as_utc
from ci_common.validation import check_position, check_time, is_number
from ci_eventstore.errors import StoreFormatError, StreamDamagedError
from ci_eventstore.events.codec import decode, is_same_entry
from ci_eventstore.events.log_source import BEGINNING, PAGE_BYTES, at_places
from ci_eventstore.events.reader import EventReader, Extent, next_page_entries
from ci_eventstore.events.records import Fact, FactType, Place, Record
from ci_eventstore.events.sealed_log import Reference
from ci_eventstore.jobs.evolve import evolve_all
from ci_eventstore.jobs.state import JobState, from_packed
from ci_eventstore.keys import JobKeys

#: A point of a job's history.
Point = int | datetime
Placed = tuple[Place, Record]
#: A longer silence is replayed as one of this length.
LONGEST_GAP_SECONDS = 60.0
_NO_TIME = timedelta(0)


def time_of(record: Record) -> datetime | None:
    """Return the time of a record, in UTC; a naive time counts as UTC.

    A creation came about when the job says that it was created: one that is brought from elsewhere has older events.
    """
    if isinstance(record, Fact):
        created = record.fields.get("created_at")
        return as_utc(created if record.type is FactType.CREATED and isinstance(created, datetime) else record.time)
    return None if record.timestamp is None else as_utc(record.timestamp)


def gap_between(before: datetime | None, after: datetime | None, longest_seconds: float | None = None) -> timedelta:
    """Return the silence between two records in a replay at the original pace, in seconds. Pure.

    Nothing if the second one isn't later, as after a clock has jumped back: the replay goes on at once, and at its pace
    from there. A gap may be limited.
    """
    if before is None or after is None:
        return _NO_TIME
    gap = max(as_utc(after) - as_utc(before), _NO_TIME)
    if longest_seconds is None or gap.total_seconds() <= longest_seconds:
        return gap
    return timedelta(seconds=longest_seconds)


@dataclass(frozen=True, slots=True)
class Pace:
    """The pace of a replay: `speed` times the original, or at once for None and for infinity."""

    speed: float | None = None
    longest_gap_seconds: float | None = LONGEST_GAP_SECONDS

    def __post_init__(self) -> None:
        """Refuse a speed that is no pace; InvalidArgumentError."""
        speed, longest = self.speed, self.longest_gap_seconds
        if speed is not None and not (is_number(speed, 0) and speed > 0):
            raise InvalidArgumentError("speed", speed, "a number above 0, or None for at once")
        if longest is not None and not is_number(longest, 0):
            raise InvalidArgumentError("longest_gap_seconds", longest, "a number of seconds from 0 on, or None")

    def seconds_between(self, before: datetime | None, after: datetime | None) -> float:
        """Return the pause between two records, in seconds."""
        if self.speed is None:
            return 0.0
        return gap_between(before, after, self.longest_gap_seconds).total_seconds() / self.speed


def check_point(what: str, point: Point | None) -> Point | None:
    """Return a point; InvalidPositionError, InvalidTimeError, InvalidArgumentError."""
    if isinstance(point, datetime):
        check_time(what, point)
        return as_utc(point)
    if point is not None and not isinstance(point, int):
        raise InvalidArgumentError(what, point, "a position or a time")
    return None if point is None else check_position(point)


@dataclass(frozen=True, slots=True)
class History:
    """A job's history as its log has it, up to the last record at the time this is made.

    Of a running job whose log has outgrown its budget, that is the beginning of the log.
    """

    reader: EventReader
    keys: JobKeys
    extent: Extent

    @classmethod
    async def of(cls, reader: EventReader, keys: JobKeys, user_id: str | None = None) -> "History":
        """Return a job's history; JobNotFoundError, also for another user's job."""
        return cls(reader, keys, await reader.extent(keys, user_id))

    @property
    def end(self) -> Place:
        """The place of the last record."""
        return Place(self.extent.position, self.extent.part)

    async def records(self, since: Point | None = None, until: Point | None = None) -> AsyncGenerator[Placed, None]:
        """Yield the records from one point to another, both included.

        `until` a position includes the facts between its event and the next one. StreamDamagedError if the log doesn't
        reach `since`, a record isn't there, or the log becomes another one meanwhile; JobGoneError if the job goes,
        LogDeletedError.
        """
        await self._check_deleted(since - 1 if isinstance(since, int) and since else since)
        if isinstance(since, int) and since > self.extent.position + 1:
            raise StreamDamagedError(self.keys.job_id, since, None)
        first = Place(since) if isinstance(since, int) and since else BEGINNING
        end = min(self.end, Place.last_at(until)) if isinstance(until, int) else self.end
        is_due = not isinstance(since, datetime)
        async with aclosing(self._pages(first, end)) as pages:
            async for page in pages:
                for placed in page:
                    time = time_of(placed[1])
                    if isinstance(until, datetime) and time is not None and time > until:
                        return
                    is_due = is_due or (isinstance(since, datetime) and time is not None and time >= since)
                    if is_due:
                        yield placed

    async def state(self, until: Point) -> JobState | None:
        """Return the job's state after the records up to a point; None if it was created later.

        StreamDamagedError if the log doesn't reach that position, LogDeletedError.
        """
        await self._check_deleted(until)
        if isinstance(until, int) and until > self.extent.position:
            raise StreamDamagedError(self.keys.job_id, until, None)
        state = None if isinstance(until, datetime) else await self._checkpoint(until)
        first = BEGINNING if state is None else Place(state.position, state.part).next
        async with aclosing(self._pages_until(first, until)) as pages:
            async for records in pages:
                try:
                    state = evolve_all(state, records)
                except (ValueError, TypeError, KeyError) as error:
                    raise StoreFormatError(f"job {self.keys.job_id!r}: its records make no sense: {error}") from error
        return state

    async def _pages_until(self, first: Place, until: Point) -> AsyncGenerator[list[Record], None]:
        end = min(self.end, Place.last_at(until)) if isinstance(until, int) else self.end
        async with aclosing(self._pages(first, end)) as pages:
            async for page in pages:
                records = [record for _, record in page]
                if isinstance(until, datetime):
                    late = (n for n, record in enumerate(records) if (time_of(record) or until) > until)
                    records = records[: next(late, len(records))]
                if records:
                    yield records
                if len(records) < len(page):
                    return

    async def _check_deleted(self, point: Point | None) -> None:
        """Refuse a history of which something was deleted that comes after a point; LogDeletedError."""
        deleted = self.extent.deleted_to
        if deleted is None:
            return
        if isinstance(point, datetime):
            found = at_places(await self.reader.source.range(self.keys, BEGINNING, limit=1))
            deletion = [time_of(decode(payload, 0, self.keys.job_id)) for _, payload in found]
            if any(time is not None and point < time for time in deletion):
                raise LogDeletedError(self.keys.job_id, deleted)
        else:
            self.extent.check_deleted(self.keys.job_id, point or 0)

    async def _checkpoint(self, until: int) -> JobState | None:
        """Return the state at the end of the last segment that ends by a position; None if none does."""
        keys = self.keys

        async def last(references: Sequence[Reference]) -> JobState | None:
            earlier = [reference for reference in references if reference.last <= Place.last_at(until)]
            if not earlier or earlier[-1].last > self.end:
                return None
            return from_packed(keys.job_id, await self.reader.source.sealed.state(keys, earlier))

        return await self.reader.source.of_sealed(keys, last)

    async def _pages(self, first: Place, end: Place) -> AsyncGenerator[list[Placed], None]:
        """Yield all records from one place to another; each page is read with the entry before it, which must stay."""
        reached: tuple[Place, bytes] | None = None
        before = Place(first.position, first.part - 1) if first.part else Place(first.position - 1)
        count = self.extent.page_entries()
        while before < end and first <= end:
            start = first if reached is None else reached[0]
            found = at_places(await self.reader.source.range(self.keys, start, end, count + (reached is not None)))
            if reached is not None:
                if not found or found[0][0] != reached[0] or not is_same_entry(found[0][1], reached[1]):
                    await self._raise_damage(before.position, found)
                del found[0]
            if not found:
                if before.position < end.position or end == self.end:
                    await self._raise_damage(before.position + 1, found)
                return
            page = list[Placed]()
            for place, payload in found:
                record = decode(payload, place.position, self.keys.job_id)
                is_next = place in (before.next, Place(before.position + 1))
                if not (is_next or (reached is None and record.type == FactType.LOG_DELETED)):
                    await self._raise_damage(before.position + 1, [(place, payload)])
                page.append((place, record))
                before = place
            reached = found[-1]
            yield page
            events = [record for _, record in page if isinstance(record, JobEvent)]
            count = next_page_entries(count, events, PAGE_BYTES) if events else count

    async def _raise_damage(self, expected: int, found: Sequence[tuple[Place, bytes]]) -> None:
        """Raise the error for a record that isn't where it was expected, or for a job or a log that has gone."""
        extent = await self.reader.extent(self.keys)
        if extent.deleted_to is not None and extent.deleted_to != self.extent.deleted_to:
            raise LogDeletedError(self.keys.job_id, extent.deleted_to)
        raise StreamDamagedError(self.keys.job_id, expected, found[0][0].position if found else None)


async def replay(
    history: History, pace: Pace, since: Point | None, until: Point | None, *, facts: bool
) -> AsyncGenerator[Record, None]:
    """Yield a history's events from one point to another as `pace` has it, with the facts between them if asked to.

    Records are due as counted from the first one, by the monotonic clock: a reader that was slow for a while is given
    at once what has become due meanwhile.
    """
    before, due, now = None, None, asyncio.get_running_loop().time
    async with aclosing(history.records(since, until)) as records:
        async for _, record in records:
            if isinstance(record, Fact) and not facts:
                continue
            time = time_of(record)
            wait = pace.seconds_between(before, time)
            due = now() if due is None else due + wait
            if wait and due > now():
                await asyncio.sleep(due - now())
            before = time
            yield record
