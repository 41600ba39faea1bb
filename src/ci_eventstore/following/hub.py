"""One reader for all followers of a process."""

import asyncio
import logging
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from ci_common.errors import RepositoryError
from ci_eventstore.connection.node import PATIENCE_SECONDS
from ci_eventstore.connection.nodes import Nodes
from ci_eventstore.connection.replies import WRONG_TYPE, Reply, as_optional_texts
from ci_eventstore.errors import NotInitializedError, StoreUnavailableError, StreamDamagedError
from ci_eventstore.events.reader import EventReader, Extent
from ci_eventstore.events.records import Place
from ci_eventstore.events.sealed_log import end_in
from ci_eventstore.following.feed import Cursor, Feed, parse_message
from ci_eventstore.following.follower import Follower
from ci_eventstore.following.incarnation import Incarnation, StoreIncarnation
from ci_eventstore.following.job_reader import JobReader, Pages
from ci_eventstore.following.records import Page
from ci_eventstore.keys import JobKeys
from ci_eventstore.tasks import begin

logger = logging.getLogger("ci_eventstore.following")

UNREADABLE = "a message can't be read: %s"
LOOKING = "looking at followed jobs"
#: Jobs are compared with the store this often, in case a message was lost.
WATCH_SECONDS = 5.0
WATCHED_AT_ONCE = 500
#: Under load, events are gathered so that a job's followers are woken this often together, …
WAKES_PER_SECOND = 4_000
#: … but not for longer than this.
GATHER_SECONDS = 0.05
#: What a look at a job reads of its hash: where its log ends, then whether it ends if its process is lost.
LOOKED_AT = ("position", "part", "mark", "log", "claim", "cancel_line", "ends_if_lost")
#: So few followers are woken for each event.
FEW_FOLLOWERS = 10


@dataclass(frozen=True, slots=True)
class FollowingStats:
    """Numbers of what a process follows."""

    followers: int
    jobs: int
    #: The age of the oldest entry that is known but not handed out yet.
    lag_seconds: float
    #: Counted since the start: entries read, and notices that the store had lost some.
    entries: int
    resets: int


@dataclass(eq=False, slots=True)
class _Live:
    feed: Feed
    reader: JobReader
    showing: asyncio.TimerHandle | None = None
    opened_at: float = field(default_factory=lambda: asyncio.get_running_loop().time())


class _Comparisons:
    """Compare how far followed jobs are with what the store says, each partition's for themselves."""

    def __init__(self, nodes: Nodes, store_incarnation: StoreIncarnation, watch_lost: Callable[[str], None]) -> None:
        self._nodes = nodes
        self._store_incarnation = store_incarnation
        self._watch_lost = watch_lost
        #: Those on their way, by partition.
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def look(self, lives: Sequence[_Live]) -> None:
        """Look at jobs; a partition that is away keeps no other one waiting, and is asked until patience is over."""
        groups: dict[str, list[_Live]] = {}
        for live in lives:
            groups.setdefault(live.feed.keys.tag if self._nodes.is_divided else "", []).append(live)
        for tag in groups.keys() - self._tasks.keys():
            task = self._tasks[tag] = begin(self._look_at(groups[tag]), logger, LOOKING)
            task.add_done_callback(partial(self._forget, tag))
        if self._tasks:
            await asyncio.wait(self._tasks.values(), timeout=WATCH_SECONDS)

    async def close(self) -> None:
        """Stop looking."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _forget(self, tag: str, task: "asyncio.Task[None]") -> None:
        del self._tasks[tag]

    async def _look_at(self, lives: Sequence[_Live]) -> None:
        try:
            for start in range(0, len(lives), WATCHED_AT_ONCE):
                await self._compare(lives[start : start + WATCHED_AT_ONCE])
        except Exception as error:  # noqa: BLE001 - it is logged; nobody would notice a lost message any more
            self._nodes.outages.fault(logger, LOOKING, error)

    async def _compare(self, lives: Sequence[_Live]) -> None:
        tips = [(live.feed.head, live.feed.mark) for live in lives]
        commands = [("HMGET", live.feed.keys.hash, *LOOKED_AT) for live in lives]
        try:
            replies = await self._nodes.read_many(commands)
            store = await self._store_incarnation.read()
        except RepositoryError as error:
            for live in lives:
                live.feed.fail(error)
            return
        for live, tip, reply in zip(lives, tips, replies, strict=True):
            if _ends_if_lost(reply):
                self._watch_lost(live.feed.keys.job_id)
            # Without a mark, only the place shows a change.
            found = _tip_of(reply, tip[1])
            if found != tip or live.feed.incarnation.store != store:
                live.reader.start()


class Hub:
    """Follows each job once, however many followers it has.

    The server tells of each append on the job's channel, and small ones ride in the message. What a message doesn't
    bring is read from the stream: on each new subscription, at each hole, and now and then. The stream is the truth.
    """

    def __init__(
        self,
        nodes: Nodes,
        reader: EventReader,
        store_incarnation: StoreIncarnation,
        watch_lost: Callable[[str], None] = lambda job_id: None,
    ) -> None:
        """Follow jobs; `watch_lost` is given the id of one that is to end should its controller be gone."""
        self._nodes = nodes
        self._reader = reader
        self._store_incarnation = store_incarnation
        self._pages = Pages(reader.source)
        self._subscription = nodes.subscription(self._on_message, self._on_listening)
        #: By channel.
        self._live: dict[str, _Live] = {}
        self._watcher: asyncio.Task[None] | None = None
        self._comparisons = _Comparisons(nodes, store_incarnation, watch_lost)
        self._ended_followers = self._past_entries = self._past_resets = 0

    async def follow(
        self, keys: JobKeys, after: int, user_id: str | None = None, *, incarnation: str | None = None
    ) -> Follower:
        """Return a follower that begins after a position; it has to be closed.

        For a position that the log doesn't reach, or of another incarnation, the follower gets a reset.
        JobNotFoundError, LogDeletedError, ProjectionMissingError, StoreUnavailableError.
        """
        follower = Follower(self, keys, user_id)
        extent = await follower.begin(after)
        try:
            is_another = incarnation is not None and incarnation != await self._incarnation_of(extent)
        except BaseException:
            follower.close()
            raise
        if after > extent.position or is_another:
            follower.reset()
        return follower

    async def close(self) -> None:
        """End all followers with NotInitializedError."""
        for live in list(self._live.values()):
            live.feed.fail(NotInitializedError())
        if self._watcher is not None:
            self._watcher.cancel()
            await asyncio.gather(self._watcher, return_exceptions=True)
        await self._comparisons.close()
        await self._subscription.close()

    def abandon(self) -> None:
        """Have all followers raise NotInitializedError at their next call: their event loop was closed."""
        for live in self._live.values():
            live.feed.failure = NotInitializedError()

    def stats(self) -> FollowingStats:
        """Return the numbers of what is followed."""
        now = asyncio.get_running_loop().time()
        feeds = [live.feed for live in self._live.values()]
        return FollowingStats(
            followers=sum(len(feed.cursors) for feed in feeds) + self._ended_followers,
            jobs=len(feeds),
            lag_seconds=max((now - feed.behind_since for feed in feeds if feed.behind_since is not None), default=0.0),
            entries=self._past_entries + sum(feed.taken for feed in feeds),
            resets=self._past_resets + sum(feed.generation for feed in feeds),
        )

    # What followers need

    async def join(self, keys: JobKeys, user_id: str | None, cursor: Cursor) -> tuple[Feed, Extent]:
        """Return a job's feed, for a cursor at one of its places, and how far the log goes now."""
        extent = await self._reader.extent(keys, user_id)
        extent.check_deleted(keys.job_id, cursor.place.position)
        if extent.end_position is not None:
            feed = Feed(keys, extent, is_live=False, incarnation=self._known(extent))
            feed.begin(Place(extent.position, extent.part), None)
            feed.cursors.add(cursor)
            self._ended_followers += 1
            return feed, extent
        live = self._live.get(keys.channel)
        if live is None or live.feed.failure is not None:
            live = self._open(keys, extent)
        live.feed.cursors.add(cursor)
        await self._until_ready(live.feed, cursor)
        return live.feed, extent

    def leave(self, feed: Feed, cursor: Cursor) -> None:
        """Note that a cursor has gone. A job without followers isn't read any more."""
        feed.cursors.discard(cursor)
        live = self._live.get(feed.keys.channel)
        if not feed.is_live:
            self._ended_followers -= 1
        elif live is not None and live.feed is feed and not feed.cursors:
            self._close(live)

    async def read_page(self, feed: Feed, place: Place) -> Page | None:
        """Return a page of what the stream has after a place, None if there is nothing; StreamDamagedError."""
        page = await self._pages.read(feed, place)
        if page is None and not feed.is_live and await self._reader.extent(feed.keys) == feed.extent:
            raise StreamDamagedError(feed.keys.job_id, place.position + 1, None)
        live = self._live.get(feed.keys.channel)
        if page is None and live is not None and live.feed is feed:
            live.reader.start()
        return page

    async def compare(self, feed: Feed) -> None:
        """Compare what a feed has handed out with the store: its generation goes up if the history is another one."""
        live = self._live.get(feed.keys.channel)
        if live is not None and live.feed is feed:
            await live.reader.compare()
        elif not feed.is_live:
            feed.incarnation = await self._on_loss(feed)
            self._past_resets += 1

    def _open(self, keys: JobKeys, extent: Extent) -> _Live:
        feed = Feed(keys, extent, is_live=True, incarnation=self._known(extent))
        reader = JobReader(feed, self._reader, self._store_incarnation, self._on_news, self._on_loss)
        live = self._live[keys.channel] = _Live(feed, reader)
        self._subscription.listen(keys.channel)
        if self._watcher is None:
            self._watcher = asyncio.create_task(self._watch())
        return live

    async def _until_ready(self, feed: Feed, cursor: Cursor) -> None:
        try:
            while not feed.is_ready:
                if feed.failure is not None:
                    raise feed.failure
                await feed.wait(None)
        except BaseException:
            self.leave(feed, cursor)
            raise

    def _close(self, live: _Live) -> None:
        del self._live[live.feed.keys.channel]
        self._subscription.ignore(live.feed.keys.channel)
        if live.showing is not None:
            live.showing.cancel()
        self._past_entries += live.feed.taken
        self._past_resets += live.feed.generation

    # Which history it is

    def _known(self, extent: Extent) -> Incarnation:
        return Incarnation(extent.incarnation, self._store_incarnation.known)

    async def _incarnation_of(self, extent: Extent) -> str:
        return str(Incarnation(extent.incarnation, await self._store_incarnation.read()))

    async def _on_loss(self, feed: Feed) -> Incarnation:
        """Return which incarnation a job has that has another history than the one handed out.

        If it is the same job, the store has lost what it had acknowledged, and becomes another incarnation itself.
        """
        self._pages.forget(feed.keys)
        extent = await self._reader.extent(feed.keys)
        if extent.incarnation == feed.incarnation.job:
            await self._store_incarnation.renew_after_loss(feed.incarnation.store)
        else:
            await self._store_incarnation.read()
        return self._known(extent)

    # Messages of the server

    def _on_message(self, channel: str, data: bytes) -> None:
        live = self._live.get(channel)
        if live is None or not live.feed.is_ready or live.feed.failure is not None:
            return
        try:
            is_taken = live.feed.take(parse_message(data))
        except (RepositoryError, ValueError, IndexError) as error:
            # The stream decides. An error that got out of here would end the connection on which all jobs are heard.
            self._nodes.outages.of(logger, UNREADABLE).failed(error, {"job_id": live.feed.keys.job_id})
            is_taken = False
        if is_taken:
            self._on_news(live.feed)
        else:
            live.feed.behind_since = live.feed.behind_since or asyncio.get_running_loop().time()
            live.reader.start()

    def _on_listening(self, channels: Sequence[str]) -> None:
        for live in filter(None, map(self._live.get, channels)):
            live.reader.start()

    # Handing out

    def _on_news(self, feed: Feed) -> None:
        """Hand out new entries at once, or together with those of the next moments."""
        live = self._live.get(feed.keys.channel)
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

    # Missed messages

    async def _watch(self) -> None:
        """Compare each job with the store now and then, and the store's incarnation with the known one."""
        while True:
            await asyncio.sleep(WATCH_SECONDS * random.uniform(0.8, 1.0))
            try:
                await self._look()
            except Exception as error:  # noqa: BLE001 - it is logged; nobody would notice a lost message any more
                self._nodes.outages.fault(logger, LOOKING, error)

    async def _look(self) -> None:
        lives, now = list(self._live.values()), asyncio.get_running_loop().time()
        for live in lives:
            if not live.feed.is_ready and now - live.opened_at > PATIENCE_SECONDS:
                live.feed.fail(StoreUnavailableError("the store doesn't confirm that it tells of new events"))
        if not self._nodes.is_divided:
            # A demoted primary doesn't refuse reads, so its role is asked for. Nodes of a cluster are looked at anyway.
            await self._nodes.all[0].look_at_role()
        await self._comparisons.look([live for live in lives if live.feed.is_ready and live.feed.failure is None])


def _tip_of(reply: Reply, known_mark: str | None) -> tuple[Place, str | None] | None:
    """Return where a job's stream ends, and that entry's mark, as its hash says; None if that can't be read."""
    try:
        position, part, mark, log = (None,) * 4 if reply is WRONG_TYPE else as_optional_texts(reply[:4])
        if position is not None:
            return Place(int(position), int(part or 0)), mark or known_mark
        # A packed record leaves it out if its last segment ends there.
        place = None if log is None else end_in(log)
        return None if place is None else (place, mark or known_mark)
    except ValueError:
        return None


def _ends_if_lost(reply: Reply) -> bool:
    """Tell whether the job ends if its process is lost: it has to be cancelled, or has a holder, not a controller."""
    return reply is not WRONG_TYPE and reply[4] is not None and any(reply[5:])
