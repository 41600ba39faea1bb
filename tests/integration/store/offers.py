"""A controller that offers to take a job, for tests of offers."""

from collections.abc import AsyncIterator, Callable

import pytest

from ci_common.models import Job
from ci_eventstore.connection import connections
from ci_eventstore.connection.nodes import Nodes
from ci_eventstore.jobs.create import CREATE
from ci_eventstore.queues.claim import PEEK
from ci_eventstore.queues.claimed import Claimed
from ci_eventstore.queues.claimer import Claimer, Heard
from ci_eventstore.repository import RedisJobRepository
from tests.deployments.homes import Home
from tests.fault_proxy import Fault, FaultProxy, load
from tests.waiting import wait_until

LEASE = 30.0
OFFERS, OFFERED, CLOCK = "{ci:0}:offers:default", "{ci:0}:offered:default", "{ci:0}:clock"
DISPATCH = "{ci:0}:dispatch:default"
FAULTS = (Fault.CUT_BEFORE, Fault.CUT_AFTER, Fault.CUT_IN_REPLY, Fault.STALL, Fault.HALF_OPEN)


class Waiter:
    """A controller's claimer, and what it hears."""

    def __init__(self, repository: RedisJobRepository, name: str, *queues: str) -> None:
        self.heard: list[Heard] = []
        queues = queues or ("default",)
        self.claimer = Claimer(
            repository.engine.nodes, repository.engine.keys, name, queues, LEASE, 60.0, self.heard.append
        )

    @property
    def given(self) -> list[Claimed]:
        return [heard.given for heard in self.heard if heard.given is not None]

    async def listen(self) -> None:
        self.claimer.listen()
        await wait_until(lambda: len(self.heard) >= 1)
        self.heard.clear()

    async def ask(self) -> list[str]:
        """Ask for a job, and offer to take the next one if there is none."""
        return ids(await self.claimer.claim(1, is_idle=True))

    async def close(self) -> None:
        await self.claimer.withdraw()
        await self.claimer.close()


def ids(claimed: list[Claimed]) -> list[str]:
    return [one.job.id for one in claimed]


async def submit(repository: RedisJobRepository, *jobs: str, queue: str = "default") -> None:
    for job_id in jobs:
        await repository.create_job(Job(id=job_id, status="queued", user_id=job_id[0], queue=queue))


async def status_of(repository: RedisJobRepository, job_id: str) -> str:
    job = await repository.get_job_summary(job_id)
    assert job is not None
    return str(job.status)


async def attempts_of(server: Nodes, job_id: str) -> int:
    return int(await server.read("HGET", f"{{ci:0}}:job:{job_id}", "attempts"))


@pytest.fixture
async def open_waiter(repository: RedisJobRepository) -> AsyncIterator[Callable[..., Waiter]]:
    opened: list[Waiter] = []

    def open_one(name: str, *queues: str, through: RedisJobRepository = repository) -> Waiter:
        opened.append(Waiter(through, name, *queues))
        return opened[-1]

    yield open_one
    for waiter in opened:
        await waiter.close()


@pytest.fixture
async def waiter(open_waiter: Callable[..., Waiter]) -> Waiter:
    """A controller that has found nothing and offers to take a job."""
    found = open_waiter("c1")
    await found.listen()
    assert await found.ask() == []
    return found


@pytest.fixture
async def proxy(valkey: Home, server: Nodes, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[FaultProxy]:
    """A proxy whose clients are impatient, before a server that knows the scripts."""
    monkeypatch.setitem(connections.PINNED, "socket_timeout", 0.2)
    await load(server, CREATE, PEEK)
    async with valkey.proxy() as opened:
        yield opened


@pytest.fixture
async def remote(repository: RedisJobRepository, proxy: FaultProxy) -> AsyncIterator[RedisJobRepository]:
    """A repository that talks through the proxy to the server of `repository`."""
    async with RedisJobRepository.from_url(proxy.url) as opened:
        yield opened


@pytest.fixture
async def far_waiter(open_waiter: Callable[..., Waiter], remote: RedisJobRepository) -> Waiter:
    """A `waiter` on the other side of the proxy."""
    found: Waiter = open_waiter("c1", through=remote)
    await found.listen()
    assert await found.ask() == []
    return found
