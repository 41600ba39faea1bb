"""A store of many partitions beside one of a single one, and what idle controllers ask a server for.

    python -m benchmarks.partitions

measures how soon jobs begin in one of many partitions, and counts commands for each pair of `GRID`.
"""

import argparse
import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from statistics import median
from typing import Any
from uuid import uuid4

from redis.asyncio import Redis

from benchmarks.results import Row, Target
from benchmarks.rounds import Lap, Side, lap_of, take_turns
from benchmarks.scale import FULL, Scale
from benchmarks.servers import FILE_SETTINGS, running, server_binaries
from benchmarks.texts import events
from benchmarks.verifying import fill, verify
from ci_common.models import Job, JobEvent
from ci_eventstore import RedisJobRepository
from ci_eventstore.controllers import ClaimedJob, Controller, ControllerSettings

TOGETHER = 100
SETTINGS = ControllerSettings(concurrency=TOGETHER)
#: After so long a controller that has nothing to do has looked at all partitions, and counted the others.
SETTLED_SECONDS = 4.0
#: How many controllers wait for the jobs whose starts are timed, and the pause after each job.
WAITING = 3
PAUSE_SECONDS = 0.02
#: Controllers and partitions for which commands are counted.
GRID = tuple(itertools.product((1, 5, 50), (1, 8, 64)))


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
    return rows + await start_rows(url, scale)


class Starting:
    """Times the starts of jobs that come one by one, while some controllers have nothing to do."""

    def __init__(self, repository: RedisJobRepository, scale: Scale) -> None:
        self._repository = repository
        self._scale = scale
        self._begun: dict[str, float] = {}
        self._has_begun = asyncio.Event()

    async def begin(self, job: ClaimedJob) -> None:
        """Note that a controller has begun a job."""
        self._begun[job.job.id] = time.perf_counter()
        self._has_begun.set()

    async def median_ms(self, *, is_spread: bool) -> float:
        """Return the median from the beginning of a creation to the job's start, in one partition or in all of them."""
        keys, found = self._repository.engine.keys, list[float]()
        while len(found) < self._scale.timed_starts:
            job = str(uuid4())
            if not is_spread and keys.job(job).tag != keys.tag(0):
                continue
            self._has_begun.clear()
            began_at = time.perf_counter()
            await self._repository.create_job(Job(id=job, status="queued"))
            await self._has_begun.wait()
            found.append(1000 * (self._begun[job] - began_at))
            await asyncio.sleep(PAUSE_SECONDS)
        return median(found)


async def start_rows(url: str, scale: Scale) -> list[Row]:
    """Time starts with many partitions beside those with one."""
    counts, names = (scale.partitions, 1), ("jobs in one", "jobs in all")
    found: list[tuple[list[float], list[float]]] = [([], []), ([], [])]
    async with AsyncExitStack() as stack:
        sides = []
        for count in counts:
            repositories = [
                await stack.enter_async_context(repository)
                for repository in _repositories(url, count, WAITING + 1, f"starts-{uuid4().hex}")
            ]
            sides.append(Starting(repositories[0], scale))
            await stack.enter_async_context(_controllers(repositories[1:], sides[-1].begin))
        await asyncio.sleep(min(SETTLED_SECONDS, scale.idle_seconds))
        for _ in range(max(1, scale.rounds // 3) + 1):
            for of_name, is_spread in zip(found, (False, True), strict=True):
                for of_side, side in zip(of_name, sides, strict=True):
                    of_side.append(await side.median_ms(is_spread=is_spread))
    # The first round warms up.
    return [
        Row(f"start, {name} of {counts[0]} partitions", "ms", many[1:], "one partition", one[1:], target)
        for name, (many, one), target in zip(names, found, (Target(3, is_most=True), None), strict=True)
    ]


@asynccontextmanager
async def _controllers(repositories: list[RedisJobRepository], handler: Any) -> AsyncIterator[None]:
    """Run a controller for each repository."""
    async with AsyncExitStack() as stack:
        controllers = [await stack.enter_async_context(Controller(repository)) for repository in repositories]
        working = [asyncio.create_task(controller.run(handler)) for controller in controllers]
        yield
        for controller in controllers:
            controller.stop()
        await asyncio.gather(*working)


def _repositories(url: str, partitions: int, count: int, prefix: str) -> Iterator[RedisJobRepository]:
    for _ in range(count):
        yield RedisJobRepository.from_url(url, prefix=prefix, partitions=partitions)


async def idle_commands(url: str, partitions: int, scale: Scale, controllers: int = 0) -> float:
    """Return how many commands a server runs for a controller in a second in which there is nothing to do.

    Each controller has a repository of its own, as one in a process of its own would have. Commands that a script calls
    count, too, since the server runs them.
    """
    count = controllers or scale.idle_controllers
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(Redis.from_url(url, protocol=2))
        repositories = [
            await stack.enter_async_context(repository)
            for repository in _repositories(url, partitions, count, f"idle-{uuid4().hex}")
        ]
        async with _controllers(repositories, _no_job):
            await asyncio.sleep(min(SETTLED_SECONDS, scale.idle_seconds))
            before = await _commands(client)
            with lap_of(1) as lap:
                await asyncio.sleep(scale.idle_seconds)
                found = await _commands(client) - before
    return found / lap.seconds / count


def fitted(commands: Mapping[tuple[int, int], float]) -> tuple[float, float, float]:
    """Return what controllers, partitions and the product of both add to commands/s: the closest sum of the three.

    Closest in proportion, so that a small figure counts as much as a large one.
    """
    rows = [[x / found for x in (c, p, c * p)] for (c, p), found in commands.items()]
    matrix = [
        [sum(row[i] * row[j] for row in rows) for j in range(3)] + [sum(row[i] for row in rows)] for i in range(3)
    ]
    for i in range(3):
        for j in range(3):
            if j != i:
                factor = matrix[j][i] / matrix[i][i]
                matrix[j] = [x - factor * y for x, y in zip(matrix[j], matrix[i], strict=True)]
    return matrix[0][3] / matrix[0][0], matrix[1][3] / matrix[1][1], matrix[2][3] / matrix[2][2]


async def _commands(client: Redis) -> int:
    """Return how many commands the server has run, but for the question itself."""
    found: dict[str, Any] = await client.info("commandstats")
    return sum(int(line["calls"]) for name, line in found.items() if name != "cmdstat_info")


async def _no_job(job: ClaimedJob) -> None:
    raise AssertionError(f"there was to be nothing to do, and job {job.job.id} came")


async def _main() -> None:
    with running(server_binaries()[0], next(iter(FILE_SETTINGS)), tcp=False) as url:
        for row in await start_rows(url, FULL):
            ratio = median(row.ratios)
            print(f"{row.what}: {median(row.ours):.2f} ms, {row.peer}: {median(row.theirs):.2f} ms, ratio {ratio:.2f}")
        commands = {}
        for controllers, partitions in GRID:
            commands[controllers, partitions] = controllers * await idle_commands(url, partitions, FULL, controllers)
            print(
                f"{controllers:2} idle, {partitions:2} partitions: {commands[controllers, partitions]:6.1f} commands/s"
            )
        # Nobody shares a single partition.
        shared = {pair: found for pair, found in commands.items() if pair[1] > 1}
        print("{:.2f} x controllers + {:.2f} x partitions + {:.4f} x both".format(*fitted(shared)))


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    asyncio.run(_main())
