"""A stream as a response, and all those that are open.

A response is an ASGI application of its own, since frames come ready and connections are many.
"""

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, closing, contextmanager
from typing import NamedTuple, Protocol

from fastapi import Request, Response
from starlette.types import Receive, Scope, Send

from ci_common.errors import RepositoryError
from ci_eventstore.connection.outage_log import OutageLog
from ci_eventstore.errors import StoreUnavailableError
from ci_eventstore.web.errors import ANSWERED, WebError, error_response
from ci_eventstore.web.limits import counted
from ci_eventstore.web.streams import sse

logger = logging.getLogger("ci_eventstore.web")
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

    def counted(self, user_id: str | None) -> AbstractContextManager[None]:
        """Count a stream; WebError 429 if the user has too many."""
        text = f"you have {self._most_per_user} streams open, more are not allowed: close one"
        refusal = WebError(429, "too_many_streams", text, {"Retry-After": "5"})
        return counted(self._by_user, user_id, self._most_per_user, refusal)

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


class StreamPiece(NamedTuple):
    """What a stream sends next."""

    frames: bytes
    #: Nothing follows.
    is_last: bool = False
    #: Nothing came: the client gets a heartbeat.
    is_idle: bool = False


IDLE = StreamPiece(b"", is_idle=True)
LAST = StreamPiece(b"", is_last=True)


class Source(Protocol):
    """What one client gets, piece by piece."""

    @property
    def user_id(self) -> str | None:
        """Whose stream it is; None: nobody's, so that it isn't limited."""

    async def begin(self) -> None:
        """Begin, once; an error of `ANSWERED` is the answer to the client."""

    async def read(self, seconds: float) -> StreamPiece:
        """Return the next piece, an idle one if none comes in time or the store is away; errors of `ANSWERED`.

        The first one that isn't idle opens the stream.
        """

    def is_allowed(self) -> Awaitable[bool]:
        """Return whether the client may still read this; RepositoryError if that can't be looked up."""

    def close(self) -> None:
        """End; also one that hasn't begun."""


class StreamResponse(Response):
    """Sends a stream until it ends, the client has gone, it may not go on, or the server stops."""

    def __init__(self, source: Source, streams: OpenStreams, heartbeat_seconds: float) -> None:
        # The constructor of Response would make headers and a body that nobody reads.
        self.status_code = 200
        self.background = None
        self.raw_headers = HEADERS
        self._source = source
        self._streams = streams
        self._heartbeat_seconds = heartbeat_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the stream, or an error if it can't begin."""
        has_started = False
        try:
            with self._streams.counted(self._source.user_id), closing(self._source):
                await self._source.begin()
                has_started = True
                await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
                await self._run(receive, send)
        except ANSWERED as error:
            if not has_started:
                await error_response(error)(scope, receive, send)
                return
            # The client comes back, and gets the error then.
            self._streams.broken.failed(error)
        await _end(send)

    async def _run(self, receive: Receive, send: Send) -> None:
        """Send frames until the end, or until the server stops or the client has gone."""
        scope = asyncio.timeout(None)
        try:
            async with scope, _ends_when_gone(scope, receive):
                while (piece := await self._source.read(self._heartbeat_seconds)).is_idle:
                    await _send(send, sse.HEARTBEAT)
                await _send(send, sse.RETRY + piece.frames)
                with self._streams.entered(scope):
                    await self._send_pieces(send)
        except TimeoutError:
            if not scope.expired():
                raise

    async def _send_pieces(self, send: Send) -> None:
        loop = asyncio.get_running_loop()
        checked_at = loop.time()
        while True:
            piece = await self._source.read(self._heartbeat_seconds)
            if piece.frames:
                await _send(send, piece.frames)
            elif piece.is_idle:
                await _send(send, sse.HEARTBEAT)
            if piece.is_last:
                return
            if loop.time() - checked_at >= self._heartbeat_seconds:
                checked_at = loop.time()
                if not await self._is_allowed():
                    return

    async def _is_allowed(self) -> bool:
        """Return whether the client may still read this; while the store is away, nobody loses that right."""
        try:
            return await self._source.is_allowed()
        except RepositoryError as error:
            self._streams.unchecked.failed(error)
            return True


def whole(frames: bytes) -> Response:
    """Return a stream that is sent as a whole."""
    return Response(sse.RETRY + frames, headers={name.decode(): value.decode() for name, value in HEADERS})


def unavailable(request: Request, error: StoreUnavailableError) -> Response:
    """Tell a client of a stream only to come back, since at an error `EventSource` gives up; others get the error."""
    if "text/event-stream" not in request.headers.get("accept", ""):
        raise error
    return whole(sse.HEARTBEAT)


def _send(send: Send, frames: bytes) -> Awaitable[None]:
    return send({"type": "http.response.body", "body": frames, "more_body": True})


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
