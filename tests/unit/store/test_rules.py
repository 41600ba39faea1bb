"""What a command appends, and what state that makes: the table by hand, then by any order of commands."""

from datetime import UTC, datetime, timedelta

import pytest

from ci_common.errors import InvalidTransitionError, JobNotFoundError, ResultConflictError
from ci_common.models import Job, JobEvent, JobStatus
from ci_eventstore.events.records import Fact, FactType, Record
from ci_eventstore.jobs.decide import (
    MAX_HAND_BACKS,
    AppendEvents,
    Cancel,
    Command,
    Complete,
    HandBack,
    UpdateStatus,
    decide,
    decide_creation,
    is_handed_back_too_often,
)
from ci_eventstore.jobs.evolve import evolve_all
from ci_eventstore.jobs.state import JobState, decided_changes, from_hash, to_hash

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
LATER = NOW + timedelta(minutes=1)


def created(job: Job) -> JobState:
    return evolve_all(None, decide_creation(job, job.events, NOW))


def do(state: JobState, command: Command) -> JobState:
    return evolve_all(state, decide("j", state, command, NOW))


def complete(success: bool, *, explicit: bool = True, at: datetime = LATER) -> Complete:
    return Complete(JobEvent("complete", success=success, timestamp=at), explicit)


QUEUED = created(Job(id="j", status="queued", created_at=NOW, user_id="u"))
RUNNING = do(QUEUED, UpdateStatus(JobStatus.RUNNING, container_id="c"))
PASSED = do(RUNNING, complete(True))
FAILED = do(RUNNING, UpdateStatus(JobStatus.FAILED))
CANCELLED = do(RUNNING, Cancel("[cancelled]\n"))
MADE_PASSED = created(Job(id="j", status="completed", success=True, created_at=NOW))
STATES = [QUEUED, RUNNING, PASSED, FAILED, CANCELLED, MADE_PASSED]


def kinds(records: list[Record]) -> list[str]:
    return [str(record.type) for record in records]


@pytest.mark.parametrize(
    ("state", "command", "appended"),
    [
        (QUEUED, UpdateStatus(JobStatus.RUNNING), ["started"]),
        (QUEUED, UpdateStatus(JobStatus.QUEUED), []),
        (QUEUED, UpdateStatus(JobStatus.FAILED), ["failed", "complete"]),
        (QUEUED, Cancel("[cancelled]\n"), ["log", "cancelled", "complete"]),
        (QUEUED, complete(True), ["end_time_set", "complete"]),
        (QUEUED, complete(True, explicit=False), ["complete"]),
        (RUNNING, UpdateStatus(JobStatus.RUNNING), []),
        (RUNNING, UpdateStatus(JobStatus.RUNNING, container_id="c"), []),
        (RUNNING, UpdateStatus(JobStatus.RUNNING, container_id="d"), ["updated"]),
        (RUNNING, UpdateStatus(JobStatus.RUNNING, start_time=LATER), []),
        (RUNNING, UpdateStatus(JobStatus.QUEUED), ["requeued"]),
        (RUNNING, UpdateStatus(JobStatus.CANCELLED), ["cancelled", "complete"]),
        (PASSED, complete(True), []),
        (PASSED, UpdateStatus(JobStatus.COMPLETED), []),
        (FAILED, complete(False), ["end_time_set"]),
        (FAILED, complete(False, explicit=False), []),
        (FAILED, UpdateStatus(JobStatus.FAILED), []),
        (CANCELLED, Cancel("again\n"), []),
        (MADE_PASSED, complete(True), ["end_time_set", "complete"]),
        *((state, AppendEvents((JobEvent("log", "late", timestamp=NOW),)), ["log"]) for state in STATES),
    ],
)
def test_a_command_appends(state: JobState, command: Command, appended: list[str]) -> None:
    """Each state and command that go together append just these records."""
    assert kinds(decide("j", state, command, NOW)) == appended


@pytest.mark.parametrize(
    ("state", "command", "error"),
    [
        (QUEUED, UpdateStatus(JobStatus.COMPLETED), InvalidTransitionError),
        (RUNNING, UpdateStatus(JobStatus.COMPLETED), InvalidTransitionError),
        (QUEUED, Cancel("", user_id="another"), JobNotFoundError),
        (PASSED, complete(False), ResultConflictError),
        (FAILED, complete(True), ResultConflictError),
        (CANCELLED, complete(True), ResultConflictError),
        (MADE_PASSED, complete(False), ResultConflictError),
        (PASSED, Cancel("[cancelled]\n"), InvalidTransitionError),
        (FAILED, Cancel("[cancelled]\n"), InvalidTransitionError),
        *(
            (ended, UpdateStatus(status), InvalidTransitionError)
            for ended in (PASSED, FAILED, CANCELLED)
            for status in JobStatus
            if status != ended.status
        ),
    ],
)
def test_a_command_is_refused(state: JobState, command: Command, error: type[Exception]) -> None:
    """Each state and command that don't go together raise, and so append nothing."""
    with pytest.raises(error):
        decide("j", state, command, NOW)


def test_a_status_update_completes_nothing_and_says_what_does() -> None:
    """Who asks for `completed` is told of complete_job."""
    with pytest.raises(InvalidTransitionError, match="complete_job"):
        decide("j", RUNNING, UpdateStatus(JobStatus.COMPLETED), NOW)


def test_an_explicit_end_time_replaces_an_events_once() -> None:
    """The time of `failed` gives way to the one of complete_job; that one stays."""
    first = do(FAILED, complete(False, at=LATER))
    assert (FAILED.end_time, first.end_time, first.status) == (NOW, LATER, JobStatus.FAILED)
    assert do_nothing(first, complete(False, at=NOW))


def do_nothing(state: JobState, command: Command) -> bool:
    return decide("j", state, command, NOW) == []


def test_a_requeued_job_keeps_its_start_and_loses_its_container() -> None:
    """Back in the queue, a job has its first start time and no container."""
    again = do(RUNNING, UpdateStatus(JobStatus.QUEUED))
    assert (again.status, again.start_time, again.container_id) == (JobStatus.QUEUED, NOW, None)


def test_only_lifecycle_raises_the_version() -> None:
    """A log leaves the version, so that writers don't stand in a completion's way."""
    logged = do(RUNNING, AppendEvents((JobEvent("log", "a\nb\n", timestamp=NOW),)))
    assert (logged.version, logged.position, logged.bytes, logged.lines) == (RUNNING.version, 1, 4, 2)
    assert do(logged, complete(True)).version > logged.version


def claim(state: JobState, controller: str = "c1") -> JobState:
    """Return the state after the fact that `claim.lua` writes."""
    epoch, attempts = state.epoch + 1, state.attempts + 1
    fields = {"epoch": epoch, "attempts": attempts, "controller": controller, "claim": f"{epoch} t", "ticket": "1-0"}
    return evolve_all(state, [Fact(FactType.CLAIMED, NOW, fields)])


def test_what_is_given_back_in_order_costs_no_attempt() -> None:
    """However often; only a controller that was lost does."""
    state = QUEUED
    for epoch in range(1, 8):
        state = claim(state)
        assert (state.epoch, state.attempts) == (epoch, 1)
        state = do(state, UpdateStatus(JobStatus.QUEUED))
    lost = claim(claim(state))
    assert (lost.attempts, do(lost, UpdateStatus(JobStatus.QUEUED)).attempts) == (2, 1)


def test_an_old_requeued_fact_changes_what_it_did_then() -> None:
    """It has no fields, so the attempts of a job that was given back before this version stay counted."""
    state = evolve_all(claim(QUEUED), [Fact(FactType.REQUEUED, NOW)])
    assert (state.attempts, state.claim, state.hand_backs, state.status) == (1, None, None, JobStatus.QUEUED)


def test_hand_backs_are_counted_with_their_controllers() -> None:
    """They cost no attempt either, and are bounded: a third controller, or a tenth time, and the job is to fail."""
    state = QUEUED
    for number in range(1, MAX_HAND_BACKS):
        state = claim(state, "c1")
        assert not is_handed_back_too_often(state, "c1")
        state = do(state, HandBack("c1"))
        assert (state.attempts, state.hand_backs, state.handed_back_by) == (0, number, "c1")
    assert is_handed_back_too_often(claim(state), "c1")
    two = do(claim(do(claim(QUEUED, "c1"), HandBack("c1")), "c2"), HandBack("c2"))
    assert (two.hand_backs, two.handed_back_by) == (2, "c1 c2")
    assert not is_handed_back_too_often(two, "c1")
    assert is_handed_back_too_often(two, "c3")


@pytest.mark.parametrize("state", STATES)
def test_a_state_survives_its_hash(state: JobState) -> None:
    """What is written as a hash is read as the same state."""
    assert from_hash("job", [text.encode() for pair in to_hash(state).items() for text in pair]) == state


@pytest.mark.parametrize("before", [None, *STATES])
@pytest.mark.parametrize("after", STATES)
def test_changes_lead_from_one_hash_to_the_next(before: JobState | None, after: JobState) -> None:
    """The fields that are sent make the hash of the next state, but for counters, which the script moves."""
    given, lost = decided_changes(before, after)
    fields = {**(to_hash(before) if before else {}), **given}
    for name in lost:
        del fields[name]
    counters = {"position", "part", "bytes", "lines", "end_position", "end_bytes", "truncated_at"}
    assert {n: v for n, v in fields.items() if n not in counters} == {
        n: v for n, v in to_hash(after).items() if n not in counters
    }


def test_a_stream_begins_with_created_once() -> None:
    """A fold that meets records in an impossible order says so."""
    records = decide_creation(Job(id="j", status="queued"), [], NOW)
    with pytest.raises(ValueError, match="created"):
        evolve_all(None, [JobEvent("log", "x", timestamp=NOW)])
    with pytest.raises(ValueError, match="created"):
        evolve_all(None, [*records, *records])
    assert isinstance(records[0], Fact)
