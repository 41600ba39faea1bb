"""Listen to channels on one connection, which is made again as often as it fails."""

import asyncio
import logging
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from redis import exceptions
from redis.asyncio.connection import ConnectionPool

from ci_eventstore.connection.connections import RedisPy
from ci_eventstore.connection.exchange import ReplyStream
from ci_eventstore.connection.failures import reply_of
from ci_eventstore.connection.outage_log import Outages
from ci_eventstore.connection.outcomes import pauses
from ci_eventstore.connection.replies import Reply
from ci_eventstore.connection.topology import slot_of

logger = logging.getLogger("ci_eventstore.connection")

#: After this long without a message the server is asked for one; after as long again the connection counts as dead.
PING_SECONDS = 5.0
#: How many channels one command names at most; more would keep the server busy for milliseconds.
COMMAND_CHANNELS = 5000
#: A connection isn't given up for another one before it is so old.
RENEW_SECONDS = 2.0


#: Is given channels that a node of a cluster doesn't serve, or not any more, and its words; no channels if the
#: connection failed.
OnRefused = Callable[[list[str], str], None]


@dataclass(eq=False, slots=True)
class _Change:
    """A command that the server hasn't confirmed; of sharded channels, which it may refuse, also one to ignore some."""

    channels: list[str]
    is_wanted: bool


class Subscription:
    """Channels that are listened to; `on_message` gets a channel and its message.

    What is said while a channel isn't listened to is never heard. So `on_listening` gets channels each time that the
    server has confirmed them: what comes after is heard, what came before has to be read elsewhere. Channels that were
    named together are confirmed together, also over another connection.

    With `on_refused`, channels are sharded, and those of each slot are confirmed for themselves: a node refuses those
    of a slot that isn't its own, and drops those of a slot that goes.
    """

    def __init__(
        self,
        pool: ConnectionPool,
        on_message: Callable[[str, bytes], None],
        on_listening: Callable[[list[str]], None],
        on_refused: OnRefused | None = None,
    ) -> None:
        self._pool = pool
        self._on_message = on_message
        self._on_listening = on_listening
        self._on_refused = on_refused
        self._sharded = "" if on_refused is None else "S"
        #: In the order in which they were named.
        self._channels: dict[str, None] = {}
        #: Changes not sent yet, by channel: True to listen, False to ignore.
        self._changes: dict[str, bool] = {}
        self._unconfirmed: deque[_Change] = deque()
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
            if self._on_refused is not None:
                self._on_refused([], "")
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
        stream = _Stream(connection, self._take, self._take_error)
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
        kind, name, content = reply
        if kind in (b"message", b"smessage"):
            self._on_message(name.decode(), content)
        elif kind in (b"subscribe", b"ssubscribe"):
            # The last one of its command says that all of them are heard.
            change = self._confirmed(name.decode(), is_wanted=True)
            if change is not None:
                self._pauses = pauses()
                self._on_listening(change.channels)
        elif kind == b"sunsubscribe" and self._confirmed(name.decode(), is_wanted=False) is None:
            self._give_up([name.decode()], "the slot has moved")

    def _confirmed(self, channel: str, *, is_wanted: bool) -> _Change | None:
        """Return the command that ends with a channel, and forget it."""
        for change in self._unconfirmed:
            if change.is_wanted is is_wanted and change.channels[-1] == channel:
                self._unconfirmed.remove(change)
                return change
            if not self._sharded:
                return None
        return None

    def _take_error(self, error: Exception) -> None:
        """Give up the channels of the command that is refused; without sharded channels, no command may be."""
        words = reply_of(error) or ""
        redirected = re.match(r"(?:MOVED|ASK) (\d+) ", words)
        if self._on_refused is None or not (redirected or self._unconfirmed):
            raise error
        # One that names a slot may be about any of the commands; or about one to ignore what was dropped just before.
        slot = int(redirected[1]) if redirected else None
        of_slot = (one for one in self._unconfirmed if slot is None or slot_of(one.channels[0]) == slot)
        change = next(of_slot, None)
        if change is None:
            return
        self._unconfirmed.remove(change)
        if change.is_wanted:
            self._give_up(change.channels, words)

    def _give_up(self, channels: list[str], words: str) -> None:
        """Leave channels to others that are still wanted, but not to be had here."""
        lost = [channel for channel in channels if channel in self._channels]
        for channel in lost:
            del self._channels[channel]
        if lost and self._on_refused is not None:
            self._on_refused(lost, words)

    def _start_sender(self) -> None:
        if self._sender is None and self._connection is not None:
            self._sender = asyncio.create_task(self._send())

    async def _send(self) -> None:
        """Send the changes, many channels to a command."""
        try:
            while self._changes and self._connection is not None:
                changes, self._changes = self._changes, {}
                for is_wanted in (False, True):
                    channels = [channel for channel, wanted in changes.items() if wanted is is_wanted]
                    for together in _commands_of(channels, by_slot=bool(self._sharded)):
                        await self._send_change(_Change(together, is_wanted))
        finally:
            self._sender = None

    async def _send_change(self, change: _Change) -> None:
        connection = self._connection
        if connection is None:
            return
        if change.is_wanted or self._sharded:
            self._unconfirmed.append(change)
        try:
            command = f"{self._sharded}{'SUBSCRIBE' if change.is_wanted else 'UNSUBSCRIBE'}"
            await connection.send_command(command, *change.channels)
        except Exception as error:  # noqa: BLE001 - it is logged; the channels are sent again
            if isinstance(error, exceptions.RedisError | OSError):
                logger.debug("a connection to listen on failed", extra={"error": str(error)})
            else:
                self._outages.fault(logger, "listening", error)
            # The reader notices, and begins again.
            if self._connection is connection:
                self._connection = None
            await connection.disconnect(nowait=True)


def _commands_of(channels: Iterable[str], *, by_slot: bool) -> Iterator[list[str]]:
    """Yield the channels that one command may name: not too many, and of sharded ones those of one slot."""
    together: dict[int, list[str]] = {}
    for channel in channels:
        together.setdefault(slot_of(channel) if by_slot else 0, []).append(channel)
    for some in together.values():
        for start in range(0, len(some), COMMAND_CHANNELS):
            yield some[start : start + COMMAND_CHANNELS]


class _Stream(ReplyStream):
    """Passes on replies as they arrive."""

    def __init__(
        self, connection: Any, on_reply: Callable[[Reply], None], on_error: Callable[[Exception], None]
    ) -> None:
        super().__init__(connection)
        self._on_reply = on_reply
        self._on_error = on_error
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
                self._on_error(reply)
            else:
                self._on_reply(reply)
        except Exception as error:  # noqa: BLE001 - it belongs to the task that waits for the end
            self.lose(error)

    def end(self, error: Exception) -> None:
        """Wake the task that waits for the end."""
        if not self._ended.done():
            self._ended.set_exception(error)
            # Nobody needs to have waited.
            self._ended.exception()
