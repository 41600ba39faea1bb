"""A process that follows jobs: through the store's hub (`ours`), or with a connection and an `XREAD` each (`xread`)."""

import asyncio
import gc
import re
import sys
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import uvloop

from benchmarks.live.processes import Plan, read_plan, say
from benchmarks.live.xread import follow as follow_by_xread
from benchmarks.live.xread import open_client
from ci_common.models import JobEvent
from ci_eventstore import RedisJobRepository

#: So many followers note when each event reaches them.
TIMED_FOLLOWERS = 20
#: So many begin at once.
STARTED_AT_ONCE = 500

#: Yields a job's events as they come.
Follow = Callable[[str], AsyncGenerator[JobEvent, None]]


class Followers:
    """Follow as planned; every follower is to get all events of its job, in their order."""

    def __init__(self, plan: Plan, follow: Follow) -> None:
        self._plan = plan
        self._follow = follow
        self._are_done = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._left = plan.followers
        self.waits_ms: list[float] = []
        self.cpu_seconds = 0.0

    async def begin(self) -> None:
        """Let all followers begin."""
        for number in range(self._plan.followers):
            job = self._plan.jobs[number % self._plan.followed]
            waits_ms = self.waits_ms if number < TIMED_FOLLOWERS else None
            self._tasks.append(asyncio.create_task(self._take(job, waits_ms)))
            if number % STARTED_AT_ONCE == 0:
                await asyncio.sleep(0.05)

    async def finish(self) -> None:
        """Wait until all followers have everything; what comes then isn't counted."""
        started = time.process_time()
        done = asyncio.create_task(self._are_done.wait())
        await asyncio.wait([done, *self._tasks], return_when=asyncio.FIRST_COMPLETED)
        self.cpu_seconds = time.process_time() - started
        if not done.done():
            await asyncio.gather(*(task for task in self._tasks if task.done()))

    async def end(self) -> None:
        """Wait until all jobs have ended."""
        await asyncio.gather(*self._tasks)

    async def _take(self, job: str, waits_ms: list[float] | None) -> None:
        count, expected = 0, self._plan.events_per_job
        async with aclosing(self._follow(job)) as events:
            async for event in events:
                count += 1
                if event.id != count:
                    raise AssertionError(f"event {event.id} came as number {count}")
                if waits_ms is not None and event.type == "log":
                    waits_ms.append(_milliseconds_since(event))
                if count == expected:
                    self._note_end()
        if count != expected + 1:
            raise AssertionError(f"{count} events came, {expected} and the job's end were to")

    def _note_end(self) -> None:
        self._left -= 1
        if not self._left:
            self._are_done.set()


async def follow(plan: Plan, side: str) -> None:
    """Follow the planned jobs and say what it took."""
    async with opened(plan, side) as method:
        before = resident_bytes()
        followers = Followers(plan, method)
        await followers.begin()
        await asyncio.sleep(1.0 if plan.followers > 1 else 0.2)
        gc.collect()
        joined = resident_bytes()
        say(ready=True)
        await followers.finish()
        say(
            cpu_seconds=followers.cpu_seconds,
            waits_ms=followers.waits_ms,
            joined_bytes=joined - before,
            peak_bytes=max(joined, peak_bytes()) - before,
        )
        await followers.end()
        say(is_complete=True)


@asynccontextmanager
async def opened(plan: Plan, side: str) -> AsyncIterator[Follow]:
    """Connect, and yield the way in which a side follows."""
    if side == "ours":
        async with RedisJobRepository.from_url(plan.url) as repository:
            yield repository.follow_events
        return
    client = open_client(plan.url)
    try:
        yield lambda job: follow_by_xread(client, job)
    finally:
        await client.aclose()


def resident_bytes() -> int:
    """Return how much memory this process has."""
    return _status("VmRSS")


def peak_bytes() -> int:
    """Return the most memory that this process has had; what `getrusage` says counts its parent's, too."""
    return _status("VmHWM")


def _status(name: str) -> int:
    found = re.search(rf"^{name}:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024


def _milliseconds_since(event: JobEvent) -> float:
    return (time.monotonic_ns() - int((event.data or "").partition(" ")[0])) / 1e6


if __name__ == "__main__":
    uvloop.run(follow(read_plan(), sys.argv[1]))
