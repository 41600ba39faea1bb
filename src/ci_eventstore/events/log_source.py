"""Whether there is a job, and where its log is read: the one way to its entries, for everyone who reads them.

They are in the job's stream, or, once it was sealed, in segments and then in its stream. An entry is found by its
place, and whoever asks for places doesn't know what holds them. `lua/existence.lua` says in scripts whether there is a
job.

The stream is read first, then the record, which says what lies in segments. A script that drops a stream has the record
refer to what it had, so what the first read lacks the second one has, whatever happens between them.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from enum import StrEnum
from typing import TypeVar

from ci_common.errors import JobGoneError, JobNotFoundError
from ci_eventstore.connection.nodes import Nodes
from ci_eventstore.connection.replies import WRONG_TYPE, Reply, as_entries, as_texts
from ci_eventstore.errors import ProjectionMissingError, SegmentDamagedError
from ci_eventstore.events.records import Place
from ci_eventstore.events.sealed_log import Reference, SealedLogs, StoredEntry, references_in
from ci_eventstore.keys import JobKeys, gone_key

PAGE_ENTRIES = 1000
#: A segment is damaged if it is so this many times, with the same record each time: between two looks it may have been
#: moved to the archive and back.
TRIES = 3
#: How many of the first page, whose entries may be of any size, and about how many bytes each further one may have.
FIRST_ENTRIES = 100
PAGE_BYTES = 8 * 1024 * 1024
#: Where each log begins.
BEGINNING = Place(0, 1)

#: A command, to be sent with others.
Command = tuple[str | int, ...]


T = TypeVar("T")


class LogSource:
    """The logs of a store's jobs, as entries at places.

    `together` sends a read with those that others ask for at the same time: for small ones, which many ask for. The
    others have a connection of their own meanwhile. StoreUnavailableError, SegmentDamagedError, ProjectionDamagedError.
    """

    def __init__(self, nodes: Nodes) -> None:
        self._nodes = nodes
        self.sealed = SealedLogs(nodes)

    async def range(
        self,
        keys: JobKeys,
        first: Place,
        until: Place | None = None,
        limit: int = PAGE_ENTRIES,
        *,
        together: bool = False,
    ) -> list[StoredEntry]:
        """Return the entries from one place to another, both included, or to the end: the first `limit` of them."""
        read = self._nodes.read_together if together else self._nodes.read
        entries = entries_in(await read(*range_command(keys, first, until, limit)))
        if entries and (entries[0][0] == b"%d-%d" % first or (first <= BEGINNING and entries[0][0] == b"0-1")):
            # As for every log that wasn't sealed: nothing can come before it.
            return entries
        begin = Place.parse(entries[0][0]) if entries else None

        async def earlier(references: Sequence[Reference]) -> list[StoredEntry]:
            found = await self.sealed.range(keys, references, first, until, limit)
            return [entry for entry in found if begin is None or Place.parse(entry[0]) < begin]

        return [*(await self.of_sealed(keys, earlier) or ()), *entries][:limit]

    async def last(self, keys: JobKeys, limit: int = 1, *, together: bool = False) -> list[StoredEntry]:
        """Return the last entries, the newest first."""
        read = self._nodes.read_together if together else self._nodes.read
        entries = entries_in(await read(*last_command(keys, limit)))
        if len(entries) == limit or (entries and entries[-1][0] == b"0-1"):
            return entries
        begin = Place.parse(entries[-1][0]) if entries else None

        async def earlier(references: Sequence[Reference]) -> list[StoredEntry]:
            found = await self.sealed.last(keys, references, limit + len(entries))
            return [entry for entry in found if begin is None or Place.parse(entry[0]) < begin]

        return [*entries, *(await self.of_sealed(keys, earlier) or ())][:limit]

    async def milestones(self, keys: JobKeys) -> list[str]:
        """Return the entries of the log's sparse index, "position lines bytes time"."""
        entries = as_texts(await self._nodes.read("LRANGE", keys.log_index, 0, -1))

        async def earlier(references: Sequence[Reference]) -> list[str]:
            return await self.sealed.milestones(keys, references)

        # The list goes with the stream: what it lacks, segments have by now, and perhaps more of what it has.
        found = await self.of_sealed(keys, earlier) or []
        known = set(found)
        return [*found, *(entry for entry in entries if entry not in known)]

    async def state(self, keys: JobKeys) -> bytes | None:
        """Return the state at the end of the log's last segment, packed; None if it has none."""

        async def last(references: Sequence[Reference]) -> bytes:
            return await self.sealed.state(keys, references)

        return await self.of_sealed(keys, last)

    async def of_sealed(self, keys: JobKeys, read: Callable[[Sequence[Reference]], Awaitable[T]]) -> T | None:
        """Return what is read of the segments that a job's record refers to; None if it has none.

        Segments may be joined while they are read: then the record says so, and they are read again.
        """
        failed_with, tries_left = None, TRIES
        while True:
            [log] = await self._nodes.read_many([("HGET", keys.hash, "log")])
            if log is None or log is WRONG_TYPE:
                return None
            if log != failed_with:
                tries_left = TRIES
            try:
                return await read(references_in(keys.job_id, log))
            except SegmentDamagedError:
                failed_with, tries_left = log, tries_left - 1
                if not tries_left:
                    raise

    async def pages(self, keys: JobKeys, after: Place, until: Place) -> AsyncIterator[list[tuple[Place, bytes]]]:
        """Yield everything after one place up to another, a page at a time, of some mebibytes if entries are large."""
        count = FIRST_ENTRIES
        while True:
            page = at_places(await self.range(keys, after.next, until, count))
            if page:
                yield page
                after = page[-1][0]
            if len(page) < count:
                return
            count = next_count(count, len(page), sum(len(payload) for _, payload in page), PAGE_BYTES, PAGE_ENTRIES)


def next_count(count: int, events: int, size: int, page_bytes: int, most: int) -> int:
    """Return how many entries the page after one of `count` may have, of which so many events had that size. Pure.

    The log's average isn't enough: a few big events would make all pages of small ones too small.
    """
    return max(10, min(most, 4 * count, page_bytes * events // max(size, 1)))


def range_command(keys: JobKeys, first: Place, until: Place | None, limit: int) -> Command:
    """Return the command that reads what `LogSource.range` does, to be sent in a transaction with others."""
    return "XRANGE", keys.stream, str(first), "+" if until is None else str(until), "COUNT", limit


def last_command(keys: JobKeys, limit: int = 1) -> Command:
    """Return the command that reads what `LogSource.last` does, to be sent in a transaction with others."""
    return "XREVRANGE", keys.stream, "+", "-", "COUNT", limit


def entries_in(reply: Reply) -> list[StoredEntry]:
    """Return what such a command has read."""
    return [(stream_id, fields[1]) for stream_id, fields in as_entries(reply)]


def at_places(entries: Iterable[StoredEntry]) -> list[tuple[Place, bytes]]:
    """Return entries with their places read."""
    return [(Place.parse(stream_id), payload) for stream_id, payload in entries]


class Standing(StrEnum):
    """How an id stands in the store."""

    #: There is such a job: it has a record. The record's field `log` says what of its log was sealed.
    THERE = "there"
    #: It was deleted: there is a tombstone, and no record.
    GONE = "gone"
    #: It has a log and no record: `rebuild` makes that. Until then nothing is written, and no job is created anew.
    UNPROJECTED = "unprojected"
    #: There is nothing of it.
    MISSING = "missing"

    @classmethod
    def of(cls, *, has_record: bool, has_log: bool, was_deleted: bool) -> "Standing":
        """Return the standing of an id from the keys that it has."""
        if has_record:
            return cls.THERE
        if was_deleted:
            return cls.GONE
        return cls.UNPROJECTED if has_log else cls.MISSING


async def read_standing(nodes: Nodes, keys: JobKeys) -> Standing:
    """Return how an id stands; StoreUnavailableError."""
    # In this order, a job that is created or deleted meanwhile is never unprojected or missing.
    tombstone = ("HEXISTS", gone_key(keys.tag), keys.job_id)
    has_log, has_record, was_deleted = await nodes.read_many(
        [("EXISTS", keys.stream), ("EXISTS", keys.hash), tombstone]
    )
    return Standing.of(has_record=bool(has_record), has_log=bool(has_log), was_deleted=was_deleted == 1)


async def check_standing(nodes: Nodes, keys: JobKeys) -> None:
    """Refuse an id whose job isn't there: JobNotFoundError, JobGoneError, ProjectionMissingError."""
    standing = await read_standing(nodes, keys)
    if standing is Standing.GONE:
        raise JobGoneError(keys.job_id)
    if standing is Standing.UNPROJECTED:
        raise ProjectionMissingError(keys.job_id)
    if standing is Standing.MISSING:
        raise JobNotFoundError(keys.job_id)
