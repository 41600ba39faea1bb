"""The whole table of what becomes of a job in each state when each command comes."""

from collections.abc import Awaitable, Callable, Iterator

import pytest

from ci_common.errors import InvalidTransitionError, ResultConflictError
from ci_common.models import Job
from ci_common.repository import JobRepository
from ci_common.testing.samples import at, complete, completions, create, fetch, log

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
