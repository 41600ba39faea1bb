"""A process that appends to jobs at a given rate, through the store's contract, and ends the jobs.

Each event's text begins with the time at which it was given to the store, by the machine's monotonic clock.
"""

import asyncio
import sys
import time
from collections.abc import Sequence

import uvloop

from benchmarks.live.processes import Plan, read_plan, say
from benchmarks.live.scale import EVENT_BYTES
from ci_common.models import JobEvent, utc_now
from ci_eventstore import RedisJobRepository

#: So many jobs are ended at once.
ENDED_AT_ONCE = 200


async def produce(plan: Plan) -> None:
    """Append to the jobs in turn, each event at its time; late ones as soon as the store takes them."""
    async with RedisJobRepository.from_url(plan.url) as repository:

        async def append(number: int) -> None:
            text = f"{time.monotonic_ns()} {number} "
            await repository.add_event(
                plan.jobs[number % len(plan.jobs)], JobEvent("log", f"{text:.<{EVENT_BYTES - 1}}\n")
            )

        started, sent = time.monotonic(), 0
        while sent < plan.events:
            due = min(plan.events, int((time.monotonic() - started) * plan.events_per_second) + 1)
            await asyncio.gather(*map(append, range(sent, due)))
            sent = due
            await asyncio.sleep(max(0.0, started + sent / plan.events_per_second - time.monotonic()))
        say(seconds=time.monotonic() - started, ended_at=time.monotonic())
        # Those who listen are to measure events, not ends.
        await asyncio.to_thread(sys.stdin.readline)
        await _end(repository, plan.jobs)


async def _end(repository: RedisJobRepository, jobs: Sequence[str]) -> None:
    for start in range(0, len(jobs), ENDED_AT_ONCE):
        some = jobs[start : start + ENDED_AT_ONCE]
        await asyncio.gather(*(repository.complete_job(job, True, utc_now()) for job in some))


if __name__ == "__main__":
    uvloop.run(produce(read_plan()))
