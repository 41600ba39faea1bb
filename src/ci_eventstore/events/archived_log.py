"""Bytes of segments that lie in the store's archive, whose URL the store itself has.

What one reader waits for, others wait for with it: each range is fetched once. `SealedLogs` keeps what was fetched.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, NamedTuple, TypeVar

from ci_eventstore.archive import Archive, object_name
from ci_eventstore.connection.nodes import Nodes
from ci_eventstore.connection.replies import WRONG_TYPE, as_text
from ci_eventstore.errors import ArchiveUnavailableError, ConfigurationError
from ci_eventstore.keys import JobKeys, Keys

T = TypeVar("T")


class Range(NamedTuple):
    """Some bytes of a segment."""

    keys: JobKeys
    segment: str
    start: int
    end: int


class ArchivedLogs:
    """Reads archived segments of one store; ArchiveUnavailableError, StoreUnavailableError."""

    def __init__(self, nodes: Nodes) -> None:
        self._nodes = nodes
        self._archive: Archive | None = None
        self._at_work: dict[object, asyncio.Task[Any]] = {}

    async def once(self, what: object, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Do some work, or wait for it if it is done for somebody else; it has to keep its result where all look."""
        task: asyncio.Task[T] | None = self._at_work.get(what)
        if task is None:
            task = self._at_work[what] = asyncio.create_task(work())
            task.add_done_callback(lambda ended: self._note_end(what, ended))
        # Others may wait for it, too, when one of them is cancelled.
        return await asyncio.shield(task)

    def _note_end(self, what: object, task: "asyncio.Task[Any]") -> None:
        del self._at_work[what]
        if not task.cancelled():
            # Seen also if nobody waits any more.
            task.exception()

    async def fetch(self, wanted: Range) -> bytes:
        """Return some bytes of a segment; fewer, if they aren't there."""
        try:
            archive, name = await self._find(wanted.keys, wanted.segment)
            return await archive.get_range(name, wanted.start, wanted.end)
        except ArchiveUnavailableError:
            # The store may say another one by now.
            self._archive = None
            raise

    async def place_of(self, keys: JobKeys, segment: str) -> str:
        """Return which object of which archive a segment is."""
        archive, name = await self._find(keys, segment)
        return f"object {name} in the archive at {archive.url}"

    async def _find(self, keys: JobKeys, segment: str) -> tuple[Archive, str]:
        prefix, _, partition = keys.tag.strip("{}").partition(":")
        [incarnation] = await self._nodes.read_many([("HGET", keys.hash, "incarnation")])
        said = None if incarnation is None or incarnation is WRONG_TYPE else as_text(incarnation)
        self._archive = self._archive or await self._open(Keys(prefix).store)
        return self._archive, object_name(prefix, int(partition), keys.job_id, said, segment)

    async def _open(self, store: str) -> Archive:
        [url] = await self._nodes.read("HMGET", store, "archive")
        if url is None:
            raise ArchiveUnavailableError("", "a log lies there, and the store doesn't say where it is")
        try:
            return Archive(as_text(url))
        except ConfigurationError as error:
            raise ArchiveUnavailableError("", str(error)) from error
