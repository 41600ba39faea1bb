"""What every repository does when a job ends: once, with one result."""

from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from ci_common.errors import InvalidEventError, InvalidJobError, ResultConflictError
from ci_common.models import JobEvent, Outcome
from ci_common.repository import JobRepository
from ci_common.testing.samples import at, complete, completions, create, fetch, ids, is_now, lines, log

#: Ends whose time came from an event, whatever the job was before.
ENDS: dict[str, Callable[[JobRepository, str], Awaitable[None]]] = {
    "complete event": lambda repository, job_id: repository.add_event(job_id, complete(False, timestamp=at(1))),
    "among events": lambda repository, job_id: repository.add_events(job_id, [log(), complete(False), log()]),
    "failed": lambda repository, job_id: repository.update_job_status(job_id, "failed"),
    "cancelled": lambda repository, job_id: repository.update_job_status(job_id, "cancelled"),
    "cancel": lambda repository, job_id: repository.cancel_job(job_id),
}


class CompletionContract:
    """The end of a job: status, result, end time and `complete` event in one step; the first result wins."""

    @pytest.mark.parametrize("success", [True, False])
    @pytest.mark.parametrize("status", ["queued", "running"])
    async def test_complete_job_ends_a_job(self, repository: JobRepository, status: str, success: bool) -> None:
        """The `complete` event has the result, and the end time as its timestamp."""
        job_id = await create(repository, *lines(2), status=status)
        before = await fetch(repository, job_id)
        await repository.complete_job(job_id, success, at(5))
        job = await fetch(repository, job_id)
        assert job.events == [*lines(2), complete(success, timestamp=at(5))]
        assert ids(job.events) == [1, 2, 3]
        ended = replace(before, status="completed", success=success, end_time=at(5), events=job.events)
        assert job == ended

    @pytest.mark.parametrize("success", [True, False])
    async def test_a_complete_event_ends_a_job(self, repository: JobRepository, success: bool) -> None:
        """It does what `complete_job` does, with its timestamp as the end time, and keeps its data."""
        job_id = await create(repository, *lines(2))
        end = complete(success, data="exit code 3", timestamp=at(5))
        await repository.add_event(job_id, end)
        job = await fetch(repository, job_id)
        assert job.events == [*lines(2), end]
        assert (job.status, job.success, job.end_time) == ("completed", success, at(5))

    @pytest.mark.parametrize("outcome", [Outcome(exit_code=3), Outcome(signal="SIGTERM")], ids=str)
    async def test_a_complete_event_says_how_the_command_ended(
        self, repository: JobRepository, outcome: Outcome
    ) -> None:
        """The event keeps the exit code or the signal, and so does the job, as the first result."""
        job_id = await create(repository)
        end = complete(False, timestamp=at(5), outcome=outcome)
        await repository.add_event(job_id, end)
        await repository.add_event(job_id, complete(False, outcome=Outcome(exit_code=9)))
        job = await fetch(repository, job_id)
        assert (job.events, job.exit_code, job.signal) == ([end], outcome.exit_code, outcome.signal)
        assert await create(repository, status="completed", success=True, exit_code=0)

    @pytest.mark.parametrize(
        "event",
        [
            complete(True, outcome=Outcome()),
            complete(True, outcome=Outcome(exit_code=-1)),
            complete(True, outcome=Outcome(exit_code=1, signal="SIGTERM")),
            complete(True, outcome=Outcome(signal="a b")),
            log(outcome=Outcome(exit_code=0)),
        ],
    )
    async def test_an_outcome_that_cannot_be(self, repository: JobRepository, event: JobEvent) -> None:
        """It has an exit code or a signal, and belongs to a complete event."""
        job_id = await create(repository)
        with pytest.raises(InvalidEventError):
            await repository.add_event(job_id, event)
        with pytest.raises(InvalidJobError):
            await create(repository, exit_code=0)

    async def test_a_complete_event_without_a_time_ends_a_job_now(self, repository: JobRepository) -> None:
        """The end time is the one that its timestamp is filled with."""
        job_id = await create(repository)
        await repository.add_event(job_id, complete(True))
        job = await fetch(repository, job_id)
        assert is_now(job.end_time)
        assert job.end_time == job.events[0].timestamp

    async def test_completing_again_changes_nothing(self, repository: JobRepository) -> None:
        """The same result again, at another time and in every way, is no error."""
        job_id = await create(repository)
        await repository.complete_job(job_id, True, at(1))
        before = await fetch(repository, job_id)
        await repository.complete_job(job_id, True, at(2))
        await repository.add_event(job_id, complete(True, timestamp=at(3), data="again"))
        await repository.add_events(job_id, [complete(True), complete(True)])
        assert await fetch(repository, job_id) == before

    @pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
    async def test_an_explicit_end_time_replaces_that_of_an_event_once(
        self, repository: JobRepository, end: Callable[[JobRepository, str], Awaitable[None]]
    ) -> None:
        """After that nothing changes any more; the events stay as they are all the time."""
        job_id = await create(repository)
        await end(repository, job_id)
        before = await fetch(repository, job_id)
        await repository.complete_job(job_id, False, at(7))
        assert await fetch(repository, job_id) == replace(before, end_time=at(7))
        await repository.complete_job(job_id, False, at(8))
        assert await fetch(repository, job_id) == replace(before, end_time=at(7))

    async def test_another_complete_event_replaces_no_end_time(self, repository: JobRepository) -> None:
        """The first one's stays, until an explicit one comes."""
        job_id = await create(repository)
        await repository.add_event(job_id, complete(True, timestamp=at(1)))
        await repository.add_event(job_id, complete(True, timestamp=at(2)))
        assert (await fetch(repository, job_id)).end_time == at(1)
        await repository.complete_job(job_id, True, at(3))
        assert (await fetch(repository, job_id)).end_time == at(3)

    async def test_an_explicit_end_time_replaces_that_of_a_creation(self, repository: JobRepository) -> None:
        """The end time that came from the complete event of a new job counts as an event's."""
        job_id = await create(repository, complete(True, timestamp=at(1)), status="completed")
        for end_time in (at(2), at(3)):
            await repository.complete_job(job_id, True, end_time)
            assert (await fetch(repository, job_id)).end_time == at(2)

    async def test_an_end_time_given_with_the_job_stays(self, repository: JobRepository) -> None:
        """It was explicit, so no other one replaces it, with a complete event or without."""
        with_event = await create(repository, complete(True), status="completed", end_time=at(1))
        without = await create(repository, status="completed", end_time=at(1))
        for job_id in (with_event, without):
            await repository.complete_job(job_id, True, at(2))
            job = await fetch(repository, job_id)
            assert (job.end_time, len(job.events)) == (at(1), 1)

    async def test_a_conflicting_result_replaces_no_end_time(self, repository: JobRepository) -> None:
        """The error changes nothing, the end time of an event included."""
        job_id = await create(repository)
        await repository.update_job_status(job_id, "failed")
        before = await fetch(repository, job_id)
        with pytest.raises(ResultConflictError):
            await repository.complete_job(job_id, True, at(1))
        assert await fetch(repository, job_id) == before

    @pytest.mark.parametrize("status", ["completed", "failed", "cancelled"])
    async def test_a_job_created_ended_gets_its_complete_event(self, repository: JobRepository, status: str) -> None:
        """`complete_job` appends it after the log, keeps the status and stores the end time, once."""
        job_id = await create(repository, *lines(2), status=status)
        await repository.complete_job(job_id, False, at(5))
        await repository.complete_job(job_id, False, at(6))
        job = await fetch(repository, job_id)
        assert job.events == [*lines(2), complete(False, timestamp=at(5))]
        assert (job.status, job.success, job.end_time) == (status, False, at(5))

    async def test_a_complete_event_for_a_job_created_ended(self, repository: JobRepository) -> None:
        """Its timestamp becomes the end time, which an explicit one still replaces."""
        job_id = await create(repository, status="completed", success=True)
        await repository.add_event(job_id, complete(True, timestamp=at(1)))
        job = await fetch(repository, job_id)
        assert (job.events, job.end_time) == ([complete(True, timestamp=at(1))], at(1))
        await repository.complete_job(job_id, True, at(2))
        assert (await fetch(repository, job_id)).end_time == at(2)

    async def test_a_complete_event_keeps_an_end_time_given_with_the_job(self, repository: JobRepository) -> None:
        """The event has its own time, the job the one that it was created with."""
        job_id = await create(repository, status="failed", end_time=at(1))
        await repository.add_event(job_id, complete(False, timestamp=at(2)))
        await repository.complete_job(job_id, False, at(3))
        job = await fetch(repository, job_id)
        assert (job.end_time, job.events[0].timestamp) == (at(1), at(2))

    @pytest.mark.parametrize("status", ["failed", "cancelled"])
    async def test_a_bad_end_keeps_its_status(self, repository: JobRepository, status: str) -> None:
        """`complete_job(success=False)` after it changes neither the status nor the log."""
        job_id = await create(repository)
        await repository.update_job_status(job_id, status)
        await repository.complete_job(job_id, False, at(1))
        job = await fetch(repository, job_id)
        assert (job.status, len(completions(job.events))) == (status, 1)

    async def test_late_output_is_accepted(self, repository: JobRepository) -> None:
        """Log events come after `complete`, numbered on, and change nothing about the job's end."""
        job_id = await create(repository, *lines(1))
        await repository.complete_job(job_id, True, at(1))
        before = await fetch(repository, job_id)
        await repository.add_event(job_id, log("late\n", timestamp=at(2)))
        await repository.add_events(job_id, lines(2))
        late = [log("late\n", timestamp=at(2)), *lines(2)]
        job = await fetch(repository, job_id)
        assert job == replace(before, events=[*before.events, *late])
        assert ids(job.events) == [1, 2, 3, 4, 5]
