"""Read a log after a place, once for all who ask at about the same time."""

import asyncio
from functools import partial

from ci_eventstore.events.log_source import LogSource, at_places
from ci_eventstore.events.records import Place
from ci_eventstore.following.feed import Feed
from ci_eventstore.following.records import Page, in_order, page_of
from ci_eventstore.keys import JobKeys

#: The most of a page, roughly: every slow follower holds one.
PAGE_BYTES = 256 * 1024
PAGE_ENTRIES = 500
#: How long a page is kept for others who come to the same place.
KEPT_SECONDS = 2.0
KEPT_PAGES = 64

#: Job, generation of its feed, place.
_Key = tuple[JobKeys, int, Place]


class Pages:
    """The pages of all jobs that are being read.

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
        key = feed.keys, feed.generation, place
        reading = self._pages.get(key)
        if reading is None:
            reading = self._pages[key] = asyncio.create_task(
                self._fetch(feed.keys, place, feed.extent.page_entries(PAGE_BYTES, PAGE_ENTRIES, least=1))
            )
            reading.add_done_callback(partial(self._keep, key))
        return await asyncio.shield(reading)

    def forget(self, keys: JobKeys) -> None:
        """Let go of a job's pages, since it has another history now."""
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
