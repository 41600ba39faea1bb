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
from ci_eventstore.following.page import Encode, Page
from ci_eventstore.following.records import Notice
from ci_eventstore.web import sse
from ci_eventstore.web.errors import ANSWERED, WebError, error_response

logger = logging.getLogger("ci_eventstore.web")
#: How long a stream whose store is away waits before it tries again.
AWAY_SECONDS = 1.0

#: How long the end of a response may take.
LAST_SECONDS = 1.0
HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache, no-transform"),
    # nginx sends on what it gets at once.
    (b"x-accel-buffering", b"no"),
]


class OpenStreams:
    """Counts streams by user, and can end them."""

    def __init__(self, most_per_user: int) -> None:
        self._most_per_user = most_per_user
        self._by_user: Counter[str] = Counter()
        self._scopes: set[asyncio.Timeout] = set()
        #: The event loop in which they were stopped: an application that is started again has another one.
        self._stopped_in: asyncio.AbstractEventLoop | None = None
        #: What is the matter with streams, said of all of them at once.
        self.waiting = OutageLog(logger, "streams wait for the store: %s", "streams go on")
        self.broken = OutageLog(logger, "a stream was broken off: %s")
        self.unchecked = OutageLog(logger, "whether streams may go on can't be looked up: %s")

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._scopes)

    def start(self) -> None:
        """Let streams be opened, also after a stop."""
        self._stopped_in = None

    def stop(self) -> None:
        """End all streams at once, and those that are opened from now on at their first step: clients come back."""
        self._stopped_in = asyncio.get_running_loop()
        for scope in list(self._scopes):
            end_scope(scope)

    @contextmanager
    def counted(self, user_id: str | None) -> Iterator[None]:
        """Count a stream as a user's; 429 if that has too many. What is nobody's isn't limited."""
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
        """Let a stream be ended by `stop`; in its own timeout."""
        self._scopes.add(scope)
        if self._stopped_in is asyncio.get_running_loop():
            end_scope(scope)
        try:
            yield
        finally:
            self._scopes.discard(scope)


def end_scope(scope: asyncio.Timeout) -> None:
    """End what runs in a timeout, now, if it hasn't ended yet."""
    if not scope.expired():
        scope.reschedule(asyncio.get_running_loop().time())


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """What one client is to be sent."""

    user_id: str | None
    #: The `state` event.
    opening: bytes
    #: Begins to follow after a position of an incarnation.
    follow: Callable[[int, str | None], Awaitable[Follower]]
    #: The position after which the client is sent events, and the incarnation that it belongs to, if it isn't 0.
    after: int
    incarnation: str | None
    #: Whether a `reset` comes first.
    begins_again: bool
    #: How records are encoded; None: as for all other clients, so that each is encoded once for all.
    encode: Encode | None
    #: Tells whether the client still has the right to it.
    is_allowed: Callable[[], Awaitable[bool]]


class StreamResponse(Response):
    """Sends a stream until the job ends, the client has gone, it may not go on, or the server stops."""

    def __init__(self, stream: Stream, streams: OpenStreams, heartbeat_seconds: float) -> None:
        # Not the constructor of Response, which makes headers and a body that nobody reads.
        self.status_code = 200
        self.background = None
        self.raw_headers = HEADERS
        self._stream = stream
        self._streams = streams
        self._heartbeat_seconds = heartbeat_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the stream, or an error if it can't be begun."""
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
            # The client comes back, and is told then what is the matter.
            self._streams.broken.failed(error)
        await _end(send)

    async def _run(self, following: "_Following", receive: Receive, send: Send) -> None:
        """Send frames until the end, or until the server stops or the client has gone."""
        scope = asyncio.timeout(None)
        try:
            async with scope, _ends_when_gone(scope, receive):
                opening = sse.RETRY + self._stream.opening
                if self._stream.begins_again:
                    # Together: whoever has the new incarnation from `state` has to have been told to begin again.
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
        """Ask whether the client still has the right; while the store is away, nobody loses it."""
        try:
            return await self._stream.is_allowed()
        except RepositoryError as error:
            self._streams.unchecked.failed(error)
            return True


class _Following:
    """Follows for a stream, through outages of the store: its client sees heartbeats meanwhile."""

    def __init__(self, stream: Stream, outage: OutageLog) -> None:
        """Follow for a stream; `outage` is all streams' own."""
        self._outage = outage
        self._follow = stream.follow
        #: The position of the last event, and what it belongs to.
        self.last = stream.after
        self._incarnation = stream.incarnation
        #: Whether the client still has to be told to begin again.
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
            # Who has been sent nothing can't have lost anything.
            self._incarnation = self._follower.incarnation if self.last else None
            self.close()
            return NOTHING
        self.last = _last_position(page, self.last)
        self._must_reset = self._must_reset and not page.records
        return page

    def close(self) -> None:
        """End."""
        if self._follower is not None:
            self._follower.close()
            self._follower = None


def _last_position(page: Page, before: int) -> int:
    """Return the position of a page's last event; of the one before, if it has none."""
    for record in reversed(page.records):
        if isinstance(record, JobEvent):
            return record.id or before
        if isinstance(record, Notice):
            return max(record.position - 1, 0)
    return before


async def _send(send: Send, frames: bytes) -> None:
    await send({"type": "http.response.body", "body": frames, "more_body": True})


async def _end(send: Send) -> None:
    """End the response, unless the client reads nothing: then the server cuts it off when its own time is over."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(LAST_SECONDS):
            await send({"type": "http.response.body", "body": b"", "more_body": False})


@asynccontextmanager
async def _ends_when_gone(scope: asyncio.Timeout, receive: Receive) -> AsyncIterator[None]:
    """End what runs in a timeout as soon as the client has gone."""

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
