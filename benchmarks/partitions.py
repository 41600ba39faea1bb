"""A store of many partitions beside one of a single one, and what idle controllers ask a server for."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any
from uuid import uuid4

from redis.asyncio import Redis

from benchmarks.results import Row
from benchmarks.rounds import Lap, Side, lap_of, take_turns
from benchmarks.scale import Scale
from benchmarks.texts import events
from benchmarks.verifying import fill, verify
from ci_common.models import Job, JobEvent
from ci_eventstore import RedisJobRepository
from ci_eventstore.controllers import ClaimedJob, Controller, ControllerSettings

TOGETHER = 100
SETTINGS = ControllerSettings(concurrency=TOGETHER)
#: After so long a controller that has nothing to do has made its connections, and asked once.
SETTLED_SECONDS = 0.5


class Partitioned:
    """The measurements of one repository, over all of its partitions."""

    def __init__(self, repository: RedisJobRepository, scale: Scale) -> None:
        self._repository = repository
        self._scale = scale
        self._jobs: list[str] = []

    async def prepare(self) -> None:
        """Create the jobs that are appended to; all of them are running."""
        self._jobs = await self._create("running")

    async def appends(self) -> Lap:
        """Append an event to each of many jobs, many at a time."""
        (event,) = events(1)
        with lap_of(len(self._jobs)) as lap:
            for start in range(0, len(self._jobs), TOGETHER):
                await asyncio.gather(*(self._append(job, event) for job in self._jobs[start : start + TOGETHER]))
        return lap

    async def creations(self) -> Lap:
        """Create jobs that wait, many at a time; then a controller runs them, so that no lap has more than another."""
        with lap_of(self._scale.partition_jobs) as lap:
            await self._create("queued")
        await self._drain()
        return lap

    async def runs(self) -> Lap:
        """Run jobs that do nothing through a controller, from its start to the last job's end."""
        await self._create("queued")
        with lap_of(self._scale.partition_jobs) as lap:
            await self._drain()
        return lap

    async def pages(self) -> Lap:
        """List the jobs that run; their number and their partitions stay as they are."""
        with lap_of(1) as lap:
            found = await self._repository.page_jobs(status="running")
        assert found
        return lap

    async def _append(self, job_id: str, event: JobEvent) -> None:
        await self._repository.add_event(job_id, event)

    async def _create(self, status: Any) -> list[str]:
        jobs = [str(uuid4()) for _ in range(self._scale.partition_jobs)]
        for start in range(0, len(jobs), TOGETHER):
            some = jobs[start : start + TOGETHER]
            await asyncio.gather(*(self._repository.create_job(Job(id=job, status=status)) for job in some))
        return jobs

    async def _drain(self) -> None:
        left = self._scale.partition_jobs

        async def handler(job: ClaimedJob) -> None:
            nonlocal left
            left -= 1
            if not left:
                controller.stop()

        async with Controller(self._repository, settings=SETTINGS) as controller:
            await controller.run(handler)


@asynccontextmanager
async def open_store(url: str, partitions: int, scale: Scale) -> AsyncIterator[Partitioned]:
    """Open an empty store of so many partitions, with its jobs."""
    async with RedisJobRepository.from_url(url, prefix=f"parted-{uuid4().hex}", partitions=partitions) as repository:
        store = Partitioned(repository, scale)
        await store.prepare()
        yield store


async def verification(url: str, partitions: int, scale: Scale, stack: AsyncExitStack) -> Side:
    """Return a side that verifies a store of small jobs, which is open as long as the stack is."""
    repository = RedisJobRepository.from_url(url, prefix=f"verified-{uuid4().hex}", partitions=partitions)
    await stack.enter_async_context(repository)
    await fill(repository, scale.verified_jobs)
    return lambda: verify(repository, scale.verified_jobs)


async def partition_rows(url: str, scale: Scale) -> list[Row]:
    """Measure many partitions beside one, each on its own, and count what idle controllers ask for with either."""
    counts, rounds = (scale.partitions, 1), max(1, scale.rounds // 3)
    rows = []
    async with AsyncExitStack() as stack:
        many, one = [await stack.enter_async_context(open_store(url, count, scale)) for count in counts]
        pairs: list[tuple[str, str, Side, Side]] = [
            ("append to many jobs", "events/s", many.appends, one.appends),
            ("create jobs that wait", "jobs/s", many.creations, one.creations),
            ("run no-op jobs", "jobs/s", many.runs, one.runs),
            ("first page of a listing", "pages/s", many.pages, one.pages),
        ]
        verifying = [await verification(url, count, scale, stack) for count in counts]
        pairs.append((f"verify {scale.verified_jobs:,} small jobs", "jobs/s", verifying[0], verifying[1]))
        for what, unit, ours, theirs in pairs:
            rates = await take_turns(ours, theirs, rounds)
            rows.append(Row(f"{what}, {scale.partitions} partitions", unit, rates[0], "one partition", rates[1]))
    for count, name in zip(counts, (f"{scale.partitions} partitions", "one partition"), strict=True):
        rows.append(Row(f"idle controller, {name}", "commands/s", [await idle_commands(url, count, scale)]))
    return rows


async def idle_commands(url: str, partitions: int, scale: Scale) -> float:
    """Return how many commands a server runs for a controller in a second in which there is nothing to do.

    Each controller has a repository of its own, as one in a process of its own would have. Commands that a script calls
    count, too, since the server runs them.
    """
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(Redis.from_url(url, protocol=2))
        prefix, controllers, running = f"idle-{uuid4().hex}", [], []
        for _ in range(scale.idle_controllers):
            repository = RedisJobRepository.from_url(url, prefix=prefix, partitions=partitions)
            await stack.enter_async_context(repository)
            controllers.append(await stack.enter_async_context(Controller(repository)))
            running.append(asyncio.create_task(controllers[-1].run(_no_job)))
        await asyncio.sleep(min(SETTLED_SECONDS, scale.idle_seconds))
        before = await _commands(client)
        with lap_of(1) as lap:
            await asyncio.sleep(scale.idle_seconds)
            found = await _commands(client) - before
        for controller in controllers:
            controller.stop()
        await asyncio.gather(*running)
    return found / lap.seconds / scale.idle_controllers


async def _commands(client: Redis) -> int:
    """Return how many commands the server has run, but for the question itself."""
    found: dict[str, Any] = await client.info("commandstats")
    return sum(int(line["calls"]) for name, line in found.items() if name != "cmdstat_info")


async def _no_job(job: ClaimedJob) -> None:
    raise AssertionError(f"there was to be nothing to do, and job {job.job.id} came")
