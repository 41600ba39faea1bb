"""The connection that carries all scripts: lost, silent, or closed while nobody used it."""

import asyncio
import time
from collections.abc import Sequence

import pytest

from ci_eventstore.connection import connections
from ci_eventstore.connection.deployments import from_url
from ci_eventstore.connection.nodes import Nodes
from ci_eventstore.errors import NotInitializedError, StoreUnavailableError
from ci_eventstore.store_format import INITIALIZE
from tests.fault_proxy import Fault, FaultProxy, always
from tests.servers import RealServer

SCRIPT = INITIALIZE
#: Arguments that the script doesn't look at.
LASTS: list[list[str]] = [["unlucky"], []]


async def run(server: Nodes) -> object:
    return await server.run(SCRIPT, ["{ci:accounts}:store"], [1, 1, "0"])


async def test_many_scripts_share_a_connection(valkey: RealServer, server: Nodes) -> None:
    """Their replies come back to whom they belong."""
    await run(server)
    await asyncio.gather(*(run(server) for _ in range(1000)))
    clients = (await server.read("CLIENT", "LIST")).decode().splitlines()
    assert sum("cmd=evalsha" in line for line in clients) == 1


async def test_a_connection_that_was_closed_while_idle_is_replaced(own: RealServer, proxy: FaultProxy) -> None:
    """The next call goes over another one, and isn't sent twice."""
    opened = Nodes(from_url(proxy.url))
    await run(opened)
    proxy.cut_all()
    await asyncio.sleep(0.05)
    seen: list[bytes] = []

    def watch(command: Sequence[bytes]) -> None:
        seen.append(command[0])

    proxy.plan = watch
    await run(opened)
    assert seen.count(b"EVALSHA") == 1
    await opened.close()


@pytest.mark.usefixtures("impatient")
async def test_a_call_that_finds_no_server_never_takes_effect(own: RealServer) -> None:
    """Nothing is sent on a connection that is known to be closed: the outcome would be unknown."""
    opened = Nodes(from_url(own.url))
    await run(opened)
    own.kill()
    await asyncio.sleep(0.05)
    with pytest.raises(StoreUnavailableError):
        await run(opened)
    await opened.close()


async def test_a_connection_on_which_nothing_comes_is_given_up(
    own: RealServer, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All that waits is sent again on another one, after the time that the socket has."""
    monkeypatch.setitem(connections.PINNED, "socket_timeout", 0.3)
    opened = Nodes(from_url(proxy.url))
    await run(opened)
    left = [Fault.HALF_OPEN]
    proxy.plan = lambda command: left.pop() if left and command[0] == b"EVALSHA" else None
    started = time.monotonic()
    await asyncio.gather(run(opened), run(opened))
    assert 0.3 <= time.monotonic() - started < 2
    await opened.close()


async def test_who_is_sent_again_does_not_share_others_fate(own: RealServer, proxy: FaultProxy) -> None:
    """A call is cut again and again; one that was on its way with it gets through at its second try."""
    opened = Nodes(from_url(proxy.url))
    await run(opened)
    unlucky = True

    def plan(command: Sequence[bytes]) -> Fault | None:
        return Fault.CUT_BEFORE if unlucky and b"unlucky" in command else None

    proxy.plan = plan
    calls = [asyncio.create_task(opened.run(SCRIPT, ["{ci:accounts}:store"], [1, 1, "0", *last])) for last in LASTS]
    async with asyncio.timeout(10):
        await calls[1]
    assert not calls[0].done()
    unlucky = False
    await calls[0]
    await opened.close()


async def test_who_waits_when_the_server_is_closed_is_told(own: RealServer, proxy: FaultProxy) -> None:
    """Nobody waits for a reply on a connection that this process has closed."""
    opened = Nodes(from_url(proxy.url))
    await run(opened)
    proxy.plan = always(Fault.STALL)
    waiting = asyncio.create_task(run(opened))
    await asyncio.sleep(0.05)
    await opened.close()
    async with asyncio.timeout(5):
        with pytest.raises(NotInitializedError):
            await waiting
