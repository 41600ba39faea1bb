"""Connections are closed by whoever made them, wherever that is broken off: no pool loses one that is open."""

import asyncio
import contextlib
import gc
import time
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from redis import exceptions

from ci_eventstore.connection import connections
from ci_eventstore.connection.connections import RedisPy
from ci_eventstore.connection.deployments import from_url
from ci_eventstore.connection.link import Link
from ci_eventstore.connection.node import patience_of
from ci_eventstore.connection.outcomes import Renew
from ci_eventstore.connection.way import Counters
from tests.cancelling import cancel_at_each_step
from tests.waiting import wait_until


class Played:
    """A server that accepts connections, and says OK to commands other than SET, or nothing until it is told to."""

    def __init__(self) -> None:
        self.speaks = asyncio.Event()
        self.is_over = asyncio.Event()
        #: How many connections are open.
        self.open = 0
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one connection."""
        self.open += 1
        try:
            while data := await reader.read(1 << 16):
                await (self.is_over if b"SET\r\n" in data else self.speaks).wait()
                writer.write(b"+OK\r\n" * data.count(b"*"))
        except ConnectionError:
            pass
        finally:
            self.open -= 1
            writer.close()


@pytest.fixture
async def played() -> AsyncIterator[Played]:
    server = Played()
    async with await asyncio.start_server(server.serve, "127.0.0.1", 0) as listening:
        server.url = f"redis://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
        yield server
        server.is_over.set()


@pytest.fixture(autouse=True)
def no_warnings() -> Any:
    """Nothing is left to the garbage collector, which would close it and complain."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
        gc.collect()
    assert [str(one.message) for one in caught if issubclass(one.category, ResourceWarning)] == []


def link_to(server: Played) -> Link:
    return Link(from_url(server.url), patience_of, Counters())


async def listen(link: Link) -> None:
    subscription = link.subscription(lambda *_: None, lambda _: None)
    subscription.listen("channel")
    try:
        await asyncio.sleep(0.05)
    finally:
        await subscription.close()


#: More than fits between two processes.
MUCH = b"x" * (1 << 24)
#: What needs a connection.
USES: dict[str, Callable[[Link], Awaitable[object]]] = {
    "alone": lambda link: link.alone("PING"),
    "together": lambda link: link.with_reads("PING"),
    "many": lambda link: link.many([("PING",), ("PING",)], alone=True),
    "listening": listen,
}


@pytest.mark.parametrize("use", USES)
async def test_whoever_connects_may_be_cancelled_at_any_moment(played: Played, use: str) -> None:
    """The pool has each connection that is open, and hands it out again."""
    played.speaks.set()
    link = link_to(played)

    async def scenario() -> None:
        # So that it is made anew.
        link.renew(Renew.ALL, time.monotonic())
        await USES[use](link)

    async def check(at: int) -> None:
        pools = [client.connection_pool for client in (link.commands, link.listening)]
        its = [one for pool in pools for one in RedisPy.connections_of(pool)]
        await wait_until(lambda: played.open == sum(RedisPy.transport_of(one) is not None for one in its), 5)
        assert await link.alone("PING") == b"OK", f"cancelled at step {at}"

    assert await cancel_at_each_step(scenario, check, of_all_tasks=True) >= 3
    await link.close()
    await wait_until(lambda: played.open == 0, 5)


@pytest.mark.parametrize("use", USES)
async def test_nothing_is_opened_when_all_was_closed(played: Played, use: str) -> None:
    """Neither for who was about to connect, at whatever step, nor for who was just introduced, nor for who comes late.

    A node that has lost its slots is left so while calls are still on their way to it.
    """
    for turns in range(0, 24, 3):
        played.speaks.clear()
        link = link_to(played)
        using = asyncio.ensure_future(USES[use](link))
        for _ in range(turns):
            await asyncio.sleep(0)
        await link.close()
        played.speaks.set()
        with contextlib.suppress(exceptions.RedisError):
            await using
        with contextlib.suppress(exceptions.RedisError):
            await USES[use](link)
        await wait_until(lambda: played.open == 0, 5)


async def test_who_waits_for_its_turn_to_give_one_back_may_be_cancelled(played: Played) -> None:
    """A moment later the pool has it again."""
    played.speaks.set()
    link = link_to(played)
    pool: Any = link.commands.connection_pool
    connection = await pool.get_connection()
    async with pool._condition:
        giving = asyncio.create_task(pool.release(connection))
        await asyncio.sleep(0)
        giving.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await giving
    await wait_until(lambda: connection in pool._available_connections, 5)
    assert await link.alone("PING") == b"OK"
    assert played.open == 1
    await link.close()


async def test_a_command_of_before_leaves_a_new_connection_alone(
    played: Played, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was sent before the connection was made anew; others keep their patience, and closing takes no time."""
    monkeypatch.setitem(connections.PINNED, "socket_timeout", 0.3)
    played.speaks.set()
    link = link_to(played)
    connection: Any = await link.commands.connection_pool.get_connection()
    stuck = [asyncio.create_task(connection.send_command("SET", "k", value)) for value in (MUCH, b"x")]
    await asyncio.sleep(0.05)
    await connection.disconnect(nowait=True)
    await connection.connect()
    await asyncio.gather(*stuck, return_exceptions=True)
    assert connection.is_connected
    assert connection.socket_timeout == 0.3
    stuck = [asyncio.create_task(connection.send_command("SET", "k", MUCH))]
    await asyncio.sleep(0.05)
    began = time.monotonic()
    await link.close()
    assert time.monotonic() - began < 0.2
    await asyncio.gather(*stuck, return_exceptions=True)
