"""A job's stream as a response, and all those that are open.

A response is an ASGI application of its own, since frames come ready and connections are many.
"""

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass

from fastapi import Response
from starlette.types import Receive, Scope, Send

from ci_common.errors import RepositoryError
from ci_common.models import JobEvent
from ci_eventstore.connection.outage_log import OutageLog
from ci_eventstore.errors import StoreUnavailableError
from ci_eventstore.following.follower import NOTHING, Follower
from ci_eventstore.following.records import Encode, Notice, Page
from ci_eventstore.web import sse
from ci_eventstore.web.errors import ANSWERED, WebError, error_response

logger = logging.getLogger("ci_eventstore.web")
#: A stream whose store is away tries again after this.
AWAY_SECONDS = 1.0
#: The end of a response may take this long.
LAST_SECONDS = 1.0
HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache, no-transform"),
    # So nginx passes frames on at once.
    (b"x-accel-buffering", b"no"),
]


class OpenStreams:
    """Counts the open streams of this process by user, and can end them all."""

    def __init__(self, most_per_user: int) -> None:
        self._most_per_user = most_per_user
        self._by_user: Counter[str] = Counter()
        self._scopes: set[asyncio.Timeout] = set()
        #: The event loop in which they were stopped; an application that starts again has another one.
        self._stopped_in: asyncio.AbstractEventLoop | None = None
        #: One log of each trouble for all streams.
        self.waiting = OutageLog(logger, "streams wait for the store: %s", "streams go on")
        self.broken = OutageLog(logger, "a stream was broken off: %s")
        self.unchecked = OutageLog(logger, "whether streams may go on can't be looked up: %s")

    def __len__(self) -> int:
        """Return how many streams are open."""
        return len(self._scopes)

    def start(self) -> None:
        """Allow streams, also after a stop."""
        self._stopped_in = None

    def stop(self) -> None:
        """End all open streams now, and later ones at their first step: their clients come back."""
        self._stopped_in = asyncio.get_running_loop()
        for scope in list(self._scopes):
            end_scope(scope)

    @contextmanager
    def counted(self, user_id: str | None) -> Iterator[None]:
        """Count a stream as a user's; WebError 429 if the user has too many. Those of nobody aren't limited."""
        if user_id is None:
            yield
            return
        if self._by_user[user_id] >= self._most_per_user:
            text = f"you have {self._most_per_user} streams open, more are not allowed: close one"
            raise WebError(429, "too_many_streams", text, {"Retry-After": "5"})
        self._by_user[user_id] += 1
        try:
            yield
        finally:
            self._by_user[user_id] -= 1
            if not self._by_user[user_id]:
                del self._by_user[user_id]

    @contextmanager
    def entered(self, scope: asyncio.Timeout) -> Iterator[None]:
        """Let `stop` end a stream that runs in this timeout."""
        self._scopes.add(scope)
        if self._stopped_in is asyncio.get_running_loop():
            end_scope(scope)
        try:
            yield
        finally:
            self._scopes.discard(scope)


def end_scope(scope: asyncio.Timeout) -> None:
    """End what runs in a timeout, unless that has ended already."""
    if not scope.expired():
        scope.reschedule(asyncio.get_running_loop().time())


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """What one client gets."""

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
    #: Encodes records for this client alone; None: each record is encoded once for all clients.
    encode: Encode | None
    #: Returns whether the client may still read the job.
    is_allowed: Callable[[], Awaitable[bool]]


class StreamResponse(Response):
    """Sends a stream until the job ends, the client has gone, it may not go on, or the server stops."""

    def __init__(self, stream: Stream, streams: OpenStreams, heartbeat_seconds: float) -> None:
        # The constructor of Response would make headers and a body that nobody reads.
        self.status_code = 200
        self.background = None
        self.raw_headers = HEADERS
        self._stream = stream
        self._streams = streams
        self._heartbeat_seconds = heartbeat_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the stream, or an error if it can't begin."""
        has_started = False

        async def start() -> None:
            nonlocal has_started
            has_started = True
            await send({"type": "http.response.start", "status": 200, "headers": HEADERS})

        try:
            with self._streams.counted(self._stream.user_id):
                following = _Following(self._stream, self._streams.waiting)
                try:
                    await following.begin()
                    await start()
                    await self._run(following, receive, send)
                finally:
                    following.close()
        except ANSWERED as error:
            if not has_started:
                await error_response(error)(scope, receive, send)
                return
            # The client comes back, and gets the error then.
            self._streams.broken.failed(error)
        await _end(send)

    async def _run(self, following: "_Following", receive: Receive, send: Send) -> None:
        """Send frames until the end, or until the server stops or the client has gone."""
        scope = asyncio.timeout(None)
        try:
            async with scope, _ends_when_gone(scope, receive):
                opening = sse.RETRY + self._stream.opening
                if self._stream.begins_again:
                    # In one piece: a client that has the new incarnation from `state` must know that it begins again.
                    while not (page := await following.read(self._heartbeat_seconds)).records:
                        await _send(send, sse.HEARTBEAT)
                    opening += self._frames(page)
                await _send(send, opening)
                with self._streams.entered(scope):
                    await self._send_pages(following, send)
        except TimeoutError:
            if not scope.expired():
                raise

    async def _send_pages(self, following: "_Following", send: Send) -> None:
        loop = asyncio.get_running_loop()
        checked_at = loop.time()
        while True:
            page = await following.read(self._heartbeat_seconds)
            if page.records:
                if frames := self._frames(page):
                    await _send(send, frames)
            elif not page.is_last:
                await _send(send, sse.HEARTBEAT)
            if page.is_last:
                return
            if loop.time() - checked_at >= self._heartbeat_seconds:
                checked_at = loop.time()
                if not await self._is_allowed():
                    return

    def _frames(self, page: Page) -> bytes:
        return page.encoded(self._stream.encode or sse.encode)

    async def _is_allowed(self) -> bool:
        """Return whether the client may still read the job; while the store is away, nobody loses that right."""
        try:
            return await self._stream.is_allowed()
        except RepositoryError as error:
            self._streams.unchecked.failed(error)
            return True


class _Following:
    """Follows for a stream, through outages of the store, during which its client sees heartbeats."""

    def __init__(self, stream: Stream, outage: OutageLog) -> None:
        self._outage = outage
        self._follow = stream.follow
        #: The position of the last event, and its incarnation.
        self.last = stream.after
        self._incarnation = stream.incarnation
        #: Whether the client still needs a `reset`.
        self._must_reset = stream.begins_again
        self._follower: Follower | None = None

    async def begin(self) -> bool:
        """Begin after the last event; False while the store is away."""
        try:
            self._follower = await self._follow(self.last, self._incarnation)
        except StoreUnavailableError as error:
            self._outage.failed(error)
            return False
        self._outage.worked()
        if self._must_reset:
            self._follower.reset()
        return True

    async def read(self, seconds: float) -> Page:
        """Return the next page, an empty one if none comes in time or the store is away."""
        if self._follower is None and not await self.begin():
            await asyncio.sleep(AWAY_SECONDS)
            return NOTHING
        assert self._follower is not None
        try:
            page = await self._follower.read(seconds)
        except StoreUnavailableError as error:
            self._outage.failed(error)
            # A client that has got nothing can't have lost anything.
            self._incarnation = self._follower.incarnation if self.last else None
            self.close()
            return NOTHING
        self.last = _last_position(page, self.last)
        self._must_reset = self._must_reset and not page.records
        return page

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


async def _send(send: Send, frames: bytes) -> None:
    await send({"type": "http.response.body", "body": frames, "more_body": True})


async def _end(send: Send) -> None:
    """End the response; if the client reads nothing, leave it to the server, which cuts it off in its own time."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(LAST_SECONDS):
            await send({"type": "http.response.body", "body": b"", "more_body": False})


@asynccontextmanager
async def _ends_when_gone(scope: asyncio.Timeout, receive: Receive) -> AsyncIterator[None]:
    """End what runs in a timeout as soon as the client disconnects."""

    async def listen() -> None:
        try:
            while (await receive())["type"] != "http.disconnect":
                pass
        except Exception:
            logger.exception("whether a client is still there can't be seen")
        end_scope(scope)

    listening = asyncio.create_task(listen())
    try:
        yield
    finally:
        listening.cancel()
