"""One follower of a job: where it stands, and which page comes next."""

import asyncio
from typing import Protocol

from ci_eventstore.errors import OtherEventLoopError
from ci_eventstore.events.reader import Extent
from ci_eventstore.events.records import Place
from ci_eventstore.following.feed import Cursor, Feed
from ci_eventstore.following.incarnation import Incarnation
from ci_eventstore.following.records import Notice, NoticeType, Page
from ci_eventstore.keys import JobKeys

NOTHING = Page((), Place(0))
#: A follower looks again after this for an entry that the stream should have.
LOST_SECONDS = 1.0


class Source(Protocol):
    """What a follower needs of the hub."""

    async def read_page(self, feed: Feed, place: Place) -> Page | None:
        """Return a page of what the stream has after a place, None if there is nothing."""

    async def compare(self, feed: Feed) -> None:
        """Compare what a feed has handed out with the store: its generation goes up if the history is another one."""

    async def join(self, keys: JobKeys, user_id: str | None, cursor: Cursor) -> tuple[Feed, Extent]:
        """Return a job's feed, for a cursor at one of its places, and how far the log goes now.

        JobNotFoundError, also for another user's job; ProjectionMissingError, StoreUnavailableError.
        """

    def leave(self, feed: Feed, cursor: Cursor) -> None:
        """Note that a follower's cursor has gone."""


class Follower:
    """Hands out a job's records in pages, to the job's end; made by `Hub.follow`, and to be closed.

    All that it hands out is one history: the end of each page is compared with the beginning of the next one. Where
    they don't fit, a reset comes first, then the job's first event.
    """

    def __init__(self, source: Source, keys: JobKeys, user_id: str | None) -> None:
        self._source = source
        self._loop = asyncio.get_running_loop()
        #: The job's.
        self.keys = keys
        #: The user that the job must belong to; None: any.
        self._user_id = user_id
        self._cursor = Cursor(Place(0))
        self._feed: Feed | None = None
        #: Whether it ends at the head of the log: it began at or after the job's end.
        self._ends_at_head = False
        self._has_ended = self._is_reset = self._must_join = self._is_closed = False
        #: Whether its last page came from the stream: the feed may know another history.
        self._is_unsure = False
        self._generation = 0
        self._incarnation = Incarnation()

    async def begin(self, after: int) -> Extent:
        """Begin, or begin again, after a position, and return the end of the log."""
        cursor = Cursor(Place(after))
        feed, extent = await self._source.join(self.keys, self._user_id, cursor)
        self._let_go()
        self._cursor, self._feed = cursor, feed
        self._generation, self._incarnation = feed.generation, feed.incarnation
        self._must_join = self._is_unsure = False
        self._ends_at_head = extent.end_position is not None and after >= extent.end_position
        return extent

    @property
    def incarnation(self) -> str:
        """The incarnation of what was handed out last; a client that comes back sends it with its last position."""
        return str(self._incarnation)

    def reset(self) -> None:
        """Begin with a notice that events from earlier followers are lost, then with the job's first event."""
        self._is_reset = True

    async def read(self, seconds: float | None = None) -> Page:
        """Return the next records as soon as there are some; none, if that takes more than `seconds`.

        It may be cancelled at any time, and called again. JobNotFoundError, ProjectionMissingError: the job is gone.
        StoreUnavailableError: the store couldn't be reached for long; another follower may go on from the same place.
        OtherEventLoopError.
        """
        if asyncio.get_running_loop() is not self._loop:
            raise OtherEventLoopError(f"the follower of job {self.keys.job_id!r}")
        while not self._has_ended:
            if self._must_join:
                await self.begin(0)
            feed, place = self._feed, self._cursor.place
            assert feed is not None
            if self._is_reset or self._generation != feed.generation:
                return self._begin_again(feed)
            if feed.failure is not None:
                raise feed.failure.with_traceback(None)
            if place < feed.base:
                page = await self._read_page(feed, place)
                if page is not None:
                    self._is_unsure = True
                    return self._take(feed, page)
                continue
            if self._is_unsure and place <= feed.head and feed.is_live and not await self._is_sure(feed, place):
                continue
            page = feed.page_behind(place)
            if page is not None:
                return self._take(feed, page)
            if self._ends_at_head:
                break
            if not await feed.wait(seconds):
                return NOTHING
        self._has_ended = True
        return Page((), self._cursor.place, is_last=True)

    def close(self) -> None:
        """End. A job without followers isn't read any more."""
        if not self._is_closed:
            self._is_closed = True
            if is_running(self._loop):
                self._let_go()
            elif not self._loop.is_closed():
                self._loop.call_soon_threadsafe(self._let_go)

    def _let_go(self) -> None:
        if self._feed is not None:
            self._source.leave(self._feed, self._cursor)

    async def _read_page(self, feed: Feed, place: Place) -> Page | None:
        """Return the next page of the stream; None if the caller has to look at everything again."""
        page = await self._source.read_page(feed, place)
        if self._generation != feed.generation:
            return None
        if page is None and feed.is_live:
            # The hub is finding out why.
            await feed.wait(LOST_SECONDS)
        elif page is not None and page.follows(self._cursor.payload):
            return page
        else:
            await self._doubt(feed)
        return None

    async def _is_sure(self, feed: Feed, place: Place) -> bool:
        """Tell whether the feed continues the pages read from the stream."""
        payload = self._cursor.payload
        if payload is None or feed.has(place, payload):
            self._is_unsure = False
            return True
        await self._doubt(feed)
        return False

    async def _doubt(self, feed: Feed) -> None:
        """Begin again: what was handed out isn't what the store has; unless the feed finds that out for all."""
        await self._source.compare(feed)
        self._is_reset = True

    def _take(self, feed: Feed, page: Page) -> Page:
        self._cursor.place, self._cursor.payload = page.until, page.payload
        self._incarnation, self._has_ended = feed.incarnation, page.is_last
        self._ends_at_head = self._ends_at_head or page.has_end
        return page

    def _begin_again(self, feed: Feed) -> Page:
        self._is_reset, self._must_join, self._incarnation = False, True, feed.incarnation
        return Page([Notice(NoticeType.RESET, 0, self.incarnation)], Place(0))


def is_running(loop: asyncio.AbstractEventLoop) -> bool:
    """Tell whether this is called in an event loop, and not in another one or in none."""
    try:
        return asyncio.get_running_loop() is loop
    except RuntimeError:
        return False
