"""Listen to channels."""

import asyncio
from collections.abc import Sequence
from typing import Any

from hiredis import pack_command

from ci_eventstore.server.replies import Reply
from ci_eventstore.server.reply_stream import ReplyStream


class Listener(ReplyStream):
    """A connection that listens to channels."""

    def __init__(self, connection: Any, transport: asyncio.WriteTransport) -> None:
        """Listen to nothing yet."""
        super().__init__(connection, transport)
        self._messages: list[tuple[str, str]] = []
        self._confirmed = 0
        self._error: Exception | None = None
        self._moved = asyncio.Event()

    async def subscribe(self, channels: Sequence[str], patience_seconds: float) -> None:
        """Begin to listen, and return when the server has confirmed it; redis-py's errors, TimeoutError."""
        command: tuple[Any, ...] = ("SUBSCRIBE", *channels)
        self.write(pack_command(command))
        async with asyncio.timeout(patience_seconds):
            while self._confirmed < len(channels):
                await self._wait()

    async def receive(self) -> list[tuple[str, str]]:
        """Wait for messages, and return them with their channels; redis-py's errors."""
        while not self._messages:
            await self._wait()
        messages, self._messages = self._messages, []
        return messages

    def take(self, reply: Reply) -> None:
        """Note a message, or that the server listens for us."""
        if isinstance(reply, Exception):
            self.lose(reply)
        elif reply[0] == b"message":
            self._messages.append((reply[1].decode(), reply[2].decode()))
        else:
            self._confirmed += 1
        self._moved.set()

    def end(self, error: Exception) -> None:
        """Wake who waits."""
        self._error = self._error or error
        self._moved.set()

    async def _wait(self) -> None:
        if self._error is not None:
            raise self._error
        self._moved.clear()
        await self._moved.wait()
