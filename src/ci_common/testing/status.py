"""What every repository does when a job moves from status to status, with the table of all moves."""

from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from datetime import datetime

import pytest

from ci_common.errors import InvalidTransitionError, JobNotFoundError, ResultConflictError, UnknownStatusError
from ci_common.models import Job, JobStatus
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


#: A cell is the status, the result (+ passed, - not passed, ? unknown) and the number of complete events after the
#: command; or `illegal` (InvalidTransitionError), or `conflict` (ResultConflictError).
TABLE = """
state           queued    running    completed    failed    cancelled    succeed      fail         event+       event-       log          cancel
queued          queued?0  running?0  illegal      failed-1  cancelled-1  completed+1  completed-1  completed+1  completed-1  queued?0     cancelled-1
running         queued?0  running?0  illegal      failed-1  cancelled-1  completed+1  completed-1  completed+1  completed-1  running?0    cancelled-1
given-up        queued?0  running?0  illegal      failed-1  cancelled-1  completed+1  completed-1  completed+1  completed-1  queued?0     cancelled-1
passed          illegal   illegal    completed+1  illegal   illegal      completed+1  conflict     completed+1  conflict     completed+1  illegal
not-passed      illegal   illegal    completed-1  illegal   illegal      conflict     completed-1  conflict     completed-1  completed-1  illegal
failed          illegal   illegal    illegal      failed-1  illegal      conflict     failed-1     conflict     failed-1     failed-1     illegal
cancelled       illegal   illegal    illegal      illegal   cancelled-1  conflict     cancelled-1  conflict     cancelled-1  cancelled-1  cancelled-1
new-completed   illegal   illegal    completed?0  illegal   illegal      completed+1  completed-1  completed+1  completed-1  completed?0  illegal
new-passed      illegal   illegal    completed+0  illegal   illegal      completed+1  conflict     completed+1  conflict     completed+0  illegal
new-not-passed  illegal   illegal    completed-0  illegal   illegal      conflict     completed-1  conflict     completed-1  completed-0  illegal
new-passed-1    illegal   illegal    completed+1  illegal   illegal      completed+1  conflict     completed+1  conflict     completed+1  illegal
new-failed      illegal   illegal    illegal      failed?0  illegal      conflict     failed-1     conflict     failed-1     failed?0     illegal
new-failed-     illegal   illegal    illegal      failed-0  illegal      conflict     failed-1     conflict     failed-1     failed-0     illegal
new-failed-1    illegal   illegal    illegal      failed-1  illegal      conflict     failed-1     conflict     failed-1     failed-1     illegal
new-cancelled   illegal   illegal    illegal      illegal   cancelled?0  conflict     cancelled-1  conflict     cancelled-1  cancelled?0  cancelled?0
new-cancelled-  illegal   illegal    illegal      illegal   cancelled-0  conflict     cancelled-1  conflict     cancelled-1  cancelled-0  cancelled-0
"""  # noqa: E501 - a table is read by its columns


async def given_up(repository: JobRepository) -> str:
    """Create a job that ran and went back into the queue."""
    job_id = await create(repository)
    await repository.update_job_status(job_id, "queued")
    return job_id


async def ended_by(repository: JobRepository, status: str, success: bool) -> str:
    """Create a running job and end it."""
    job_id = await create(repository)
    if status == "completed":
        await repository.complete_job(job_id, success, at(1))
    else:
        await repository.update_job_status(job_id, status)
    return job_id


STATES: dict[str, Callable[[JobRepository], Awaitable[str]]] = {
    "queued": lambda repository: create(repository, status="queued"),
    "running": lambda repository: create(repository, status="running"),
    "given-up": given_up,
    "passed": lambda repository: ended_by(repository, "completed", True),
    "not-passed": lambda repository: ended_by(repository, "completed", False),
    "failed": lambda repository: ended_by(repository, "failed", False),
    "cancelled": lambda repository: ended_by(repository, "cancelled", False),
    "new-completed": lambda repository: create(repository, status="completed"),
    "new-passed": lambda repository: create(repository, status="completed", success=True),
    "new-not-passed": lambda repository: create(repository, status="completed", success=False),
    "new-passed-1": lambda repository: create(repository, complete(True), status="completed"),
    "new-failed": lambda repository: create(repository, status="failed"),
    "new-failed-": lambda repository: create(repository, status="failed", success=False),
    "new-failed-1": lambda repository: create(repository, complete(False), status="failed"),
    "new-cancelled": lambda repository: create(repository, status="cancelled"),
    "new-cancelled-": lambda repository: create(repository, status="cancelled", success=False),
}

COMMANDS: dict[str, Callable[[JobRepository, str], Awaitable[None]]] = {
    "queued": lambda repository, job_id: repository.update_job_status(job_id, "queued"),
    "running": lambda repository, job_id: repository.update_job_status(job_id, "running"),
    "completed": lambda repository, job_id: repository.update_job_status(job_id, "completed"),
    "failed": lambda repository, job_id: repository.update_job_status(job_id, "failed"),
    "cancelled": lambda repository, job_id: repository.update_job_status(job_id, "cancelled"),
    "succeed": lambda repository, job_id: repository.complete_job(job_id, True, at(2)),
    "fail": lambda repository, job_id: repository.complete_job(job_id, False, at(2)),
    "event+": lambda repository, job_id: repository.add_event(job_id, complete(True, timestamp=at(3))),
    "event-": lambda repository, job_id: repository.add_event(job_id, complete(False, timestamp=at(3))),
    "log": lambda repository, job_id: repository.add_event(job_id, log()),
    "cancel": lambda repository, job_id: repository.cancel_job(job_id, "no longer needed"),
}

#: What a command would make of the job, as an error names it.
REQUESTED = {"cancel": "cancelled"}


def cells() -> Iterator[tuple[str, str, str]]:
    """Read the table: state, command, outcome."""
    (_, *commands), *rows = (line.split() for line in TABLE.strip().splitlines())
    assert set(commands) == set(COMMANDS)
    assert {row[0] for row in rows} == set(STATES)
    for state, *outcomes in rows:
        for command, outcome in zip(commands, outcomes, strict=True):
            yield state, command, outcome


def errors(wanted: str) -> list[tuple[str, str]]:
    """Return the states and commands whose outcome is a certain error."""
    return [(state, command) for state, command, outcome in cells() if outcome == wanted]


def describe(job: Job) -> str:
    """Write a job's state as a cell of the table does."""
    result = {True: "+", False: "-", None: "?"}[job.success]
    return f"{job.status}{result}{len(completions(job.events))}"


class TransitionContract:
    """Every state and every command: what becomes of the job, or which error it is."""

    @pytest.mark.parametrize(
        ("state", "command", "outcome"), [cell for cell in cells() if cell[2] not in ("illegal", "conflict")]
    )
    async def test_a_command_has_its_outcome(
        self, repository: JobRepository, state: str, command: str, outcome: str
    ) -> None:
        """The command is accepted, and leaves the status, result and complete events of the table."""
        job_id = await STATES[state](repository)
        await COMMANDS[command](repository, job_id)
        job = await fetch(repository, job_id)
        assert describe(job) == outcome
        assert (await repository.list_jobs())[0].status == job.status

    @pytest.mark.parametrize(("state", "command"), errors("illegal"))
    async def test_an_illegal_move_is_refused(self, repository: JobRepository, state: str, command: str) -> None:
        """The error names both statuses, and the job stays as it was."""
        job_id = await STATES[state](repository)
        before = await fetch(repository, job_id)
        requested = REQUESTED.get(command, command)
        with pytest.raises(InvalidTransitionError) as caught:
            await COMMANDS[command](repository, job_id)
        assert (caught.value.job_id, caught.value.current, caught.value.requested) == (job_id, before.status, requested)
        assert before.status in str(caught.value)
        assert requested in str(caught.value)
        assert await fetch(repository, job_id) == before

    @pytest.mark.parametrize(("state", "command"), errors("conflict"))
    async def test_another_result_is_refused(self, repository: JobRepository, state: str, command: str) -> None:
        """The error names both results, and the job stays as it was: the first result wins."""
        job_id = await STATES[state](repository)
        before = await fetch(repository, job_id)
        requested = command in ("succeed", "event+")
        with pytest.raises(ResultConflictError) as caught:
            await COMMANDS[command](repository, job_id)
        assert (caught.value.job_id, caught.value.current, caught.value.requested) == (job_id, not requested, requested)
        assert await fetch(repository, job_id) == before

    @pytest.mark.parametrize("state", [state for state in STATES if "completed" not in state and "passed" not in state])
    async def test_the_way_to_complete_a_job_is_named(self, repository: JobRepository, state: str) -> None:
        """`update_job_status(job, "completed")` says that `complete_job` is meant."""
        job_id = await STATES[state](repository)
        with pytest.raises(InvalidTransitionError, match="complete_job"):
            await repository.update_job_status(job_id, "completed")
