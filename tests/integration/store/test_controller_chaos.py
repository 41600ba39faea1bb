"""Controllers as processes, while they, the server, the network and its clock fail: every job is ended once, by one.

`make test-all` runs the short form, CI_EVENTSTORE_SOAK=1 the long one. The seed of a failed run is in its log; with it
in the environment variable CI_EVENTSTORE_SEED the same faults come in the same order.
"""

import asyncio
import logging
import os
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from ci_eventstore.connection.deployments import from_url
from ci_eventstore.connection.nodes import Nodes
from tests.claim_history import ClaimHistory, Story, claims_are_counted, jobs_end_once, nobody_writes_after_a_release
from tests.fault_proxy import QUICK_FAULTS, FaultProxy, always, randomly
from tests.integration.store.chaos_controller_program import Order
from tests.integration.store.fact_readers import keep_facts, untold
from tests.integration.store.fleet import Controllers, Jobs, open_fleet
from tests.integration.store.followers import admin_of
from tests.integration.store.servers_found import finding
from tests.servers import BINARIES, RealServer

logger = logging.getLogger(__name__)

IS_SOAK = os.environ.get("CI_EVENTSTORE_SOAK") == "1"
PROCESSES, JOBS, ROUNDS = (6, 2000, 12) if IS_SOAK else (3, 150, 1)
LEASE_SECONDS = 1.5
#: How many jobs end between two faults.
STEP = 20 if IS_SOAK else 8
PAUSE_SECONDS = 60.0 if IS_SOAK else 5.0
HOUR_MS = 3_600_000
CLOCK = "{ci:0}:clock"
DISPATCH = "{ci:0}:dispatch:default"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800 if IS_SOAK else 120)]


find_server = finding(BINARIES if IS_SOAK else BINARIES[1:])


@pytest.fixture
def proxy(proxy: FaultProxy) -> FaultProxy:
    """Nothing is held: what comes late comes as soon as its caller has given up."""
    proxy.release.set()
    return proxy


@pytest.fixture
async def direct(own: RealServer) -> AsyncIterator[Nodes]:
    opened = Nodes(from_url(own.url))
    yield opened
    await opened.close()


async def served(direct: Nodes) -> int:
    """Return for how many milliseconds the partition was served."""
    return int(await direct.read("HGET", CLOCK, "now") or 0)


async def wait_served(direct: Nodes, seconds: float) -> None:
    """Wait until the partition was served for so long."""
    until = await served(direct) + seconds * 1000
    async with asyncio.timeout(120):
        while await served(direct) < until:  # noqa: ASYNC110 - it is the server's
            await asyncio.sleep(0.05)


class Faults:
    """What may go wrong, in an order and with victims that the seed decides."""

    def __init__(
        self, own: RealServer, proxy: FaultProxy, direct: Nodes, controllers: Controllers, jobs: Jobs, seed: int
    ) -> None:
        self._own = own
        self._proxy = proxy
        self._direct = direct
        self._controllers = controllers
        self._jobs = jobs
        self._chance = random.Random(seed)

    async def go_through(self, rounds: int) -> None:
        """Let everything go wrong, several times."""
        for number in range(rounds):
            faults = self._all()
            self._chance.shuffle(faults)
            for fault in faults:
                logger.warning("round %d: %s", number, getattr(fault, "__name__", fault))
                await self._jobs.submit((JOBS - len(self._jobs.ids)) // 4)
                await fault()
                await self._jobs.progress(STEP)

    def _all(self) -> list[Callable[[], Awaitable[None]]]:
        return [
            self.kill_one,
            self.kill_one,
            self.stop_one,
            self.kill_the_server,
            self.stop_the_server,
            self.set_the_clock_ahead,
            self.set_the_clock_back,
            self.destroy_the_group,
            self.cancel_some,
            self.cut_all,
        ]

    def _victim(self) -> str:
        return self._chance.choice(sorted(self._controllers.running))

    async def kill_one(self) -> None:
        """Kill a controller; another one comes."""
        self._controllers.kill(self._victim())
        self._controllers.start()

    async def stop_one(self) -> None:
        """Let one stand still for longer than its leases last."""
        victim = self._victim()
        self._controllers.suspend(victim)
        await wait_served(self._direct, 2.5 * LEASE_SECONDS)
        self._controllers.resume(victim)

    async def kill_the_server(self) -> None:
        """Kill the server, and start it on what it has on its disk."""
        self._own.kill()
        self._proxy.cut_all()
        await asyncio.to_thread(self._own.start)

    async def stop_the_server(self) -> None:
        """Let the server stand still for some leases."""
        self._own.suspend()
        await asyncio.sleep(2.5 * LEASE_SECONDS)
        self._own.resume()

    async def set_the_clock_ahead(self) -> None:
        """Let the server's clock jump an hour ahead."""
        await self._direct.read("HINCRBY", CLOCK, "seen", -HOUR_MS)

    async def set_the_clock_back(self) -> None:
        """Let the server's clock jump an hour back."""
        await self._direct.read("HINCRBY", CLOCK, "seen", HOUR_MS)

    async def destroy_the_group(self) -> None:
        """Forget who took which ticket."""
        await self._direct.read("XGROUP", "DESTROY", DISPATCH, "controllers")

    async def cancel_some(self) -> None:
        """Cancel jobs, whatever they are at."""
        for job_id in self._chance.sample(self._jobs.ids, len(self._jobs.ids) // 10):
            await self._jobs.cancel(job_id)

    async def cut_all(self) -> None:
        """Cut all connections."""
        self._proxy.cut_all()


#: What must be so of a stream, whatever controllers say.
ALONE = (claims_are_counted, jobs_end_once, nobody_writes_after_a_release)


def order_for(url: str, seed: int, *, lease_seconds: float, answer_seconds: float, pause_seconds: float) -> Order:
    return Order(url, "", "", seed, lease_seconds, answer_seconds, pause_seconds)


async def test_everything_fails_and_every_job_is_ended_once(
    own: RealServer, proxy: FaultProxy, direct: Nodes, seed: int, tmp_path: Path
) -> None:
    """Killed, stopped and cut off controllers lose jobs, and what they write afterwards is refused."""
    order = order_for(proxy.url, seed, lease_seconds=LEASE_SECONDS, answer_seconds=0.4, pause_seconds=0.15)
    async with open_fleet(PROCESSES, order, tmp_path, own.url) as (controllers, jobs):
        await keep_facts(jobs.repository)
        await jobs.submit(JOBS // 3)
        await jobs.progress(1)
        proxy.plan = randomly(seed, 0.02)
        await Faults(own, proxy, direct, controllers, jobs, seed).go_through(ROUNDS)
        await jobs.submit(JOBS - len(jobs.ids))
        proxy.plan = always(None)
        await jobs.progress(JOBS, seconds=600 if IS_SOAK else 60)
        assert await controllers.stop() == []
        assert await jobs.findings(controllers) == []
        assert await untold(jobs.repository) == []
    assert proxy.faults > 0


async def test_healthy_controllers_keep_their_jobs(
    own: RealServer, proxy: FaultProxy, direct: Nodes, seed: int, tmp_path: Path
) -> None:
    """Lost replies and a server that stands still take no job from them; only who was killed or stopped loses some."""
    order = order_for(proxy.url, seed, lease_seconds=2.0, answer_seconds=10.0, pause_seconds=0.4)
    proxy.plan = randomly(seed, 0.03, QUICK_FAULTS)
    async with open_fleet(PROCESSES, order, tmp_path, own.url) as (controllers, jobs):
        await keep_facts(jobs.repository)
        await jobs.submit(JOBS // 2)
        await jobs.progress(STEP)
        for _ in range(2):
            own.suspend()
            await asyncio.sleep(PAUSE_SECONDS)
            own.resume()
            await jobs.progress(STEP)
            controllers.kill(min(controllers.running))
            controllers.start()
            await wait_served(direct, 2.5)
        await jobs.progress(JOBS, seconds=300)
        assert await controllers.stop() == []
        assert await jobs.findings(controllers, pauses_only=True) == []
        assert await untold(jobs.repository) == []
    assert proxy.faults > 0


async def test_controllers_go_on_when_everything_was_deleted(own: RealServer, seed: int, tmp_path: Path) -> None:
    """Jobs that are gone end nobody; new ones are run, also those with the ids of old ones."""
    order = order_for(own.url, seed, lease_seconds=1.0, answer_seconds=10.0, pause_seconds=0.4)
    async with open_fleet(2, order, tmp_path, own.url) as (controllers, jobs):
        await jobs.submit(40)
        await jobs.progress(10)
        async with admin_of(own) as admin:
            await admin.flushall()
        jobs.ids.clear()
        await jobs.submit(30)
        await jobs.progress(30)
        assert await controllers.stop() == []
        assert [str(difference) for difference in await jobs.repository.verify()] == []
        for job_id in jobs.ids:
            story = Story.of(await jobs.records(job_id))
            assert [one for rule in ALONE for one in rule(ClaimHistory(), story)] == []
