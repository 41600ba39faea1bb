"""Listen to channels on one connection, which is made again as often as it fails."""

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import Any

from redis import exceptions
from redis.asyncio.connection import ConnectionPool

from ci_eventstore.connection.connections import RedisPy
from ci_eventstore.connection.exchange import ReplyStream
from ci_eventstore.connection.outage_log import Outages
from ci_eventstore.connection.outcomes import pauses
from ci_eventstore.connection.replies import Reply

logger = logging.getLogger("ci_eventstore.connection")

#: After this long without a message the server is asked for one; after as long again the connection counts as dead.
PING_SECONDS = 5.0
#: How many channels one command names at most; more would keep the server busy for milliseconds.
COMMAND_CHANNELS = 5000
#: A connection isn't given up for another one before it is so old.
RENEW_SECONDS = 2.0


class Subscription:
    """Channels that are listened to; `on_message` gets a channel and its message.

    What is said while a channel isn't listened to is never heard. So `on_listening` gets channels each time that the
    server has confirmed them: what comes after is heard, what came before has to be read elsewhere. Channels that were
    named together are confirmed together, also over another connection.
    """

    def __init__(
        self, pool: ConnectionPool, on_message: Callable[[str, bytes], None], on_listening: Callable[[list[str]], None]
    ) -> None:
        self._pool = pool
        self._on_message = on_message
        self._on_listening = on_listening
        #: In the order in which they were named.
        self._channels: dict[str, None] = {}
        #: Changes not sent yet, by channel: True to listen, False to ignore.
        self._changes: dict[str, bool] = {}
        #: The channels of each command that the server hasn't confirmed.
        self._unconfirmed: deque[list[str]] = deque()
        self._pauses = pauses()
        self._connection: Any = None
        self._reader: asyncio.Task[None] | None = None
        self._sender: asyncio.Task[None] | None = None
        self._connected_at = 0.0
        self._renewal: asyncio.TimerHandle | None = None
        self._outages = Outages()

    def listen(self, *channels: str) -> None:
        """Begin to listen to some channels."""
        self._channels.update(dict.fromkeys(channels))
        if self._reader is None:
            self._reader = asyncio.create_task(self._run())
        self._changes.update(dict.fromkeys(channels, True))
        self._start_sender()

    def ignore(self, channel: str) -> None:
        """Stop listening to a channel."""
        self._channels.pop(channel, None)
        self._changes[channel] = False
        self._start_sender()

    def renew(self) -> None:
        """Listen over another connection, soon: the address may lead to another server by now."""
        if self._connection is not None and self._renewal is None:
            loop = asyncio.get_running_loop()
            self._renewal = loop.call_at(self._connected_at + RENEW_SECONDS, self._drop)

    def _drop(self) -> None:
        self._renewal = None
        transport = None if self._connection is None else RedisPy.transport_of(self._connection)
        if transport is not None:
            # The reader notices, and begins again.
            transport.abort()

    async def close(self) -> None:
        """Close the connection and stop listening."""
        if self._renewal is not None:
            self._renewal.cancel()
        for task in (self._reader, self._sender):
            if task is not None:
                task.cancel()
        await asyncio.gather(*filter(None, (self._reader, self._sender)), return_exceptions=True)

    async def _run(self) -> None:
        while True:
            try:
                await self._listen()
            except (exceptions.RedisError, OSError) as error:
                logger.debug("no connection to listen on", extra={"error": str(error)})
            except Exception as error:  # noqa: BLE001 - it is logged; nobody would hear anything any more
                self._outages.fault(logger, "listening", error)
            await asyncio.sleep(next(self._pauses))

    async def _listen(self) -> None:
        """Listen over one connection until it fails; an error if there is none, or for what nobody expects."""
        connection = await self._pool.get_connection()
        try:
            await self._read(connection)
        except (exceptions.RedisError, OSError) as error:
            logger.info("listening again", extra={"error": str(error)})
        finally:
            self._connection = None
            await connection.disconnect(nowait=True)
            await self._pool.release(connection)

    async def _read(self, connection: Any) -> None:
        """Pass on messages of a new connection until it fails with an error of redis-py's."""
        stream = _Stream(connection, self._take)
        self._changes = dict.fromkeys(self._channels, True)
        self._unconfirmed.clear()
        self._connection = connection
        self._connected_at = asyncio.get_running_loop().time()
        self._start_sender()
        was_asked = False
        while True:
            was_heard = await stream.was_heard()
            if not was_heard and was_asked:
                raise exceptions.TimeoutError("the server said nothing")
            was_asked = not was_heard
            if was_asked:
                await connection.send_command("PING")

    def _take(self, reply: Reply) -> None:
        if not isinstance(reply, list) or len(reply) != 3:
            return
        kind, channel, content = reply
        if kind == b"message":
            self._on_message(channel.decode(), content)
        elif kind == b"subscribe" and channel.decode() == self._unconfirmed[0][-1]:
            # The last one of its command: replies come in the order of the commands.
            self._pauses = pauses()
            self._on_listening(self._unconfirmed.popleft())

    def _start_sender(self) -> None:
        if self._sender is None and self._connection is not None:
            self._sender = asyncio.create_task(self._send())

    async def _send(self) -> None:
        """Send the changes, many channels to a command."""
        try:
            while self._changes and self._connection is not None:
                changes, self._changes = self._changes, {}
                for command, is_wanted in (("UNSUBSCRIBE", False), ("SUBSCRIBE", True)):
                    channels = [channel for channel, wanted in changes.items() if wanted is is_wanted]
                    for start in range(0, len(channels), COMMAND_CHANNELS):
                        await self._send_command(command, channels[start : start + COMMAND_CHANNELS])
        finally:
            self._sender = None

    async def _send_command(self, command: str, channels: list[str]) -> None:
        connection = self._connection
        if connection is None:
            return
        if command == "SUBSCRIBE":
            self._unconfirmed.append(channels)
        try:
            await connection.send_command(command, *channels)
        except Exception as error:  # noqa: BLE001 - it is logged; the channels are sent again
            if isinstance(error, exceptions.RedisError | OSError):
                logger.debug("a connection to listen on failed", extra={"error": str(error)})
            else:
                self._outages.fault(logger, "listening", error)
            # The reader notices, and begins again.
            if self._connection is connection:
                self._connection = None
            await connection.disconnect(nowait=True)


class _Stream(ReplyStream):
    """Passes on replies as they arrive."""

    def __init__(self, connection: Any, on_reply: Callable[[Reply], None]) -> None:
        super().__init__(connection)
        self._on_reply = on_reply
        self._was_heard = False
        self._ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def was_heard(self) -> bool:
        """Wait, and tell whether something came meanwhile; the error with which the connection ended."""
        self._was_heard = False
        done, _ = await asyncio.wait({self._ended}, timeout=PING_SECONDS)
        if done:
            self._ended.result()
        return self._was_heard

    def take(self, reply: Reply) -> None:
        """Pass on the next reply."""
        self._was_heard = True
        try:
            if isinstance(reply, Exception):
                raise reply
            self._on_reply(reply)
        except Exception as error:  # noqa: BLE001 - it belongs to the task that waits for the end
            self.lose(error)

    def end(self, error: Exception) -> None:
        """Wake the task that waits for the end."""
        if not self._ended.done():
            self._ended.set_exception(error)
            # Nobody needs to have waited.
            self._ended.exception()
