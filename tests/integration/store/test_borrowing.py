"""What a handler is given may be entered, left and closed: it is the lender's."""

import asyncio

from ci_common.models import Job, JobEvent, JobStatus
from ci_eventstore.controllers import ClaimedJob, Controller
from ci_eventstore.repository import RedisJobRepository


async def test_a_borrower_closes_nothing(repository: RedisJobRepository) -> None:
    """What a handler enters and leaves of what it was given stays open for its controller, and for itself."""
    await repository.create_job(Job(id="job", status="queued"))
    async with asyncio.timeout(30), Controller(repository) as controller:

        async def build(job: ClaimedJob) -> None:
            controller.stop()
            await job.writer.append([JobEvent("log", "one\n")])
            async with job.log as log:
                await log.write("two\n")
            await job.write("three\n")
            await job.writer.append([JobEvent("log", "four\n")])

        await controller.run(build)
    found = await repository.get_job("job")
    assert found is not None
    assert (found.status, found.success) == (JobStatus.COMPLETED, True)
    assert [event.data for event in found.events if event.type == "log"] == ["one\n", "two\n", "three\n", "four\n"]


async def test_whatever_a_borrower_enters(repository: RedisJobRepository) -> None:
    """All that a claimed job hands out may be entered and left, or closed: the job goes on, and ends well."""
    await repository.create_job(Job(id="job", status="queued"))
    entered: list[str] = []
    async with asyncio.timeout(30), Controller(repository) as controller:

        async def build(job: ClaimedJob) -> None:
            controller.stop()
            for name in dir(job):
                if name.startswith("_") or not hasattr(getattr(job, name), "__aenter__"):
                    continue
                entered.append(name)
                async with getattr(job, name):
                    await job.write(f"in {name}\n")
                await getattr(job, name).close()
                await job.write(f"after {name}\n")
                await job.writer.append([JobEvent("log", f"beside {name}\n")])

        await controller.run(build)
    found = await repository.get_job("job")
    assert found is not None
    assert (found.status, found.success, set(entered)) == (JobStatus.COMPLETED, True, {"log"})
    assert len([event for event in found.events if event.type == "log"]) >= 2


async def test_a_handler_that_enters_its_job_again_runs_once(repository: RedisJobRepository) -> None:
    """A handler that writes `async with job`, which its controller has entered, ends the job once."""
    await repository.create_job(Job(id="job", status="queued"))
    async with asyncio.timeout(30), Controller(repository) as controller:

        async def build(job: ClaimedJob) -> None:
            controller.stop()
            async with job:
                await job.write("one\n")

        await controller.run(build)
    found = await repository.get_job("job")
    assert found is not None
    assert (found.status, found.success) == (JobStatus.COMPLETED, True)
