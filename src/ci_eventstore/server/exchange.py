"""Commands and their replies on one connection of redis-py's, read as they arrive, with no task that waits for them."""

import asyncio
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

from hiredis import Reader
from redis import exceptions

from ci_eventstore.server.replies import Reply

#: A command as the server reads it, and who waits for its reply.
Waiting = tuple[bytes, asyncio.Future[Reply]]
#: What a reader says until a reply is complete.
_INCOMPLETE = object()


class Exchange(Protocol):
    """What sends commands, and gives each its reply or redis-py's error."""

    connection: Any

    def is_usable(self) -> bool:
        """Tell whether the connection is still open, as far as is known."""

    def send(self, waiting: Sequence[Waiting]) -> None:
        """Send commands behind those that were sent before."""


def exchange_on(connection: Any) -> Exchange:
    """Return an exchange on a connection that is connected and has nothing to read."""
    writer = getattr(connection, "_writer", None)
    if isinstance(writer, asyncio.StreamWriter):
        return StreamExchange(connection, writer.transport)
    return TurnExchange(connection)


class StreamExchange(asyncio.Protocol):
    """Takes the place of the reader of a connection's transport, until the connection is closed."""

    def __init__(self, connection: Any, transport: asyncio.WriteTransport) -> None:
        self.connection = connection
        self._transport = transport
        self._reader = Reader(
            protocolError=exceptions.InvalidResponse,
            replyError=connection._parser.parse_error,
            notEnoughData=_INCOMPLETE,
        )
        #: The reader that redis-py waits for when it closes the connection.
        self._before: Any = transport.get_protocol()
        self._waiting: deque[asyncio.Future[Reply]] = deque()
        self._patience: float = connection.socket_timeout
        self._loop = asyncio.get_running_loop()
        self._moved_at = 0.0
        self._watch: asyncio.TimerHandle | None = None
        self._is_lost = False
        transport.set_protocol(self)

    def is_usable(self) -> bool:
        """Tell whether the connection is still open, as far as is known."""
        return not self._is_lost and not self._transport.is_closing()

    def send(self, waiting: Sequence[Waiting]) -> None:
        """Send commands behind those that were sent before."""
        if not self._waiting:
            self._moved_at = self._loop.time()
        self._waiting.extend([reply for _, reply in waiting])
        self._transport.write(waiting[0][0] if len(waiting) == 1 else b"".join([command for command, _ in waiting]))
        if self._watch is None:
            self._watch = self._loop.call_later(self._patience, self._look)

    def data_received(self, data: bytes) -> None:
        """Give the replies in the data to those that wait for them."""
        self._moved_at = self._loop.time()
        reader, waiting = self._reader, self._waiting
        try:
            reader.feed(data)
            while waiting and (reply := reader.gets()) is not _INCOMPLETE:
                settle(waiting.popleft(), reply)
            is_unexpected = not waiting and reader.has_data()
        except exceptions.RedisError as error:
            self._lose(error)
        else:
            if is_unexpected:
                self._lose(exceptions.ConnectionError("the server sent what nobody asked for"))

    def eof_received(self) -> bool:
        """Let the transport close itself."""
        self._lose(exceptions.ConnectionError("Connection closed by server."))
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell all that wait, and redis-py."""
        error = exceptions.ConnectionError("Connection closed." if exc is None else f"Connection lost: {exc}")
        error.__cause__ = exc
        self._lose(error)
        if self._watch is not None:
            self._watch.cancel()
        self._before.connection_lost(exc)

    def pause_writing(self) -> None:
        """Go on writing: what waits is bounded by those who wait."""

    def resume_writing(self) -> None:
        """Go on writing."""

    def _look(self) -> None:
        """Lose a connection on which nothing has moved for too long."""
        self._watch = None
        if not self._waiting or self._is_lost:
            return
        patience = self._moved_at + self._patience - self._loop.time()
        if patience > 0:
            self._watch = self._loop.call_later(patience, self._look)
        else:
            self._lose(exceptions.TimeoutError("Timeout reading from the server"))

    def _lose(self, error: Exception) -> None:
        self._is_lost = True
        self._transport.close()
        waiting, self._waiting = self._waiting, deque()
        fail(waiting, error)


class TurnExchange:
    """Reads each reply in turn: for connections that aren't a stream's, such as `fakeredis` has."""

    def __init__(self, connection: Any) -> None:
        self.connection = connection
        self._last: asyncio.Task[None] | None = None
        self._is_lost = False

    def is_usable(self) -> bool:
        """Tell whether no command has failed."""
        return not self._is_lost

    def send(self, waiting: Sequence[Waiting]) -> None:
        """Send commands behind those that were sent before."""
        self._last = asyncio.create_task(self._send(waiting, self._last))

    async def _send(self, waiting: Sequence[Waiting], before: "asyncio.Task[None] | None") -> None:
        if before is not None:
            await asyncio.wait({before})
        try:
            await self.connection.send_packed_command([command for command, _ in waiting])
            for _, reply in waiting:
                settle(reply, await self._receive())
        except BaseException as error:
            self._is_lost = True
            fail([reply for _, reply in waiting], error)
            if not isinstance(error, Exception):
                raise

    async def _receive(self) -> Reply:
        try:
            return await self.connection.read_response()
        except exceptions.ResponseError as error:
            return error


def settle(waiting: asyncio.Future[Reply], reply: Reply) -> None:
    """Give a reply to who waits for it; an error that the server answers is raised."""
    if waiting.done():
        return
    if isinstance(reply, Exception):
        waiting.set_exception(reply)
    else:
        waiting.set_result(reply)


def fail(waiting: Iterable[asyncio.Future[Reply]], error: BaseException) -> None:
    """Raise an error for all that wait."""
    if not isinstance(error, Exception):
        error = exceptions.ConnectionError("closed")
    for reply in waiting:
        if not reply.done():
            reply.set_exception(error)
