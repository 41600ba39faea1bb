"""A user's program: what the installed packages look like to a type checker. It is checked, imported, never run."""

import asyncio
import sys
from datetime import UTC, datetime

from ci_common.models import Job, JobEvent
from ci_eventstore import RedisJobRepository


async def run_job(url: str) -> bool | None:
    """Create a job, write to its log, complete it, and return its result as another reader finds it."""
    async with RedisJobRepository.from_url(url, prefix="ci") as repository:
        await repository.create_job(Job(id="build-1", user_id="user-1", status="queued", name="build"))
        await repository.update_job_status("build-1", "running", start_time=datetime.now(UTC))
        await repository.add_event("build-1", JobEvent("log", "Hello.\n"))
        await repository.complete_job("build-1", success=True, end_time=datetime.now(UTC))

        seen: int | None = 0
        async for event in repository.follow_events("build-1", last_event_id=0):
            seen = event.id
        missed: list[JobEvent] = await repository.get_events_since("build-1", seen or 0)
        job: Job | None = await repository.get_job("build-1", user_id="user-1")
        return None if job is None or missed else job.success


def main() -> int:
    """Return the exit code."""
    return 0 if asyncio.run(run_job(sys.argv[1])) else 1


if __name__ == "__main__":
    sys.exit(main())
