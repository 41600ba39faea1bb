"""Verify a store of many small jobs, as most are: created, some lines of log, ended."""

import asyncio

from benchmarks.results import Row, Target
from benchmarks.rounds import Lap, lap_of
from benchmarks.sides import Sides
from benchmarks.texts import events
from ci_common.models import Job, utc_now
from ci_eventstore import RedisJobRepository

#: Apart from what else is measured on the server.
PREFIX = "bench-verify"
TOGETHER = 100
LINES = 5
USERS = 50


async def verifying_rows(sides: Sides, url: str, *, has_targets: bool) -> list[Row]:
    """Fill a store of its own, then verify it in each round."""
    count = sides.scale.verified_jobs
    async with RedisJobRepository.from_url(url, prefix=PREFIX) as repository:
        await fill(repository, count)
        laps = [await verify(repository, count) for _ in range(sides.scale.rounds + 1)]
    rates = [lap.count / lap.seconds for lap in laps[1:]]
    return [Row(f"verify {count:,} small jobs", "jobs/s", rates, target=Target(2000) if has_targets else None)]


async def fill(repository: RedisJobRepository, count: int) -> None:
    """Create small jobs, and end them."""
    for start in range(0, count, TOGETHER):
        await asyncio.gather(*(_job(repository, number) for number in range(start, min(start + TOGETHER, count))))


async def _job(repository: RedisJobRepository, number: int) -> None:
    job = Job(id=f"job-{number:06}", status="running", user_id=f"user-{number % USERS}")
    await repository.create_job(job)
    await repository.add_events(job.id, events(LINES))
    await repository.complete_job(job.id, success=True, end_time=utc_now())


async def verify(repository: RedisJobRepository, count: int) -> Lap:
    """Verify the whole store, in which so many jobs are."""
    with lap_of(count) as lap:
        assert await repository.verify() == []
    return lap
