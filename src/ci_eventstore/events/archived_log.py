"""The store's archive, whose URL the store itself has, and bytes of segments that lie there.

What one reader waits for, others wait for with it: each range is fetched once. `SealedLogs` keeps what was fetched.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, NamedTuple, TypeVar

from ci_eventstore.archive import OWNER, Archive, object_name, safe_name
from ci_eventstore.connection.nodes import Nodes
from ci_eventstore.connection.replies import WRONG_TYPE, as_text
from ci_eventstore.errors import ArchiveDiffersError, ArchiveUnavailableError, ConfigurationError
from ci_eventstore.keys import JobKeys, Keys

T = TypeVar("T")


class Range(NamedTuple):
    """Some bytes of a segment."""

    keys: JobKeys
    segment: str
    start: int
    end: int


class ArchivedLogs:
    """Finds the archive of one store, and reads its segments; ArchiveUnavailableError, StoreUnavailableError."""

    def __init__(self, nodes: Nodes) -> None:
        self._nodes = nodes
        self._archive: Archive | None = None
        self._at_work: dict[object, asyncio.Task[Any]] = {}

    async def archive(self, tag: str) -> Archive | None:
        """Return the archive of the store that a partition is of; None if it has none."""
        [url] = await self._nodes.read("HMGET", Keys(_store_of(tag)).store, "archive")
        if url is None:
            return None
        if self._archive is None or self._archive.url != as_text(url):
            try:
                self._archive = Archive(as_text(url))
            except ConfigurationError as error:
                raise ArchiveUnavailableError("", str(error)) from error
        return self._archive

    async def remember(self, keys: Keys, url: str, *, takes_over: bool = False) -> Archive:
        """Have the store keep an archive's URL; ConfigurationError if it has another one, or that can't be used.

        Another store of its name has what the archive has of that name, unless this one takes it over.
        """
        archive = Archive(url)
        known = await self._nodes.read("HGET", keys.store, "archive")
        if known is None:
            await archive.prepare()
            await self.own(keys, archive, takes_over=takes_over)
            await self._nodes.read("HSETNX", keys.store, "archive", archive.url)
            known = await self._nodes.read("HGET", keys.store, "archive")
        if as_text(known) != archive.url:
            raise ConfigurationError(f"the store's archive is {as_text(known)}, and stays there: {url} is another one")
        await archive.check()
        await self.own(keys, archive, takes_over=takes_over)
        return archive

    async def own(self, keys: Keys, archive: Archive, *, takes_over: bool = False) -> None:
        """Have an archive say that what it has of the store's name is this store's; ConfigurationError if it isn't.

        The first one that comes has it. ArchiveUnavailableError, StoreUnavailableError.
        """
        if await self.is_own(keys, archive):
            return
        name, mine = _owner_name(keys), await self._identity(keys)
        if takes_over:
            await archive.delete(name)
        try:
            await archive.put(name, mine)
        except ArchiveDiffersError:
            raise ConfigurationError(
                f"the archive at {archive.url} has logs of another store named {keys.prefix!r}: use another folder. If "
                f"this is that store, begun anew, `ci-eventstore archive rebuild --archive {archive.url}` takes it over"
            ) from None

    async def is_own(self, keys: Keys, archive: Archive) -> bool | None:
        """Whether an archive says that what it has of the store's name is this store's; None if it says nothing yet."""
        found = await archive.get(_owner_name(keys))
        return None if found is None else found == await self._identity(keys)

    async def _identity(self, keys: Keys) -> bytes:
        """Return what no other store has, and what stays after restores: the store's first incarnation."""
        found = await self._nodes.read("HMGET", keys.store, "origin", "incarnation")
        return next((bytes(one) for one in found if one is not None), b"-") + b"\n"

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
        [incarnation] = await self._nodes.read_many([("HGET", keys.hash, "incarnation")])
        said = None if incarnation is None or incarnation is WRONG_TYPE else as_text(incarnation)
        archive = self._archive or await self.archive(keys.tag)
        if archive is None:
            raise ArchiveUnavailableError("", "a log lies there, and the store doesn't say where it is")
        return archive, name_in_archive(keys, said, segment)


def _owner_name(keys: Keys) -> str:
    return f"{safe_name(keys.prefix)}/{OWNER}"


def name_in_archive(keys: JobKeys, incarnation: str | None, what: str) -> str:
    """Return the name of an object that is a job's: of a segment, or of the tombstone. Pure."""
    partition = int(keys.tag.strip("{}").partition(":")[2])
    return object_name(_store_of(keys.tag), partition, keys.job_id, incarnation, what)


def _store_of(tag: str) -> str:
    return tag.strip("{}").partition(":")[0]
