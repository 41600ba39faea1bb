"""Read jobs' logs for their followers: new entries for a job's feed, and pages that slow followers share."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from functools import partial

from ci_common.errors import RepositoryError
from ci_eventstore.errors import StoreError, StreamDamagedError
from ci_eventstore.events.codec import is_same_entry
from ci_eventstore.events.log_source import LogSource, at_places
from ci_eventstore.events.reader import EventReader
from ci_eventstore.events.records import Place
from ci_eventstore.following.feed import Feed
from ci_eventstore.following.incarnation import Incarnation, StoreIncarnation
from ci_eventstore.following.records import Page, in_order, page_of
from ci_eventstore.keys import JobKeys

logger = logging.getLogger("ci_eventstore.following")

PAGE_ENTRIES = 200


class JobReader:
    """Reads a job's log for its feed, one read at a time; a read that was begun is never cancelled.

    Each read begins with the entry at the feed's head, and so finds out whether the store still has that one there.
    """

    def __init__(
        self,
        feed: Feed,
        reader: EventReader,
        store_incarnation: StoreIncarnation,
        on_news: Callable[[Feed], None],
        on_loss: Callable[[Feed], Awaitable[Incarnation]],
    ) -> None:
        self._feed = feed
        self._reader = reader
        self._store_incarnation = store_incarnation
        self._on_news = on_news
        #: Is awaited before the feed begins again because the store has another history; returns its incarnation.
        self._on_loss = on_loss
        self._task: asyncio.Task[None] | None = None
        self._is_asked = False

    def start(self) -> None:
        """Compare the feed's head with the stream, and read what comes after it."""
        self._is_asked = True
        if self._task is None:
            self._task = asyncio.create_task(self._read_all())

    async def compare(self) -> None:
        """Do as `start` does, and return when it is done; cancelling the caller doesn't stop the read."""
        self.start()
        if self._task is not None:
            await asyncio.wait({self._task})

    async def _read_all(self) -> None:
        try:
            while self._is_asked and self._feed.failure is None:
                self._is_asked = False
                await self._read()
        except RepositoryError as error:
            self._feed.fail(error)
        except Exception as error:
            logger.exception("a job can't be followed", extra={"job_id": self._feed.keys.job_id})
            self._feed.fail(StoreError(f"job {self._feed.keys.job_id!r} can't be followed: {error!r}"))
        finally:
            self._task = None

    async def _read(self) -> None:
        feed = self._feed
        if not feed.is_ready:
            feed.begin(*await self._last())
            return
        head, payload, store = feed.head, feed.last_payload, self._store_incarnation.known
        entries = await self._range(head, PAGE_ENTRIES + 1)
        self._is_asked = self._is_asked or len(entries) > PAGE_ENTRIES
        if not entries or entries[0][0] != head or not is_same_entry(entries[0][1], payload):
            await self._begin_again(head)
            return
        if feed.incarnation.store != store:
            feed.incarnation = feed.incarnation._replace(store=store)
        # Messages may have brought some of them meanwhile.
        if feed.head <= entries[-1][0] and not self._extend(entries):
            self._is_asked = True
        feed.behind_since = None

    def _extend(self, entries: list[tuple[Place, bytes]]) -> bool:
        """Give the feed those entries that come after its head; False: they have another one in its place."""
        feed = self._feed
        for count, entry in enumerate(entries, 1):
            if entry[0] == feed.head:
                if not is_same_entry(entry[1], feed.last_payload):
                    return False
                if later := entries[count:]:
                    feed.extend(later)
                    self._on_news(feed)
                return True
        return False

    async def _begin_again(self, head: Place) -> None:
        """Find out why the entry at the head isn't what it was: the stream's beginning is gone, or its history."""
        first = await self._range(Place(0), PAGE_ENTRIES)
        if not first or first[0][0] <= head:
            incarnation = await self._on_loss(self._feed)
            last = await self._last()
            self._feed.incarnation = incarnation
            self._feed.reset(*last)
            return
        self._is_asked = True
        if self._feed.head == head:
            self._feed.extend(first)
            self._on_news(self._feed)

    async def _last(self) -> tuple[Place, bytes]:
        """Return the last entry's place and payload; JobNotFoundError, ProjectionMissingError, StreamDamagedError."""
        keys = self._feed.keys
        for entry in at_places(await self._reader.source.last(keys, together=True)):
            return entry
        await self._reader.extent(keys)
        raise StreamDamagedError(keys.job_id, 1, None)

    async def _range(self, first: Place, limit: int) -> list[tuple[Place, bytes]]:
        return at_places(await self._reader.source.range(self._feed.keys, first, limit=limit, together=True))


#: Roughly the size of a shared page; every slow follower holds one.
SHARED_PAGE_BYTES = 256 * 1024
SHARED_PAGE_ENTRIES = 500
#: A page is kept this long for other followers that come to its place.
KEPT_SECONDS = 2.0
KEPT_PAGES = 64

#: Job, its history, the generation of its feed, place: feeds of another job of the same id begin at generation 0, too.
_Key = tuple[JobKeys, Incarnation, int, Place]


class Pages:
    """The pages of all jobs, each read once for all followers that ask at about the same time.

    A page is never wrong for being old: later entries come after it, and a follower compares each page's beginning with
    the end of the one before.
    """

    def __init__(self, source: LogSource) -> None:
        self._source = source
        self._pages: dict[_Key, asyncio.Task[Page | None]] = {}

    async def read(self, feed: Feed, place: Place) -> Page | None:
        """Return the entries after a place, None if there are none. Cancelling a caller doesn't disturb the others.

        Pages end at common positions, so that those who begin at different ones soon share them.
        """
        key = feed.keys, feed.incarnation, feed.generation, place
        reading = self._pages.get(key)
        if reading is None:
            reading = self._pages[key] = asyncio.create_task(
                self._fetch(feed.keys, place, feed.extent.page_entries(SHARED_PAGE_BYTES, SHARED_PAGE_ENTRIES, least=1))
            )
            reading.add_done_callback(partial(self._keep, key))
        return await asyncio.shield(reading)

    def forget(self, keys: JobKeys) -> None:
        """Forget a job's pages: it has another history now."""
        for key in [key for key in self._pages if key[0] == keys]:
            del self._pages[key]

    async def _fetch(self, keys: JobKeys, place: Place, count: int) -> Page | None:
        last = (place.position // count + 1) * count
        for until, limit in ((Place.last_at(last), 2 * count + 1), (None, 2)):
            payloads = at_places(await self._source.range(keys, place, until, limit, together=True))
            before = payloads.pop(0)[1] if payloads and payloads[0][0] == place else None
            if payloads:
                page = page_of(in_order(payloads, place.position, keys.job_id), *payloads[-1])
                page.before = before
                page.is_cut = before is None and place > (0, 0) and await self._is_cut(keys, place)
                return page
        return None

    async def _is_cut(self, keys: JobKeys, place: Place) -> bool:
        """Tell whether the log begins after a place."""
        first = at_places(await self._source.range(keys, Place(0), limit=1, together=True))
        return bool(first) and first[0][0] > place

    def _keep(self, key: _Key, reading: asyncio.Task[Page | None]) -> None:
        if self._pages.get(key) is not reading:
            return
        if reading.cancelled() or reading.exception() or reading.result() is None or len(self._pages) > KEPT_PAGES:
            del self._pages[key]
        else:
            asyncio.get_running_loop().call_later(KEPT_SECONDS, self._drop, key, reading)

    def _drop(self, key: _Key, reading: asyncio.Task[Page | None]) -> None:
        if self._pages.get(key) is reading:
            del self._pages[key]
