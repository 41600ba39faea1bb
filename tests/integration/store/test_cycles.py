"""Work leaves no cycles of references: a collector that looks for them holds up everything for tens of milliseconds."""

import asyncio
import gc
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

import pytest

from ci_common.models import Job, JobEvent
from ci_eventstore import RedisJobRepository
from ci_eventstore.controllers import ClaimedJob, Controller

TIMES = 20

Work = Callable[[RedisJobRepository], Awaitable[object]]


async def create(repository: RedisJobRepository) -> str:
    """Create a job that waits."""
    job_id = f"j{len(await repository.list_jobs())}"
    await repository.create_job(Job(id=job_id, status="queued"))
    return job_id


async def append(repository: RedisJobRepository) -> None:
    """Append a line to a job, and read it."""
    job_id = await create(repository)
    await repository.add_event(job_id, JobEvent("log", "a line\n"))
    await repository.get_events_since(job_id, 0)


async def write(repository: RedisJobRepository) -> None:
    """Write a log in which secrets are masked."""
    async with repository.log_writer(await create(repository), secrets=["correct horse"]) as log:
        await log.write("a line\n")


async def follow(repository: RedisJobRepository) -> None:
    """Follow a job to its end."""
    job_id = await create(repository)
    await repository.cancel_job(job_id)
    assert [event.type async for event in repository.follow_events(job_id)]


@contextmanager
def cycles() -> Iterator[Counter[str]]:
    """Count by their types the objects that are done with, and that only the garbage collector finds."""
    found: Counter[str] = Counter()
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        yield found
        gc.collect()
        found.update(type(garbage).__qualname__ for garbage in gc.garbage)
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


@pytest.mark.parametrize("work", [create, append, write, follow])
async def test_work_that_is_done_leaves_no_cycles(repository: RedisJobRepository, work: Work) -> None:
    """After the first time, which sends scripts and loads what it needs."""
    await work(repository)
    with cycles() as found:
        for _ in range(TIMES):
            await work(repository)
    assert [name for name, count in found.items() if count >= TIMES // 2] == []


async def test_jobs_that_were_run_leave_no_cycles(repository: RedisJobRepository) -> None:
    """Twenty objects of each job did, so that 300 jobs made the collector look at all there is."""
    ran = asyncio.Semaphore(0)

    async def handler(job: ClaimedJob) -> None:
        await job.write("a line\n")
        ran.release()

    async def run_one() -> None:
        await create(repository)
        await ran.acquire()

    async with Controller(repository) as controller:
        running = asyncio.create_task(controller.run(handler))
        await run_one()
        with cycles() as found:
            for _ in range(TIMES):
                await run_one()
        controller.stop()
        await running
    assert [name for name, count in found.items() if count >= TIMES // 2] == []
