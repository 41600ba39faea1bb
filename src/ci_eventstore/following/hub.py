"""One reader for all who follow jobs in a process."""

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass, field

from ci_common.errors import RepositoryError
from ci_eventstore.errors import NotInitializedError, StoreUnavailableError, StreamDamagedError
from ci_eventstore.events.reader import EventReader, Extent
from ci_eventstore.events.records import Place
from ci_eventstore.following import messages
from ci_eventstore.following.feed import Cursor, Feed
from ci_eventstore.following.follower import Follower
from ci_eventstore.following.job_reader import JobReader
from ci_eventstore.following.page import Page
from ci_eventstore.following.pages import Pages
from ci_eventstore.keys import JobKeys
from ci_eventstore.server.client import PATIENCE_SECONDS, Server
from ci_eventstore.server.replies import as_optional_texts

#: How often it is looked whether a job has got further without a message saying so.
WATCH_SECONDS = 5.0
WATCHED_AT_ONCE = 500
#: Under load, events are gathered so that a job's followers are woken so often together, …
WAKES_PER_SECOND = 4_000
#: … but not for longer than this.
GATHER_SECONDS = 0.05
#: So few followers are woken for each event.
FEW_FOLLOWERS = 10


@dataclass(frozen=True, slots=True)
class FollowingStats:
    """What a process follows."""

    followers: int
    jobs: int
    #: For how long the job that is furthest behind has been known to be.
    lag_seconds: float
    #: Since the beginning: entries read, notices that the store had lost some.
    entries: int
    resets: int


@dataclass(eq=False, slots=True)
class _Live:
    feed: Feed
    reader: JobReader
    showing: asyncio.TimerHandle | None = None
    opened_at: float = field(default_factory=lambda: asyncio.get_running_loop().time())


class Hub:
    """Follows each job once, however many ask for it.

    The server tells of each append on the job's channel, and small ones ride in the message. What a message doesn't
    bring is read from the stream: on each new subscription, at each hole, and now and then. The stream is the truth.
    """

    def __init__(self, server: Server, reader: EventReader) -> None:
        self._server = server
        self._reader = reader
        self._pages = Pages(server)
        self._subscription = server.subscription(self._on_message, self._on_listening)
        #: By channel, which is named as the job's stream.
        self._live: dict[str, _Live] = {}
        self._watcher: asyncio.Task[None] | None = None
        self._ended_followers = self._past_entries = self._past_resets = 0

    async def follow(
        self, keys: JobKeys, after: int, user_id: str | None = None, *, is_resumed: bool = False
    ) -> Follower:
        """Return a follower that begins behind a position; it has to be closed.

        With `is_resumed` the position is one that the store gave out: if the log doesn't go as far, that is told as a
        reset. JobNotFoundError, ProjectionMissingError, StoreUnavailableError.
        """
        extent = await self._reader.extent(keys, user_id)
        if extent.end_position is not None:
            feed = Feed(keys, extent, is_live=False)
            feed.begin(Place(extent.position, extent.part), b"")
            is_at_end = after >= extent.end_position
            follower = Follower(feed, after, self._read_page, self._leave, ends_at_head=is_at_end)
            self._ended_followers += 1
        else:
            live = self._live.get(keys.stream)
            if live is None or live.feed.failure is not None:
                live = self._open(keys, extent)
            follower = Follower(live.feed, after, self._read_page, self._leave, ends_at_head=False)
            await self._until_ready(live.feed, follower)
        if is_resumed and after > extent.position:
            follower.reset()
        return follower

    async def close(self) -> None:
        """End all followers with NotInitializedError."""
        for live in list(self._live.values()):
            live.feed.fail(NotInitializedError())
        if self._watcher is not None:
            self._watcher.cancel()
            await asyncio.gather(self._watcher, return_exceptions=True)
        await self._subscription.close()

    def stats(self) -> FollowingStats:
        """Return what is being followed."""
        now = asyncio.get_running_loop().time()
        feeds = [live.feed for live in self._live.values()]
        return FollowingStats(
            followers=sum(len(feed.cursors) for feed in feeds) + self._ended_followers,
            jobs=len(feeds),
            lag_seconds=max((now - feed.behind_since for feed in feeds if feed.behind_since is not None), default=0.0),
            entries=self._past_entries + sum(feed.taken for feed in feeds),
            resets=self._past_resets + sum(feed.generation for feed in feeds),
        )

    def _open(self, keys: JobKeys, extent: Extent) -> _Live:
        feed = Feed(keys, extent, is_live=True)
        live = self._live[keys.stream] = _Live(feed, JobReader(feed, self._server, self._on_news))
        self._subscription.listen(keys.stream)
        if self._watcher is None:
            self._watcher = asyncio.create_task(self._watch())
        return live

    async def _until_ready(self, feed: Feed, follower: Follower) -> None:
        try:
            while not feed.is_ready:
                if feed.failure is not None:
                    raise feed.failure
                await feed.wait(None)
        except BaseException:
            follower.close()
            raise

    def _leave(self, feed: Feed, cursor: Cursor) -> None:
        feed.cursors.discard(cursor)
        live = self._live.get(feed.keys.stream)
        if not feed.is_live:
            self._ended_followers -= 1
        elif live is not None and live.feed is feed and not feed.cursors:
            self._close(live)

    def _close(self, live: _Live) -> None:
        del self._live[live.feed.keys.stream]
        self._subscription.ignore(live.feed.keys.stream)
        if live.showing is not None:
            live.showing.cancel()
        self._past_entries += live.feed.taken
        self._past_resets += live.feed.generation

    async def _read_page(self, feed: Feed, place: Place) -> Page | None:
        page = await self._pages.read(feed, place)
        if page is None and not feed.is_live:
            raise StreamDamagedError(feed.keys.job_id, place.position + 1, None)
        live = self._live.get(feed.keys.stream)
        if page is None and live is not None and live.feed is feed:
            live.reader.start(check=True)
        return page

    # What the server says

    def _on_message(self, channel: str, data: bytes) -> None:
        live = self._live.get(channel)
        if live is None or not live.feed.is_ready or live.feed.failure is not None:
            return
        if live.feed.take(messages.parse(data)):
            self._on_news(live.feed)
        else:
            live.feed.behind_since = live.feed.behind_since or asyncio.get_running_loop().time()
            live.reader.start()

    def _on_listening(self, channel: str) -> None:
        live = self._live.get(channel)
        if live is not None:
            live.reader.start(check=True)

    # What followers are handed

    def _on_news(self, feed: Feed) -> None:
        """Hand out what has come: at once, or together with what comes in the next moments."""
        live = self._live.get(feed.keys.stream)
        if live is None or live.feed is not feed or live.showing is not None or feed.shown == feed.head:
            return
        loop = asyncio.get_running_loop()
        count = len(feed.cursors)
        pause = 0.0 if count < FEW_FOLLOWERS else min(GATHER_SECONDS, count / WAKES_PER_SECOND)
        if loop.time() >= feed.shown_at + pause:
            feed.show(loop.time())
        else:
            live.showing = loop.call_at(feed.shown_at + pause, self._show, live)

    def _show(self, live: _Live) -> None:
        live.showing = None
        live.feed.show(asyncio.get_running_loop().time())

    # What was missed

    async def _watch(self) -> None:
        """Look now and then how far each job is."""
        while True:
            await asyncio.sleep(WATCH_SECONDS * random.uniform(0.8, 1.0))
            now = asyncio.get_running_loop().time()
            lives = list(self._live.values())
            for live in lives:
                if not live.feed.is_ready and now - live.opened_at > PATIENCE_SECONDS:
                    live.feed.fail(StoreUnavailableError("the store doesn't confirm that it tells of new events"))
            ready = [live for live in lives if live.feed.is_ready and live.feed.failure is None]
            for start in range(0, len(ready), WATCHED_AT_ONCE):
                await self._compare(ready[start : start + WATCHED_AT_ONCE])

    async def _compare(self, lives: Sequence[_Live]) -> None:
        heads = [live.feed.head for live in lives]
        commands = [("HMGET", live.feed.keys.hash, "position", "part") for live in lives]
        try:
            replies = await self._server.read_many(commands)
        except RepositoryError as error:
            for live in lives:
                live.feed.fail(error)
            return
        for live, head, reply in zip(lives, heads, replies, strict=True):
            position, part = as_optional_texts(reply)
            place = None if position is None else Place(int(position), int(part or 0))
            if place is None or place < head:
                live.reader.start(check=True)
            elif place > live.feed.head:
                live.reader.start()
