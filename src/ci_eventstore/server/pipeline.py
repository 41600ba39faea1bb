"""Send what is asked for at the same time together: one write to the socket, one read, for many callers."""

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Any

from hiredis import pack_command
from redis import exceptions
from redis.asyncio.connection import ConnectionPool

from ci_eventstore.server.replies import Reply

#: So many commands go out together at most.
BATCH_COMMANDS = 256
#: So many batches are on their way at most, each on a connection of its own; further commands wait and gather.
BATCHES = 4

_Waiting = tuple[bytes, asyncio.Future[Reply]]


class Pipeline:
    """Takes commands one by one; those that come before the event loop's next turn share a connection's round trip."""

    def __init__(self, pool: ConnectionPool) -> None:
        self._pool = pool
        self._waiting: deque[_Waiting] = deque()
        self._senders: set[asyncio.Task[None]] = set()
        self._is_starting = False

    async def execute(self, *command: str | int | bytes) -> Reply:
        """Send a command and return its reply; redis-py's errors. Cancelling doesn't take back what was sent."""
        reply: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._waiting.append((pack_command(command), reply))  # type: ignore[arg-type]
        self._start_sender()
        return await reply

    def _start_sender(self) -> None:
        """See to it that what waits is sent at the event loop's next turn, if there is a batch to spare."""
        if self._waiting and not self._is_starting and len(self._senders) < BATCHES:
            self._is_starting = True
            sender = asyncio.create_task(self._send_all())
            self._senders.add(sender)
            sender.add_done_callback(self._note_end)

    def _note_end(self, sender: "asyncio.Task[None]") -> None:
        self._senders.discard(sender)
        self._start_sender()

    async def _send_all(self) -> None:
        self._is_starting = False
        while self._waiting:
            batch: list[_Waiting] = []
            while self._waiting and len(batch) < BATCH_COMMANDS:
                waiting = self._waiting.popleft()
                if not waiting[1].done():
                    batch.append(waiting)
            if batch:
                await self._send(batch)

    async def _send(self, batch: Sequence[_Waiting]) -> None:
        try:
            connection: Any = await self._pool.get_connection()
        except Exception as error:  # noqa: BLE001 - it belongs to those who wait
            _fail(batch, error)
            return
        try:
            await connection.send_packed_command([command for command, _ in batch])
            for _, reply in batch:
                await _receive(connection, reply)
        except BaseException as error:
            _fail(batch, error)
            await connection.disconnect(nowait=True)
            if not isinstance(error, Exception):
                raise
        finally:
            await self._pool.release(connection)


async def _receive(connection: Any, waiting: asyncio.Future[Reply]) -> None:
    """Read one reply; an error that the server answers is its caller's, any other one is of all that are left."""
    try:
        reply = await connection.read_response()
    except exceptions.ResponseError as error:
        if not waiting.done():
            waiting.set_exception(error)
    else:
        if not waiting.done():
            waiting.set_result(reply)


def _fail(batch: Sequence[_Waiting], error: BaseException) -> None:
    for _, reply in batch:
        if not reply.done():
            reply.set_exception(error if isinstance(error, Exception) else exceptions.ConnectionError("closed"))
