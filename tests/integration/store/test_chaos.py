"""Many writers, while the network fails at random and the server stalls, dies and comes back: every line is there once.

`make test` runs the short form, `make soak` a long one. The seed of a failed run is in its log; with it in the
environment variable CI_EVENTSTORE_SEED the proxy chooses the same faults again, and the writers the same lines.
"""

import asyncio
import logging
import os
import random
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from ci_eventstore.server import client
from tests.fault_proxy import QUICK_FAULTS, FaultProxy, randomly
from tests.history import Outcome
from tests.integration.store.crowd import Crowd, open_crowd
from tests.servers import RealServer, find_redis7, find_valkey

logger = logging.getLogger(__name__)

IS_SOAK = os.environ.get("CI_EVENTSTORE_SOAK") == "1"
#: Longer than a connection waits for an answer.
STALL_SECONDS = 12.0
OUTAGE_SECONDS = 30.0 if IS_SOAK else 6.0
#: How often the short form is gone through.
ROUNDS = 20 if IS_SOAK else 1

pytestmark = pytest.mark.timeout(1800 if IS_SOAK else 120)


@pytest.fixture
def seed() -> int:
    chosen = int(os.environ.get("CI_EVENTSTORE_SEED") or random.SystemRandom().getrandbits(32))
    logger.warning("CI_EVENTSTORE_SEED=%d", chosen)
    return chosen


@pytest.fixture(params=[find_redis7, find_valkey], ids=["redis7", "valkey"])
def own(request: pytest.FixtureRequest) -> Iterator[RealServer]:
    """A server that may be stopped and killed, and loses nothing by it."""
    find: Callable[[], Path] = request.param
    try:
        binary = find()
    except LookupError as reason:
        pytest.skip(str(reason))
    with RealServer(binary, "appendfsync always") as started:
        yield started


@pytest.fixture
async def proxy(own: RealServer) -> AsyncIterator[FaultProxy]:
    async with FaultProxy(own.socket_path) as opened:
        yield opened


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time is short, so that calls give up within a second."""
    monkeypatch.setitem(client.PINNED, "socket_timeout", 0.2)
    monkeypatch.setattr(client, "PATIENCE_SECONDS", 0.6)


async def end_of(crowd: Crowd, proxy: FaultProxy) -> list[str]:
    """Complete the jobs while the network fails, then mend it, and return what is wrong with them."""
    await crowd.stop()
    await crowd.complete_jobs()
    proxy.plan = lambda command: None
    await crowd.say_farewell()
    await proxy.delivered()
    return await crowd.findings()


async def kill_and_start(own: RealServer, proxy: FaultProxy) -> None:
    own.kill()
    proxy.cut_all()
    await asyncio.to_thread(own.start)


async def test_a_stalled_and_a_killed_server(own: RealServer, proxy: FaultProxy, seed: int) -> None:
    """Nobody notices: every call is acknowledged, though answers are lost and the server stands still and dies."""
    async with open_crowd([proxy.url, proxy.url, own.url], own.url, seed) as crowd:
        for number in range(ROUNDS):
            proxy.plan = randomly(seed + number, 0.05, QUICK_FAULTS)
            await crowd.progress()
            own.suspend()
            await asyncio.sleep(STALL_SECONDS)
            own.resume()
            await crowd.progress()
            await kill_and_start(own, proxy)
            await crowd.progress()
        assert await end_of(crowd, proxy) == []
        assert set(crowd.ended) == {Outcome.ACKNOWLEDGED, Outcome.OPEN}
    assert proxy.faults > 0


async def go_through_outages(own: RealServer, proxy: FaultProxy, crowd: Crowd, seed: int) -> None:
    """Break all that can be broken, and let the server be away until calls were refused and given up."""
    for number in range(3 * ROUNDS):
        proxy.plan = randomly(seed + number, 0.1)
        await crowd.progress()
        proxy.release.clear()
        before = crowd.ended.copy()
        own.kill()
        await wait_until(lambda before=before: crowd.ended[Outcome.REFUSED] > before[Outcome.REFUSED])  # type: ignore[misc]
        await asyncio.to_thread(own.start)
        await crowd.progress()
        proxy.release.set()
        proxy.cut_all()
