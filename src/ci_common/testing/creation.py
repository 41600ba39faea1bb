"""What every repository does with new jobs."""

from typing import Any

import pytest

from ci_common.errors import InvalidJobError, JobAlreadyExistsError
from ci_common.models import Job, JobEvent, JobStatus
from ci_common.repository import JobRepository
from ci_common.testing.samples import (
    NOON,
    at,
    complete,
    completions,
    create,
    fetch,
    ids,
    is_now,
    lines,
    log,
    new_job,
    texts,
)

ENDED = ["completed", "failed", "cancelled"]


class CreationContract:
    """Creating jobs: in any status, with events, in one step, once per id."""

    @pytest.mark.parametrize("status", list(JobStatus))
    async def test_a_job_comes_back_as_stored(self, repository: JobRepository, status: JobStatus) -> None:
        """All fields of a job are kept, in any status."""
        is_ended = status in ENDED
        job = Job(
            id="5 zo ë:*?[a]/..",
            user_id="user-1",
            status=status,
            success=False if is_ended else None,
            start_time=at(1),
            end_time=at(2) if is_ended else None,
            container_id="abc123",
            zip_file_path="/tmp/проект.zip",
            created_at=at(0),
            name="nightly ❤",
            queue="big machines",
            command=["sh", "-c", "echo 'a\nb'", ""],
        )
        await repository.create_job(job)
        assert await repository.get_job(job.id) == job
        assert await repository.list_jobs() == [job]

    async def test_a_job_may_be_bare(self, repository: JobRepository) -> None:
        """A job of nothing but id and status gets a time of creation, and nothing else."""
        await repository.create_job(Job(id="bare", status="queued"))
        job = await fetch(repository, "bare")
        assert is_now(job.created_at)
        assert job == Job(id="bare", status="queued", created_at=job.created_at)
        assert (job.user_id, job.command, job.queue) == (None, None, "default")

    @pytest.mark.parametrize("command", [[], ["make"]], ids=repr)
    async def test_a_short_command_is_kept(self, repository: JobRepository, command: list[str]) -> None:
        """An empty command isn't a missing one."""
        job_id = await create(repository, command=command)
        assert (await fetch(repository, job_id)).command == command

    async def test_events_of_a_new_job_are_its_first(self, repository: JobRepository) -> None:
        """The events become 1 … k, whatever ids they had, and more follow them."""
        events = [JobEvent("log", f"{n}\n", timestamp=at(n), id=90 - n) for n in range(1, 4)]
        job_id = await create(repository, *events)
        await repository.add_event(job_id, log("after\n", timestamp=at(9)))
        stored = await repository.get_events_since(job_id, 0)
        assert stored == [*events, log("after\n", timestamp=at(9))]
        assert ids(stored) == [1, 2, 3, 4]

    async def test_a_new_job_says_nothing_of_its_log(self, repository: JobRepository) -> None:
        """Whether a log has outgrown its budget is the store's to say: this one hasn't."""
        job_id = await create(repository, *lines(2), log_truncated=True)
        assert (await fetch(repository, job_id)).log_truncated is False

    @pytest.mark.parametrize("kind", [list, tuple, iter], ids=["list", "tuple", "iterator"])
    async def test_events_may_come_as_any_iterable(self, repository: JobRepository, kind: Any) -> None:
        """A list, a tuple and an iterator of events create the same job."""
        await repository.create_job(new_job(id="job", events=kind(lines(3))))
        assert (await fetch(repository, "job")).events == lines(3)

    async def test_a_job_with_many_events(self, repository: JobRepository) -> None:
        """A job can be created with more events than a page holds."""
        job_id = await create(repository, *lines(2500))
        stored = await repository.get_events_since(job_id, 0)
        assert stored == lines(2500)
        assert ids(stored) == list(range(1, 2501))

    async def test_what_a_caller_changes_later_is_not_stored(self, repository: JobRepository) -> None:
        """The store doesn't share lists with its callers, neither those it took nor those it gave."""
        job = new_job(events=lines(1), command=["make"])
        await repository.create_job(job)
        for seen in (job, await fetch(repository, job.id)):
            assert isinstance(seen.events, list)
            assert isinstance(seen.command, list)
            seen.events.append(log())
            seen.command.append("clean")
        stored = await fetch(repository, job.id)
        assert (stored.events, stored.command) == (lines(1), ["make"])

    async def test_a_job_id_is_given_once(self, repository: JobRepository) -> None:
        """A second job of the same id is refused, and the first one stays as it is, events and all."""
        first = new_job(events=lines(2))
        await repository.create_job(first)
        with pytest.raises(JobAlreadyExistsError) as caught:
            await repository.create_job(new_job(id=first.id, status="queued", user_id="other"))
        assert caught.value.job_id == first.id
        assert await repository.get_job(first.id) == first

    async def test_the_same_job_twice_is_refused(self, repository: JobRepository) -> None:
        """A second call with the same content is an error too."""
        job = new_job()
        await repository.create_job(job)
        with pytest.raises(JobAlreadyExistsError):
            await repository.create_job(job)
        assert await repository.list_jobs() == [job]

    @pytest.mark.parametrize("status", ENDED)
    async def test_the_complete_event_fills_what_is_missing(self, repository: JobRepository, status: str) -> None:
        """Result and end time of a job that is created ended come from its complete event."""
        success = status == "completed"
        job_id = await create(repository, log(), complete(success, timestamp=at(3)), log("late\n"), status=status)
        job = await fetch(repository, job_id)
        assert (job.status, job.success, job.end_time) == (status, success, at(3))
        assert ids(completions(job.events)) == [2]

    async def test_what_the_job_says_stays(self, repository: JobRepository) -> None:
        """The end time that was given with the job is not replaced by that of the complete event."""
        job_id = await create(repository, complete(True, timestamp=at(3)), status="completed", end_time=at(1))
        job = await fetch(repository, job_id)
        assert (job.success, job.end_time) == (True, at(1))

    @pytest.mark.parametrize("status", ENDED)
    async def test_nothing_is_made_up_for_a_job_created_ended(self, repository: JobRepository, status: str) -> None:
        """Without a complete event, result and end time stay unknown, and no event appears."""
        job = await fetch(repository, await create(repository, status=status))
        assert (job.success, job.start_time, job.end_time, job.events) == (None, None, None, [])

    @pytest.mark.parametrize("status", ["queued", "running"])
    async def test_nothing_is_made_up_for_a_job_created_alive(self, repository: JobRepository, status: str) -> None:
        """A job that is created running has the start time that came with it, or none."""
        assert (await fetch(repository, await create(repository, status=status))).start_time is None

    @pytest.mark.parametrize(
        ("fields", "events"),
        [
            ({"status": "queued", "success": True}, []),
            ({"status": "running", "success": False}, []),
            ({"status": "queued", "end_time": NOON}, []),
            ({"status": "running", "end_time": NOON}, []),
            ({"status": "queued"}, [complete(True)]),
            ({"status": "running"}, [log(), complete(False)]),
            ({"status": "completed"}, [complete(True), complete(True)]),
            ({"status": "completed", "success": True}, [complete(False)]),
            ({"status": "completed", "success": False}, [complete(True)]),
            ({"status": "failed", "success": True}, []),
            ({"status": "cancelled", "success": True}, []),
            ({"status": "failed"}, [complete(True)]),
            ({"status": "cancelled"}, [complete(True)]),
        ],
        ids=str,
    )
    async def test_a_job_that_contradicts_itself_is_refused(
        self, repository: JobRepository, fields: dict[str, Any], events: list[JobEvent]
    ) -> None:
        """A result, an end or a complete event that doesn't fit the status is an error, and nothing is stored."""
        with pytest.raises(InvalidJobError) as caught:
            await repository.create_job(new_job(id="odd", events=events, **fields))
        assert caught.value.job_id == "odd"
        assert await repository.get_job("odd") is None

    async def test_a_refused_job_leaves_its_id_free(self, repository: JobRepository) -> None:
        """After an error in its events, a job can be created properly."""
        with pytest.raises(ValueError, match="event type"):
            await repository.create_job(new_job(id="again", events=[*lines(3), JobEvent("progress")]))
        await create(repository, log("only\n"), id="again")
        assert await texts(repository, "again") == ["only\n"]
