"""Whether there is a job, and where its log is read: the one way to its entries, for everyone who reads them.

Today they all are in the job's stream. An entry is found by its place, and whoever asks for places doesn't know what
holds them. `lua/existence.lua` says in scripts whether there is a job.
"""

from collections.abc import AsyncIterator, Iterable
from enum import StrEnum

from ci_common.errors import JobNotFoundError
from ci_eventstore.connection.nodes import Nodes
from ci_eventstore.connection.replies import Reply, as_entries
from ci_eventstore.errors import ProjectionMissingError
from ci_eventstore.events.records import Place
from ci_eventstore.keys import JobKeys

PAGE_ENTRIES = 1000

#: The stream id of an entry, which is its place as text, and its payload.
StoredEntry = tuple[bytes, bytes]
#: A command, to be sent with others.
Command = tuple[str | int, ...]


class LogSource:
    """The logs of a store's jobs, as entries at places.

    `together` sends a read with those that others ask for at the same time: for small ones, which many ask for. The
    others have a connection of their own meanwhile. StoreUnavailableError.
    """

    def __init__(self, nodes: Nodes) -> None:
        self._nodes = nodes

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
        return entries_in(await read(*range_command(keys, first, until, limit)))

    async def last(self, keys: JobKeys, limit: int = 1, *, together: bool = False) -> list[StoredEntry]:
        """Return the last entries, the newest first."""
        read = self._nodes.read_together if together else self._nodes.read
        return entries_in(await read(*last_command(keys, limit)))

    async def pages(self, keys: JobKeys, after: Place, until: Place) -> AsyncIterator[list[tuple[Place, bytes]]]:
        """Yield everything after one place up to another, a page at a time."""
        while True:
            page = at_places(await self.range(keys, after.next, until))
            if page:
                yield page
                after = page[-1][0]
            if len(page) < PAGE_ENTRIES:
                return


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

    #: There is such a job: it has a record. The record's field `log` is reserved for where its log lies.
    THERE = "there"
    #: It has a log and no record: `rebuild` makes that. Until then nothing is written, and no job is created anew.
    UNPROJECTED = "unprojected"
    #: There is nothing of it.
    MISSING = "missing"

    @classmethod
    def of(cls, *, has_record: bool, has_log: bool) -> "Standing":
        """Return the standing of an id by what there is of it."""
        if has_record:
            return cls.THERE
        return cls.UNPROJECTED if has_log else cls.MISSING


async def read_standing(nodes: Nodes, keys: JobKeys) -> Standing:
    """Return how an id stands; StoreUnavailableError."""
    # In this order, a job that is created between the two is never unprojected.
    has_log, has_record = await nodes.read_many([("EXISTS", keys.stream), ("EXISTS", keys.hash)])
    return Standing.of(has_record=bool(has_record), has_log=bool(has_log))


async def check_standing(nodes: Nodes, keys: JobKeys) -> None:
    """Refuse an id whose job isn't there: JobNotFoundError, ProjectionMissingError."""
    standing = await read_standing(nodes, keys)
    if standing is Standing.UNPROJECTED:
        raise ProjectionMissingError(keys.job_id)
    if standing is Standing.MISSING:
        raise JobNotFoundError(keys.job_id)
