"""One who follows a job: where it stands, and what it is handed next."""

from collections.abc import Awaitable, Callable

from ci_eventstore.events.records import Place
from ci_eventstore.following.feed import Cursor, Feed
from ci_eventstore.following.page import Page
from ci_eventstore.following.records import Notice, NoticeType

#: Reads what the stream has behind a place: a page, or None if there is nothing.
ReadPage = Callable[[Feed, Place], Awaitable[Page | None]]
#: Is told that a follower has gone.
Leave = Callable[[Feed, Cursor], None]

NOTHING = Page((), Place(0))
#: How soon one looks again for what should be in the stream.
LOST_SECONDS = 1.0


class Follower:
    """Hands out a job's records in pages, to the job's end; made by `Hub.follow`, and to be closed."""

    __slots__ = ("_cursor", "_ends_at_head", "_feed", "_generation", "_has_ended", "_is_reset", "_leave", "_read_page")

    def __init__(self, feed: Feed, after: int, read_page: ReadPage, leave: Leave, *, ends_at_head: bool) -> None:
        self._feed = feed
        self._cursor = Cursor(Place(after))
        self._read_page = read_page
        self._leave: Leave | None = leave
        #: Whether it ends with what is there: it began at or behind the job's end.
        self._ends_at_head = ends_at_head
        self._has_ended = False
        self._generation = feed.generation
        self._is_reset = False
        feed.cursors.add(self._cursor)

    def reset(self) -> None:
        """Begin with a notice that what was handed out by others is lost, then with the job's first event."""
        self._is_reset = True

    async def read(self, seconds: float | None = None) -> Page:
        """Return the next records as soon as there are some; none, if that takes more than `seconds`.

        It may be cancelled at any time, and called again. JobNotFoundError, ProjectionMissingError: the job is gone.
        StoreUnavailableError: the store couldn't be reached for long; another follower may go on from the same place.
        """
        while not self._has_ended:
            if self._feed.failure is not None:
                raise self._feed.failure.with_traceback(None)
            if self._is_reset or self._generation != self._feed.generation:
                return self._begin_again()
            if self._cursor.place < self._feed.base:
                page = await self._read_page(self._feed, self._cursor.place)
                if page is None:
                    # The hub is finding out why.
                    await self._feed.wait(LOST_SECONDS)
                elif self._generation == self._feed.generation:
                    return self._take(page)
                continue
            page = self._feed.page_behind(self._cursor.place)
            if page is not None:
                return self._take(page)
            if self._ends_at_head:
                break
            if not await self._feed.wait(seconds):
                return NOTHING
        self._has_ended = True
        return Page((), self._cursor.place, is_last=True)

    def close(self) -> None:
        """End; a job that nobody follows any more isn't read any more."""
        if self._leave is not None:
            leave, self._leave = self._leave, None
            leave(self._feed, self._cursor)

    def _take(self, page: Page) -> Page:
        self._cursor.place = page.until
        self._has_ended = page.is_last
        self._ends_at_head = self._ends_at_head or page.has_end
        return page

    def _begin_again(self) -> Page:
        self._is_reset, self._generation = False, self._feed.generation
        self._ends_at_head = False
        self._cursor.place = Place(0)
        return Page([Notice(NoticeType.RESET, 0)], Place(0))
