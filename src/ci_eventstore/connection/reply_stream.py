"""Read a connection of redis-py's as its bytes arrive, with no task that waits for them."""

import asyncio
from abc import abstractmethod
from typing import Any

from hiredis import Reader
from redis import exceptions

from ci_eventstore.connection.redis_py import RedisPy
from ci_eventstore.connection.replies import Reply

#: What a reader says until a reply is complete.
_INCOMPLETE = object()


class ReplyStream(asyncio.Protocol):
    """Takes the place of redis-py's reader on a connection that has nothing to read, until that is closed."""

    def __init__(self, connection: Any, transport: asyncio.WriteTransport) -> None:
        """Read from now on what comes."""
        self.connection = connection
        self._transport = transport
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
        # Not `close`, which would wait until what was written has left.
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

    def pause_writing(self) -> None:
        """Go on writing: what waits is bounded by those who wait."""

    def resume_writing(self) -> None:
        """Go on writing."""
