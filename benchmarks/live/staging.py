"""Set a measurement up: its jobs, and a producer that writes while others listen."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from uuid import uuid4

from benchmarks.live.processes import Plan, said, start, tell
from benchmarks.live.scale import Audience
from benchmarks.progress import show_progress
from ci_common.models import Job
from ci_eventstore import RedisJobRepository

#: So many jobs are created at once.
CREATED_AT_ONCE = 200


def plan_for(url: str, audience: Audience, port: int = 0) -> Plan:
    """Create the jobs of a measurement, which are running, and return what its processes are to do."""
    jobs = tuple(str(uuid4()) for _ in range(audience.jobs))
    asyncio.run(_create(url, jobs))
    return Plan(
        url=url,
        jobs=jobs,
        followed=audience.followed,
        followers=audience.followers,
        events=audience.events,
        events_per_second=audience.events_per_second,
        port=port,
    )


async def _create(url: str, jobs: tuple[str, ...]) -> None:
    async with RedisJobRepository.from_url(url) as repository:
        for first in range(0, len(jobs), CREATED_AT_ONCE):
            some = jobs[first : first + CREATED_AT_ONCE]
            await asyncio.gather(*(repository.create_job(Job(id=job, status="running")) for job in some))


@dataclass(frozen=True, slots=True)
class Followed:
    """What one side took to follow."""

    events: int
    cpu_seconds: float
    #: Of some of the followers: from an event's append to its arrival.
    waits_ms: list[float]
    #: Memory that the process grew by: once all followers were there, and at the most.
    joined_bytes: int
    peak_bytes: int

    @property
    def cpu_microseconds(self) -> float:
        """CPU time for each event that a follower was handed."""
        return self.cpu_seconds / self.events * 1e6


def measure(url: str, audience: Audience, side: str, on_events: Callable[[], None] | None = None) -> Followed:
    """Follow in one process what another one writes."""
    show_progress(f"{audience.name}: {side}")
    plan = plan_for(url, audience)
    with start("follow", plan, side) as following:
        said(following)
        with start("produce", plan) as producing:
            said(producing)
            figures = said(following)
            if on_events is not None:
                on_events()
            tell(producing)
            said(following)
    return Followed(events=plan.events_per_job * plan.followers, **figures)
