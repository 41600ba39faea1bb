"""What a client of a job's stream gets: the job's state, then pages of its records, through outages of the store."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial

from ci_common.errors import RepositoryError
from ci_common.models import JobEvent
from ci_eventstore.connection.outage_log import OutageLog
from ci_eventstore.errors import StoreUnavailableError
from ci_eventstore.events.records import Fact, Place
from ci_eventstore.following.follower import Follower
from ci_eventstore.following.records import Notice, Page
from ci_eventstore.jobs.state import JobState
from ci_eventstore.web.job_view import JobViews
from ci_eventstore.web.streams import sse
from ci_eventstore.web.streams.response import IDLE, LAST, StreamPiece

#: A stream whose store is away tries again after this.
AWAY_SECONDS = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamRequest:
    """What one client is to get."""

    user_id: str | None
    #: The `state` event.
    opening: bytes
    #: Starts following after a position of an incarnation.
    follow: Callable[[int, str | None], Awaitable[Follower]]
    #: The client gets events after this position, which belongs to an incarnation if it isn't 0.
    after: int
    incarnation: str | None
    #: Whether a `reset` comes first, because the client has read another log.
    begins_again: bool
    #: Writes a page's frames.
    encode: Callable[[Page], bytes]
    #: Writes what comes before a page.
    before: "StatesAgain | None" = None
    #: Returns whether the client may still read the job.
    is_allowed: Callable[[], Awaitable[bool]]


class JobStream:
    """Follows a job for one client; during outages of the store, it is idle."""

    def __init__(self, wanted: StreamRequest, outage: OutageLog) -> None:
        self._outage = outage
        self._wanted = wanted
        self.user_id = wanted.user_id
        self.is_allowed = wanted.is_allowed
        self._opening = wanted.opening
        #: The position of the last event, and its incarnation.
        self._last = wanted.after
        self._incarnation = wanted.incarnation
        #: Whether the client still needs a `reset`.
        self._must_reset = wanted.begins_again
        self._follower: Follower | None = None

    async def begin(self) -> None:
        """Begin after the last event, unless the store is away."""
        try:
            self._follower = await self._wanted.follow(self._last, self._incarnation)
        except StoreUnavailableError as error:
            self._outage.failed(error)
            return
        self._outage.worked()
        if self._must_reset:
            self._follower.reset()

    async def read(self, seconds: float) -> StreamPiece:
        """Return the next page's frames; `state` is the first piece, together with a reset if there has to be one."""
        opening = self._opening
        if opening and not self._must_reset:
            self._opening = b""
            return StreamPiece(opening)
        if self._follower is None:
            await self.begin()
        if self._follower is None:
            await asyncio.sleep(AWAY_SECONDS)
            return IDLE
        try:
            page = await self._follower.read(seconds)
        except StoreUnavailableError as error:
            self._outage.failed(error)
            # A client that has got nothing can't have lost anything.
            self._incarnation = self._follower.incarnation if self._last else None
            self.close()
            return IDLE
        if not page.records:
            return LAST if page.is_last else IDLE
        # In one piece: a client that has the new incarnation from `state` must know that it begins again.
        before = b"" if self._wanted.before is None else await self._wanted.before.write(page, self._last)
        frames = opening + before + self._wanted.encode(page)
        self._opening, self._must_reset = b"", False
        self._last = _last_position(page, self._last)
        return StreamPiece(frames, page.is_last)

    def close(self) -> None:
        """Stop following."""
        if self._follower is not None:
            self._follower.close()
            self._follower = None


def _last_position(page: Page, before: int) -> int:
    """Return the position of a page's last event, or the one before if it has no event."""
    for record in reversed(page.records):
        if isinstance(record, JobEvent):
            return record.id or before
        if isinstance(record, Notice):
            return max(record.position - 1, 0)
    return before


class StatesAgain:
    """Writes `state` before each page with which the job has changed; streams that share a page read it once."""

    def __init__(self, views: JobViews, job_id: str, user_id: str | None, state: JobState) -> None:
        self._views = views
        self._job_id = job_id
        self._user_id = user_id
        #: How far the state goes that the client has.
        self._known = Place(state.position, state.part)
        self._is_owed = False

    async def write(self, page: Page, position: int) -> bytes:
        """Return the frame for a client that has everything up to a position; nothing if there is nothing new in it.

        While it can't be read, the client goes without it, until the next page.
        """
        self._is_owed = self._is_owed or any(map(_changes_job, page.records))
        if not self._is_owed or page.until <= self._known:
            return b""
        try:
            async with page.once("reading", asyncio.Lock):
                if "state" not in page.kept:
                    page.kept["state"] = await self._views.read_with_totals(self._job_id, self._user_id)
        except RepositoryError:
            return b""
        self._is_owed = False
        state, shown = page.kept["state"]
        self._known = Place(state.position, state.part)
        return sse.named("state", {**shown, "position": position}, position)


def _changes_job(record: object) -> bool:
    return isinstance(record, Fact) or (isinstance(record, JobEvent) and record.type == "complete")


class DetailedFrames:
    """Writes pages with times and line numbers; streams that share a page write it once."""

    def __init__(self, lines: int) -> None:
        """Begin after that many newlines of the log."""
        self._lines: int | None = lines

    def __call__(self, page: Page) -> bytes:
        """Return a page's frames."""
        frames, self._lines = page.once(("detail", self._lines), partial(_detailed, page, self._lines))
        return frames


def _detailed(page: Page, lines: int | None) -> tuple[bytes, int | None]:
    detail = sse.Detail(lines)
    return b"".join(map(detail, page.records)), detail.lines
