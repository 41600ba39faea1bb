"""Keep one job's feed up with its stream."""

import asyncio
from collections.abc import Callable

from ci_common.errors import JobNotFoundError, RepositoryError
from ci_eventstore.errors import StreamDamagedError
from ci_eventstore.events.reader import raise_missing
from ci_eventstore.events.records import Place
from ci_eventstore.following.feed import Feed
from ci_eventstore.server.client import Server
from ci_eventstore.server.replies import StreamEntry, as_entries

PAGE_ENTRIES = 200


class JobReader:
    """Reads a job's stream for its feed, one read at a time; a read that was begun is never cancelled."""

    def __init__(self, feed: Feed, server: Server, on_news: Callable[[Feed], None]) -> None:
        self._feed = feed
        self._server = server
        self._on_news = on_news
        self._task: asyncio.Task[None] | None = None
        self._is_asked = False
        self._must_check = False

    def start(self, *, check: bool = False) -> None:
        """Read what is behind the feed's head; with a check that what was read before is still there."""
        self._is_asked = True
        self._must_check = self._must_check or check
        if self._task is None:
            self._task = asyncio.create_task(self._read_all())

    async def _read_all(self) -> None:
        try:
            while self._is_asked and self._feed.failure is None:
                self._is_asked = False
                await self._read()
        except RepositoryError as error:
            self._feed.fail(error)
        finally:
            self._task = None

    async def _read(self) -> None:
        feed = self._feed
        if not feed.is_ready:
            feed.begin(*await self._last())
            return
        checks, self._must_check = self._must_check, False
        head, payload = feed.head, feed.last_payload
        entries = await self._range(str(head) if checks else f"({head}", "+", PAGE_ENTRIES + checks)
        self._is_asked = self._is_asked or len(entries) >= PAGE_ENTRIES
        if checks:
            if not entries or _place(entries[0]) != head or entries[0][1][1] != payload:
                await self._begin_again(head)
                return
            entries = entries[1:]
        # Messages may have brought some of them in the meantime.
        payloads = [(_place(entry), entry[1][1]) for entry in entries]
        if payloads := [item for item in payloads if item[0] > feed.head]:
            feed.extend(payloads)
            self._on_news(feed)
        feed.behind_since = None

    async def _begin_again(self, head: Place) -> None:
        """Find out why the head's entry isn't what it was: the stream was cut at its beginning, or lost its end."""
        first = await self._range("-", "+", 1)
        if first and _place(first[0]) > head:
            self._is_asked = True
            return
        self._feed.reset(*await self._last())

    async def _last(self) -> tuple[Place, bytes]:
        """Return the last entry's place and payload; JobNotFoundError, ProjectionMissingError, StreamDamagedError."""
        keys = self._feed.keys
        reply = await self._server.read_together("XREVRANGE", keys.stream, "+", "-", "COUNT", 1)
        for entry in as_entries(reply):
            return _place(entry), entry[1][1]
        await raise_missing(self._server, keys)
        if await self._server.read("EXISTS", keys.hash):
            raise StreamDamagedError(keys.job_id, 1, None)
        raise JobNotFoundError(keys.job_id)

    async def _range(self, first: str, last: str, count: int) -> list[StreamEntry]:
        keys = self._feed.keys
        return list(as_entries(await self._server.read_together("XRANGE", keys.stream, first, last, "COUNT", count)))


def _place(entry: StreamEntry) -> Place:
    return Place.parse(entry[0])
