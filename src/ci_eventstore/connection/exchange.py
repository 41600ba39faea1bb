"""Commands and their replies on one connection of redis-py's, read as bytes arrive, without a wait between them."""

import asyncio
from abc import abstractmethod
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any, cast

from hiredis import Reader
from redis import exceptions

from ci_eventstore.connection.connections import RedisPy
from ci_eventstore.connection.replies import Reply

#: The reader returns this until a reply is complete.
_INCOMPLETE = object()


class _PlainTransport(asyncio.WriteTransport):
    """Stands in for the transport of a connection that has none, as those of `fakeredis`: a task reads the replies."""

    def __init__(self, connection: Any) -> None:
        super().__init__()
        self._connection = connection
        self._reading: asyncio.Task[None] | None = None

    def get_protocol(self) -> asyncio.BaseProtocol:
        """Return a reader that nobody waits for."""
        return asyncio.Protocol()

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Hand replies to a stream from now on."""
        self._reading = asyncio.create_task(self._read(cast(ReplyStream, protocol)))

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send commands."""
        RedisPy.write_plainly(self._connection, bytes(data))

    def is_closing(self) -> bool:
        """Tell whether the connection was closed."""
        return not self._connection.is_connected

    def abort(self) -> None:
        """Stop reading."""
        if self._reading is not None:
            self._reading.cancel()

    async def _read(self, stream: "ReplyStream") -> None:
        while self._connection.is_connected:
            try:
                if await self._connection.can_read(timeout=1.0):
                    stream.take(await self._connection.read_response())
            except exceptions.ResponseError as error:
                stream.take(error)
            except Exception as error:  # noqa: BLE001 - it belongs to those who wait for replies
                stream.lose(error)
        stream.lose(exceptions.ConnectionError("Connection closed."))


class ReplyStream(asyncio.Protocol):
    """Takes the place of redis-py's reader on a connection that has nothing to read, until that is closed."""

    def __init__(self, connection: Any) -> None:
        """Read all replies from now on."""
        self.connection = connection
        self._transport = transport = RedisPy.transport_of(connection) or _PlainTransport(connection)
        parse_error = RedisPy.error_parser_of(connection)
        self._reader = Reader(
            protocolError=exceptions.InvalidResponse, replyError=parse_error, notEnoughData=_INCOMPLETE
        )
        #: The reader that redis-py waits for when it closes the connection.
        self._before: Any = transport.get_protocol()
        self._is_lost = False
        transport.set_protocol(self)

    @abstractmethod
    def take(self, reply: Reply) -> None:
        """Take the next reply; an error that the server answers is one."""

    @abstractmethod
    def end(self, error: Exception) -> None:
        """Take notice, perhaps again, that nothing more comes."""

    def is_usable(self) -> bool:
        """Tell whether the connection is still open, as far as is known."""
        return not self._is_lost and not self._transport.is_closing()

    def write(self, data: bytes) -> None:
        """Send commands."""
        self._transport.write(data)

    def lose(self, error: Exception) -> None:
        """Close the connection."""
        self._is_lost = True
        # `close` would wait until the last bytes written have left.
        self._transport.abort()
        self.end(error)

    def data_received(self, data: bytes) -> None:
        """Take the replies in the data."""
        reader = self._reader
        try:
            reader.feed(data)
            while (reply := reader.gets()) is not _INCOMPLETE:
                self.take(reply)
        except exceptions.RedisError as error:
            self.lose(error)

    def eof_received(self) -> bool:
        """Let the transport close itself."""
        self.lose(exceptions.ConnectionError("Connection closed by server."))
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell all that wait, and redis-py."""
        error = exceptions.ConnectionError("Connection closed." if exc is None else f"Connection lost: {exc}")
        error.__cause__ = exc
        self._is_lost = True
        self.end(error)
        self._before.connection_lost(exc)


#: A command as the server reads it, and the future of its reply.
Waiting = tuple[bytes, asyncio.Future[Reply]]


class Exchange(ReplyStream):
    """Gives each reply to its caller, in the order of the commands."""

    def __init__(self, connection: Any) -> None:
        super().__init__(connection)
        self._waiting: deque[asyncio.Future[Reply]] = deque()
        self._patience: float = connection.socket_timeout
        self._loop = asyncio.get_running_loop()
        self._moved_at = 0.0
        self._watch: asyncio.TimerHandle | None = None
        self._drained: asyncio.Future[None] | None = None

    def is_idle(self) -> bool:
        """Tell whether it is usable and nothing is on its way."""
        return not self._waiting and self.is_usable()

    def is_silent(self, seconds: float) -> bool:
        """Tell whether something is on its way, and nothing has come for some time."""
        return bool(self._waiting) and self._loop.time() - self._moved_at > seconds

    def send(self, waiting: Sequence[Waiting]) -> None:
        """Send commands after those that were sent before."""
        if not self._waiting:
            self._moved_at = self._loop.time()
        self._waiting.extend([reply for _, reply in waiting])
        self.write(waiting[0][0] if len(waiting) == 1 else b"".join([command for command, _ in waiting]))
        if self._watch is None:
            self._watch = self._loop.call_later(self._patience, self._look)

    async def drained(self) -> None:
        """Return when all that was sent has its reply, or never gets one."""
        if self._waiting:
            self._drained = self._loop.create_future()
            await self._drained

    def take(self, reply: Reply) -> None:
        """Give the next reply."""
        self._moved_at = self._loop.time()
        if self._waiting:
            settle(self._waiting.popleft(), reply)
            if self._drained is not None and not self._waiting:
                settle(self._drained, None)
        else:
            self.lose(exceptions.ConnectionError("the server sent what nobody asked for"))

    def end(self, error: Exception) -> None:
        """Fail what waits."""
        if self._watch is not None:
            self._watch.cancel()
        waiting, self._waiting = self._waiting, deque()
        fail(waiting, error)
        if self._drained is not None:
            settle(self._drained, None)

    def _look(self) -> None:
        """Lose a connection on which nothing has moved for too long."""
        self._watch = None
        if not self._waiting or not self.is_usable():
            return
        patience = self._moved_at + self._patience - self._loop.time()
        if patience > 0:
            self._watch = self._loop.call_later(patience, self._look)
        else:
            self.lose(exceptions.TimeoutError("Timeout reading from the server"))


def settle(waiting: asyncio.Future[Reply], reply: Reply) -> None:
    """Give a reply to its caller; raise it there if it is an error."""
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
