"""Many writers, while the network fails at random and the server stalls, dies and comes back: every line is there once.

`make test-all` runs the short form, `make soak` a long one. The seed of a failed run is in its log; with it in the
environment variable CI_EVENTSTORE_SEED the proxy chooses the same faults again, and the writers the same lines.
"""

import asyncio
import logging
import os
import time

import pytest

from ci_common.models import Job
from ci_eventstore.connection import node
from ci_eventstore.connection.scripts import ClockReading
from ci_eventstore.repository import RedisJobRepository
from ci_eventstore.writer.log_writer import LogWriter, WriterSettings
from tests.deployments.whole import Whole
from tests.fault_proxy import QUICK_FAULTS, Fault, FaultProxy, always, randomly
from tests.history import History, Outcome, check
from tests.integration.store.crowd import Crowd, open_crowd
from tests.integration.store.servers_found import finding
from tests.servers import BINARIES, RealServer, find_valkey
from tests.waiting import wait_until

logger = logging.getLogger(__name__)

IS_SOAK = os.environ.get("CI_EVENTSTORE_SOAK") == "1"
#: Longer than a connection waits for an answer.
STALL_SECONDS = 12.0
OUTAGE_SECONDS = 30.0 if IS_SOAK else 6.0
#: Of the lines of a steady log, with their line ends.
LINE_CHARACTERS = 100
#: How often the short form is gone through.
ROUNDS = 20 if IS_SOAK else 1

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800 if IS_SOAK else 120)]


find_server = finding(BINARIES)


async def end_of(crowd: Crowd, proxy: FaultProxy) -> list[str]:
    """Complete the jobs while the network fails, then mend it, and return what is wrong with them."""
    await crowd.stop()
    await crowd.complete_jobs()
    proxy.plan = always(None)
    await crowd.write_everywhere()
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


@pytest.fixture
def away(own: RealServer | Whole) -> None:
    """The server can be away for a while; one that is started by whoever misses it can't."""
    if isinstance(own, Whole) and not own.stays_away:
        pytest.skip("it is never away")


async def go_through_an_outage(own: RealServer, proxy: FaultProxy, crowd: Crowd, seed: int) -> None:
    """Break all that can be broken, and let the server be away for longer than a call waits."""
    proxy.release.set()
    proxy.plan = randomly(seed, 0.1)
    await crowd.progress()
    own.kill()
    async with asyncio.TaskGroup() as group:
        for outcome in (Outcome.REFUSED, Outcome.UNKNOWN):
            group.create_task(crowd.progress(1, outcome))
    await asyncio.to_thread(own.start)
    await crowd.progress()


async def hold_calls_back(proxy: FaultProxy, crowd: Crowd, known: Outcome) -> None:
    """Hold all commands in the network until many of their calls have ended, and let no other through after that."""
    proxy.release.clear()
    proxy.plan = always(Fault.LATE)
    await crowd.progress(30, known)
    proxy.plan = always(Fault.CUT_BEFORE)


@pytest.mark.usefixtures("impatient", "away")
async def test_calls_that_give_up(own: RealServer, proxy: FaultProxy, seed: int) -> None:
    """What was refused isn't there, and of an unknown outcome what a read shows is final."""
    async with open_crowd([proxy.url, proxy.url, own.url], own.url, seed) as crowd:
        for number in range(ROUNDS):
            await go_through_an_outage(own, proxy, crowd, seed + number)
            await hold_calls_back(proxy, crowd, Outcome.ABSENT)
            await proxy.delivered()
            proxy.plan = randomly(seed, 0.1)
        assert await end_of(crowd, proxy) == []


@pytest.mark.usefixtures("impatient", "away")
async def test_calls_that_give_up_while_the_clock_is_set_back(
    own: RealServer, proxy: FaultProxy, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The deadlines of late commands don't pass, and still they can't come after what their process wrote next."""
    deadline = ClockReading.deadline_ms
    monkeypatch.setattr(ClockReading, "deadline_ms", lambda *given: deadline(*given) + 3_600_000)
    monkeypatch.setattr(ClockReading, "seconds_until_past", lambda *given: 0.0)
    async with open_crowd([proxy.url, proxy.url, own.url], own.url, seed) as crowd:
        # Only the next write makes an outcome final, not a read.
        crowd.settles = False
        for number in range(ROUNDS):
            await go_through_an_outage(own, proxy, crowd, seed + number)
            await hold_calls_back(proxy, crowd, Outcome.UNKNOWN)
            proxy.plan = always(None)
            await crowd.write_everywhere()
            await proxy.delivered()
        assert await end_of(crowd, proxy) == []


@pytest.mark.parametrize("find_server", [find_valkey], ids=["valkey"], indirect=True)
async def test_an_outage_under_a_steady_log(
    own: RealServer, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thousand lines a second: while the server is away the spool fills to its limit, then the producer waits."""
    if not IS_SOAK:
        # So that calls end with an unknown outcome in a short outage too.
        monkeypatch.setattr(node, "PATIENCE_SECONDS", 1.0)
    spool, history = 200_000, History()
    settings = WriterSettings(spool_characters=spool)
    async with RedisJobRepository.from_url(own.url) as observer, RedisJobRepository.from_url(proxy.url) as repository:
        await observer.create_job(Job(id="j", status="running"))
        async with repository.log_writer("j", settings=settings) as writer, asyncio.TaskGroup() as group:
            producer = group.create_task(produce(writer, history, round(1000 * (OUTAGE_SECONDS + 2))))
            await wait_until(lambda: len(history.calls) > 1000)
            own.kill()
            began = time.monotonic()
            await wait_until(lambda: writer._chunker.characters > spool)
            waiting_since = len(history.calls)
            await asyncio.sleep(began + OUTAGE_SECONDS - time.monotonic())
            waiting_until_then = len(history.calls)
            await asyncio.to_thread(own.start)
        assert waiting_until_then == waiting_since
        assert producer.result() <= spool + LINE_CHARACTERS
        for call in history.calls:
            call.outcome = Outcome.ACKNOWLEDGED
        assert check(history, await observer.get_events_since("j", 0)) == []
        assert await observer.verify() == []


async def produce(writer: LogWriter, history: History, count: int) -> int:
    """Write a thousand lines a second; return the most characters that were waiting for the store."""
    began, most = time.monotonic(), 0
    for number in range(count):
        await asyncio.sleep(max(0.0, began + number / 1000 - time.monotonic()))
        line = f"line {number}".ljust(LINE_CHARACTERS - 1, ".")
        history.begin("producer", [line], is_one_step=False)
        await writer.write(f"{line}\n")
        most = max(most, writer._chunker.characters)
    return most
