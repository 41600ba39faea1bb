"""A server that refuses again and again, for each of its reasons, under writers, submitters, a log and a controller."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator

import pytest
from redis.asyncio import Redis

from ci_common.models import Job, JobEvent
from ci_eventstore.controllers.claimed_job import ClaimedJob
from ci_eventstore.controllers.controller import Controller, ControllerSettings
from ci_eventstore.repository import RedisJobRepository
from tests.integration.store.fact_readers import keep_facts, untold
from tests.integration.store.refusals import PASSING
from tests.servers import RealServer, find_valkey

pytestmark = pytest.mark.slow

WRITERS = 8
#: Jobs that nobody ends: those of the writers, and the one with the log.
OWN = WRITERS + 1
REFUSED_SECONDS = 3.0
REASONS = ("OOM", "NOREPLICAS", "MISCONF", "BUSY", "READONLY", "LOADING")


@pytest.fixture
def refusing() -> Iterator[RealServer]:
    with RealServer(find_valkey(), "enable-debug-command yes", tcp=True) as started:
        yield started


@pytest.fixture
async def admin(refusing: RealServer) -> AsyncIterator[Redis]:
    async with Redis(unix_socket_path=str(refusing.socket_path)) as opened:
        yield opened


class Load:
    """Writers, submitters and a log, and what was acknowledged to each."""

    def __init__(self, repository: RedisJobRepository) -> None:
        self.repository = repository
        self.is_over = False
        self.events = Counter[int]()
        self.lines = 0
        self.submitted = list[str]()
        self.runs = Counter[str]()

    async def write(self, writer: int) -> None:
        """Append events to a job of one's own."""
        while not self.is_over:
            await self.repository.add_event(f"job-{writer}", JobEvent("log", f"{self.events[writer]}\n"))
            self.events[writer] += 1
            await asyncio.sleep(0.005)

    async def submit(self) -> None:
        """Create jobs that wait for the controller."""
        while not self.is_over:
            job_id = f"queued-{len(self.submitted)}"
            await self.repository.create_job(Job(id=job_id, status="queued", user_id=f"user-{len(job_id)}"))
            self.submitted.append(job_id)
            await asyncio.sleep(0.1)

    async def log(self) -> None:
        """Write lines to a log, in chunks of its writer's."""
        async with self.repository.log_writer("logged") as log:
            while not self.is_over:
                await log.write(f"{self.lines}\n")
                self.lines += 1
                await asyncio.sleep(0.005)

    async def handle(self, claimed: ClaimedJob) -> None:
        """Run a job for a moment."""
        self.runs[claimed.job.id] += 1
        await claimed.log.write("begun\n")
        await asyncio.sleep(0.3)
        await claimed.log.write("done\n")


def numbers(count: int) -> str:
    return "".join(f"{number}\n" for number in range(count))


async def text_of(repository: RedisJobRepository, job_id: str) -> str:
    return "".join(event.data or "" for event in await repository.get_events_since(job_id, 0))


@pytest.mark.timeout(300)
async def test_refusals_lose_and_double_nothing(refusing: RealServer, admin: Redis) -> None:
    """Each refusal of three seconds costs time alone: all calls succeed, once each, and each job runs once."""
    async with (
        RedisJobRepository.from_url(refusing.url) as repository,
        Controller(repository, settings=ControllerSettings(concurrency=20, lease_seconds=5.0)) as controller,
    ):
        await keep_facts(repository)
        load = Load(repository)
        for writer in range(WRITERS):
            await repository.create_job(Job(id=f"job-{writer}", status="running"))
        await repository.create_job(Job(id="logged", status="running"))
        running = asyncio.create_task(controller.run(load.handle))
        async with asyncio.TaskGroup() as group:
            for writer in range(WRITERS):
                group.create_task(load.write(writer))
            group.create_task(load.submit())
            group.create_task(load.log())
            for reason in REASONS:
                await asyncio.sleep(0.5)
                async with PASSING[reason][0](admin, refusing):
                    await asyncio.sleep(REFUSED_SECONDS)
            await asyncio.sleep(1)
            load.is_over = True
        async with asyncio.timeout(60):
            while (
                await repository.page_jobs(status="queued") or len(await repository.page_jobs(status="running")) > OWN
            ):
                pass
        controller.stop()
        await running
        # No call of the load failed, or its task would have; a controller's question may, and is asked again.
        assert repository.engine.nodes.counters.retries > 0
        for writer in range(WRITERS):
            assert await text_of(repository, f"job-{writer}") == numbers(load.events[writer])
        assert await text_of(repository, "logged") == numbers(load.lines)
        assert set(load.runs) == set(load.submitted)
        assert set(load.runs.values()) == {1}
        for job_id in load.submitted:
            assert await text_of(repository, job_id) == "begun\ndone\n"
        assert await repository.verify() == []
        assert await untold(repository) == []
