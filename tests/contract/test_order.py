"""What our repositories promise beyond the contract: calls of one task take effect in the order of the calls."""

import asyncio

from ci_common import JobRepository
from ci_common.testing.samples import at, complete, create, fetch, lines, log


async def test_appends_keep_their_order(repository: JobRepository) -> None:
    """Appends that are started one after the other, none awaited, are stored in that order."""
    job_id = await create(repository)
    await asyncio.gather(*(repository.add_event(job_id, event) for event in lines(300)))
    assert await repository.get_events_since(job_id, 0) == lines(300)


async def test_earlier_lines_stay_before_the_end(repository: JobRepository) -> None:
    """Lines that a task sends before it completes the job, without waiting, are no late output."""
    job_id = await create(repository)
    calls = [repository.add_event(job_id, event) for event in lines(50)]
    end = repository.complete_job(job_id, True, at(9))
    await asyncio.gather(*calls, end, repository.add_event(job_id, log("late")))
    events = (await fetch(repository, job_id)).events
    assert events[:51] == [*lines(50), complete(True, timestamp=at(9))]
    assert events[51].data == "late"


async def test_earlier_lines_stay_before_a_bad_end(repository: JobRepository) -> None:
    """The same goes for a job that fails or is cancelled."""
    for end in ("failed", "cancelled"):
        job_id = await create(repository)
        calls = [repository.add_event(job_id, event) for event in lines(50)]
        await asyncio.gather(*calls, repository.update_job_status(job_id, end))
        assert (await fetch(repository, job_id)).events[:50] == lines(50)
