"""A controller for any `JobRepository`, written against the contract alone: it polls, and claims nothing.

    python examples/poll_controller.py redis://localhost [PREFIX]

It may work beside others of its kind and beside `ci-eventstore controller`, on the same jobs: none is run twice.

Moving a job to `running` that is running already is no error, so that alone doesn't say who has it. But of several
start times the first one stays: whoever reads back the very time that it gave has the job. (Its microseconds are
random, for two controllers that look at their clocks at once.) A job that a `Controller` has claimed refuses the move.
A job that was given back has a start time already, and is left to those that claim.

What it lacks: nobody takes over the jobs of a poll controller that is gone. They stay `running` until someone cancels
them.
"""

import asyncio
import os
import secrets
import sys
from asyncio.subprocess import DEVNULL, PIPE, STDOUT

from ci_common.errors import ConflictError
from ci_common.models import Job, JobEvent, JobStatus, utc_now
from ci_common.repository import JobRepository
from ci_eventstore import RedisJobRepository

POLL_SECONDS = 0.5


async def take(repository: JobRepository, job: Job) -> bool:
    """Move a queued job to `running`; tell whether it was this controller that did."""
    mine = utc_now().replace(microsecond=secrets.randbelow(1_000_000))
    try:
        await repository.update_job_status(job.id, JobStatus.RUNNING, start_time=mine)
    except ConflictError:
        return False
    now = await repository.get_job(job.id)
    return now is not None and now.status == JobStatus.RUNNING and now.start_time == mine


async def run(repository: JobRepository, job: Job) -> None:
    """Run a job's command as a process, its output as the job's log."""
    process = await asyncio.create_subprocess_exec(*job.command or ["false"], stdin=DEVNULL, stdout=PIPE, stderr=STDOUT)
    try:
        await repository.update_job_status(job.id, JobStatus.RUNNING, container_id=f"process-{process.pid}")
        assert process.stdout is not None
        while piece := await process.stdout.read(65536):
            await repository.add_event(job.id, JobEvent("log", piece.decode(errors="replace")))
        await repository.complete_job(job.id, await process.wait() == 0, utc_now())
    except ConflictError as error:
        print(f"poll controller: {error}", file=sys.stderr)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def main(url: str, prefix: str = "ci") -> None:
    """Take the oldest queued job, run it, and begin again."""
    async with RedisJobRepository.from_url(url, prefix=prefix) as repository:
        print(f"poll controller {os.getpid()} polls", file=sys.stderr, flush=True)
        while True:
            for job in reversed(await repository.list_jobs()):
                is_new = job.status == JobStatus.QUEUED and job.start_time is None
                if is_new and await take(repository, job):
                    await run(repository, job)
            await asyncio.sleep(POLL_SECONDS)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
