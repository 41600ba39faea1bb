"""What every repository does when a job moves from status to status; the whole table is in `transition_table`."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import datetime

import pytest

from ci_common.errors import InvalidTransitionError, JobNotFoundError, UnknownStatusError
from ci_common.models import JobStatus
from ci_common.repository import JobRepository
from ci_common.testing.samples import at, complete, completions, create, fetch, ids, is_now, lines, log, texts

CALLS: dict[str, Callable[[JobRepository, str], Awaitable[None]]] = {
    "update_job_status": lambda repository, job_id: repository.update_job_status(job_id, "running"),
    "complete_job": lambda repository, job_id: repository.complete_job(job_id, True, at(1)),
    "cancel_job": lambda repository, job_id: repository.cancel_job(job_id, "why not"),
    "add_event": lambda repository, job_id: repository.add_event(job_id, log()),
    "complete event": lambda repository, job_id: repository.add_event(job_id, complete(True)),
    "add_events": lambda repository, job_id: repository.add_events(job_id, lines(2)),
    "no events": lambda repository, job_id: repository.add_events(job_id, []),
}


class StatusContract:
    """`update_job_status`: start time, container, and the ends that it makes."""

    @pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
    async def test_a_missing_job_cannot_be_written(
        self, repository: JobRepository, call: Callable[[JobRepository, str], Awaitable[None]]
    ) -> None:
        """The error names the job, and no job appears."""
        with pytest.raises(JobNotFoundError) as caught:
            await call(repository, "none")
        assert caught.value.job_id == "none"
        assert await repository.get_job("none") is None
        assert await repository.list_jobs() == []

    async def test_a_job_starts(self, repository: JobRepository) -> None:
        """Status, start time and container are set, nothing else changes, and no event appears."""
        job_id = await create(repository, *lines(2), status="queued", user_id="ada")
        before = await fetch(repository, job_id)
        await repository.update_job_status(job_id, "running", start_time=at(5), container_id="abc")
        started = replace(before, status="running", start_time=at(5), container_id="abc")
        assert await fetch(repository, job_id) == started

    async def test_a_status_may_be_an_enum(self, repository: JobRepository) -> None:
        """`JobStatus.RUNNING` is the same as its name."""
        job_id = await create(repository, status="queued")
        await repository.update_job_status(job_id, JobStatus.RUNNING)
        job = await fetch(repository, job_id)
        assert job.status is JobStatus.RUNNING

    async def test_a_job_starts_now(self, repository: JobRepository) -> None:
        """Without a start time, a job that moves to running starts when it does."""
        job_id = await create(repository, status="queued")
        await repository.update_job_status(job_id, "running")
        assert is_now((await fetch(repository, job_id)).start_time)

    async def test_the_first_start_stays(self, repository: JobRepository) -> None:
        """A job that was given up and runs again has started at its first start."""
        job_id = await create(repository, status="queued")
        await repository.update_job_status(job_id, "running", start_time=at(1))
        await repository.update_job_status(job_id, "running", start_time=at(2))
        await repository.update_job_status(job_id, "queued", start_time=at(3))
        await repository.update_job_status(job_id, "running", start_time=at(4))
        await repository.update_job_status(job_id, "failed", start_time=at(5))
        assert (await fetch(repository, job_id)).start_time == at(1)

    async def test_a_start_time_from_creation_stays(self, repository: JobRepository) -> None:
        """A job that was created with a start time keeps it when it starts."""
        job_id = await create(repository, status="queued", start_time=at(1))
        await repository.update_job_status(job_id, "running", start_time=at(2))
        assert (await fetch(repository, job_id)).start_time == at(1)

    @pytest.mark.parametrize("status", ["queued", "running", "completed", "failed", "cancelled"])
    async def test_the_same_status_adds_what_is_missing(self, repository: JobRepository, status: str) -> None:
        """The status that a job has is no error; its start time and container are stored, except in the queue."""
        job_id = await create(repository, status=status, created_at=at(0))
        before = await fetch(repository, job_id)
        await repository.update_job_status(job_id, status)
        assert await fetch(repository, job_id) == before
        await repository.update_job_status(job_id, status, start_time=at(1), container_id="abc")
        container = None if status == "queued" else "abc"
        assert await fetch(repository, job_id) == replace(before, start_time=at(1), container_id=container)

    async def test_the_last_container_stays(self, repository: JobRepository) -> None:
        """A container replaces the one before; without one, it stays, also at the end."""
        job_id = await create(repository, container_id="first")
        await repository.update_job_status(job_id, "running")
        assert (await fetch(repository, job_id)).container_id == "first"
        await repository.update_job_status(job_id, "running", container_id="second")
        assert (await fetch(repository, job_id)).container_id == "second"
        await repository.update_job_status(job_id, "failed", container_id="third")
        assert (await fetch(repository, job_id)).container_id == "third"

    async def test_a_job_in_the_queue_has_no_container(self, repository: JobRepository) -> None:
        """A job that is given up loses its container, even if one is named; it gets the next one's."""
        job_id = await create(repository, container_id="first")
        await repository.update_job_status(job_id, "queued", container_id="second")
        job = await fetch(repository, job_id)
        assert (job.status, job.container_id, job.events) == ("queued", None, [])
        await repository.update_job_status(job_id, "running", container_id="third")
        assert (await fetch(repository, job_id)).container_id == "third"

    async def test_a_queued_job_keeps_what_it_was_created_with(self, repository: JobRepository) -> None:
        """Only the move into the queue takes a container away, and the queue never gives one."""
        job_id = await create(repository, status="queued", container_id="given")
        await repository.update_job_status(job_id, "queued")
        await repository.update_job_status(job_id, "queued", container_id="other")
        assert (await fetch(repository, job_id)).container_id == "given"

    @pytest.mark.parametrize("status", ["failed", "cancelled"])
    @pytest.mark.parametrize("before", ["queued", "running"])
    async def test_a_bad_end_completes_the_log(self, repository: JobRepository, before: str, status: str) -> None:
        """`failed` and `cancelled` append `complete`, and the job ends at that moment, not passed."""
        job_id = await create(repository, *lines(2), status=before)
        await repository.update_job_status(job_id, status, start_time=at(1), container_id="abc")
        job = await fetch(repository, job_id)
        (end,) = completions(job.events)
        assert (end.id, end.success, end.data) == (3, False, None)
        assert is_now(end.timestamp)
        assert (job.status, job.success, job.end_time) == (status, False, end.timestamp)
        assert (job.start_time, job.container_id) == (at(1), "abc")

    async def test_a_job_that_never_ran_never_started(self, repository: JobRepository) -> None:
        """An end straight from the queue makes up no start time."""
        failed, completed = await create(repository, status="queued"), await create(repository, status="queued")
        await repository.update_job_status(failed, "failed")
        await repository.complete_job(completed, True, at(1))
        for job_id in (failed, completed):
            assert (await fetch(repository, job_id)).start_time is None

    @pytest.mark.parametrize("status", ["done", "", "RUNNING", "queued "], ids=repr)
    async def test_an_unknown_status_is_refused(self, repository: JobRepository, status: str) -> None:
        """The error names the status and the five there are; nothing changes."""
        job_id = await create(repository, status="queued")
        before = await fetch(repository, job_id)
        with pytest.raises(UnknownStatusError, match="queued, running, completed, failed or cancelled") as caught:
            await repository.update_job_status(job_id, status, start_time=at(1))
        assert caught.value.value == status
        assert await fetch(repository, job_id) == before

    async def test_a_refused_move_stores_nothing(self, repository: JobRepository) -> None:
        """Start time and container that come with an illegal move are not stored."""
        job_id = await create(repository, complete(True), status="completed")
        before = await fetch(repository, job_id)
        with pytest.raises(InvalidTransitionError):
            await repository.update_job_status(job_id, "running", start_time=at(1), container_id="abc")
        assert await fetch(repository, job_id) == before


class CancellationContract:
    """`cancel_job`: the last line of the log says so, with the reason."""

    @pytest.mark.parametrize("status", ["queued", "running"])
    @pytest.mark.parametrize(
        ("reason", "line"),
        [
            ("a newer push", "[cancelled: a newer push]\n"),
            ("Ctrl-C ❤", "[cancelled: Ctrl-C ❤]\n"),
            (None, "[cancelled]\n"),
            ("", "[cancelled]\n"),
        ],
        ids=repr,
    )
    async def test_the_log_says_why(
        self, repository: JobRepository, status: str, reason: str | None, line: str
    ) -> None:
        """The line comes before `complete`, in the same moment, and the job ends as cancelled."""
        job_id = await create(repository, *lines(1), status=status)
        await repository.cancel_job(job_id, reason)
        job = await fetch(repository, job_id)
        assert await texts(repository, job_id) == ["line 1\n", line, None]
        assert ids(job.events) == [1, 2, 3]
        assert (job.status, job.success, job.events[-1].success) == ("cancelled", False, False)
        assert job.end_time == job.events[-1].timestamp
        assert is_now(job.end_time)
        assert is_now(job.events[1].timestamp)

    async def test_cancelling_again_changes_nothing(self, repository: JobRepository) -> None:
        """The first reason stays."""
        job_id = await create(repository)
        await repository.cancel_job(job_id, "first")
        before = await fetch(repository, job_id)
        await repository.cancel_job(job_id, "second")
        assert await fetch(repository, job_id) == before

    @pytest.mark.parametrize("status", ["completed", "failed"])
    async def test_an_ended_job_cannot_be_cancelled(self, repository: JobRepository, status: str) -> None:
        """The error names both statuses, and no line is appended."""
        job_id = await create(repository, *lines(1), complete(False), status=status)
        before = await fetch(repository, job_id)
        with pytest.raises(InvalidTransitionError) as caught:
            await repository.cancel_job(job_id, "too late")
        assert (caught.value.current, caught.value.requested) == (status, "cancelled")
        assert await fetch(repository, job_id) == before

    @pytest.mark.parametrize("end_time", [at(1), datetime(2021, 1, 1, tzinfo=at(0).tzinfo)])
    async def test_a_cancelled_job_may_be_completed_as_not_passed(
        self, repository: JobRepository, end_time: datetime
    ) -> None:
        """A controller that only then sees its job end changes its end time, and nothing else."""
        job_id = await create(repository)
        await repository.cancel_job(job_id)
        before = await fetch(repository, job_id)
        await repository.complete_job(job_id, False, end_time)
        assert await fetch(repository, job_id) == replace(before, end_time=end_time)
