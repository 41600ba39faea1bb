"""Send what many callers ask for over one connection, without waiting for one reply before the next command leaves."""

import asyncio
import logging
from collections.abc import Sequence
from typing import Any

from hiredis import pack_command
from redis import exceptions
from redis.asyncio.connection import ConnectionPool

from ci_eventstore.connection.exchange import Exchange, Waiting, fail
from ci_eventstore.connection.replies import Reply
from ci_eventstore.tasks import begin

logger = logging.getLogger("ci_eventstore.connection")


class Pipeline:
    """Takes commands; while some are on their way, those that come in one turn of the event loop leave together.

    It keeps a connection of the pool. When that is lost, what waits for replies fails with redis-py's errors, and the
    next command gets another one from the pool, which connects again.
    """

    def __init__(self, pool: ConnectionPool) -> None:
        self._pool = pool
        self._waiting: list[Waiting] = []
        self._is_starting = False
        self._exchange: Exchange | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._connecting_since = 0.0
        self._retiring: set[asyncio.Task[None]] = set()

    async def execute(self, *command: str | int | bytes) -> Reply:
        """Send a command and return its reply; redis-py's errors. Cancelling doesn't take a sent command back."""
        loop = asyncio.get_running_loop()
        reply: asyncio.Future[Reply] = loop.create_future()
        packed = pack_command(command)  # type: ignore[arg-type]
        if self._exchange is not None and self._exchange.is_idle() and not self._waiting:
            self._exchange.send([(packed, reply)])
        else:
            # While others are on their way, those that come in the same turn leave together.
            self._waiting.append((packed, reply))
            if not self._is_starting:
                self._is_starting = True
                loop.call_soon(self._send)
        return await reply

    async def execute_all(self, commands: Sequence[Sequence[str | int | bytes]]) -> list[Reply]:
        """Send commands with none of others between them, and return their replies, errors of the server among them.

        redis-py's errors if the connection fails. Cancelling doesn't take a sent command back.
        """
        loop = asyncio.get_running_loop()
        replies: list[asyncio.Future[Reply]] = [loop.create_future() for _ in commands]
        all_there: asyncio.Future[list[Reply]] = loop.create_future()

        def gather(_: asyncio.Future[Reply]) -> None:
            found = [reply.exception() or reply.result() for reply in replies]
            if not all_there.done():
                all_there.set_result(found)

        # Replies come in the order of their commands. Nobody else waits for them, so none is ever cancelled.
        replies[-1].add_done_callback(gather)
        packed = [pack_command(tuple(command)) for command in commands]  # type: ignore[arg-type]
        self._waiting += zip(packed, replies, strict=True)
        if not self._is_starting:
            self._is_starting = True
            loop.call_soon(self._send)
        found = await all_there
        for reply in found:
            if isinstance(reply, Exception) and not isinstance(reply, exceptions.ResponseError):
                raise reply
        return found

    def is_silent(self, seconds: float) -> bool:
        """Tell whether commands wait, and nothing has come for some time, perhaps not even a connection."""
        if self._connecting is not None:
            return asyncio.get_running_loop().time() - self._connecting_since > seconds
        return self._exchange is not None and self._exchange.is_silent(seconds)

    def renew(self) -> None:
        """Send new commands over another connection; the old one goes after its last reply."""
        if self._exchange is not None:
            task = begin(self._retire(self._exchange), logger, "giving a connection back")
            self._exchange = None
            self._retiring.add(task)
            task.add_done_callback(self._retiring.discard)

    async def _retire(self, exchange: Exchange) -> None:
        try:
            await exchange.drained()
        finally:
            await self._give_back(exchange.connection)

    def _send(self) -> None:
        """Send what waits, over a new connection if the old one is gone."""
        if not self._waiting:
            self._is_starting = False
            return
        if self._exchange is None or not self._exchange.is_usable():
            if self._connecting is None:
                self._connecting = asyncio.create_task(self._connect())
                self._connecting_since = asyncio.get_running_loop().time()
            return
        self._is_starting = False
        waiting, self._waiting = [one for one in self._waiting if not one[1].done()], []
        if waiting:
            try:
                self._exchange.send(waiting)
            except Exception as error:  # noqa: BLE001 - it belongs to those who wait for replies
                fail([reply for _, reply in waiting], error)

    async def _connect(self) -> None:
        """Get a connection, then send what waits; without one, all that waits fails."""
        try:
            if self._exchange is not None:
                old, self._exchange = self._exchange.connection, None
                await self._give_back(old)
            connection = await self._pool.get_connection()
            self._exchange = Exchange(connection)
        except BaseException as error:
            waiting, self._waiting, self._is_starting, self._connecting = self._waiting, [], False, None
            fail([reply for _, reply in waiting], error)
            if not isinstance(error, Exception):
                raise
        else:
            # It may be lost already: then another one is got.
            self._connecting = None
            self._send()

    async def _give_back(self, connection: Any) -> None:
        try:
            await connection.disconnect(nowait=True)
        finally:
            await self._pool.release(connection)
