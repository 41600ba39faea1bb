"""The rules: what may be asked of a job, and which records a command appends to its stream.

`now` is the time of those records that have none of their own.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from ci_common.errors import InvalidTransitionError, JobNotFoundError, ResultConflictError
from ci_common.models import Job, JobEvent, JobStatus
from ci_common.transitions import ENDED, check_move
from ci_eventstore.events.records import Fact, FactType, Record
from ci_eventstore.job_fields import JOB_FIELD_NAMES
from ci_eventstore.jobs.evolve import evolve_all
from ci_eventstore.jobs.state import JobState


@dataclass(frozen=True, slots=True)
class AppendEvents:
    """Append accepted events, all or none; a `complete` event ends the job."""

    events: tuple[JobEvent, ...]


@dataclass(frozen=True, slots=True)
class UpdateStatus:
    """Move the job to a status, or add what became known about its present one."""

    status: JobStatus
    start_time: datetime | None = None
    container_id: str | None = None


@dataclass(frozen=True, slots=True)
class HandBack:
    """Put a claimed job back into its queue because the controller's machine can't run it."""

    controller: str


@dataclass(frozen=True, slots=True)
class Fail:
    """End the job as failed, with a last line in its log that says why."""

    line: str


@dataclass(frozen=True, slots=True)
class Complete:
    """End the job with a `complete` event."""

    event: JobEvent
    #: Whether the event's time was given as the job's end time, and not just as the event's.
    end_time_is_explicit: bool


@dataclass(frozen=True, slots=True)
class Cancel:
    """End the job as cancelled, with a last line in its log that says so; if a controller has it, ask that to."""

    line: str
    #: Only if the job is this user's.
    user_id: str | None = None
    #: Whether the job's controller asks: it ends the job, with the line of the request.
    is_final: bool = False


@dataclass(frozen=True, slots=True)
class Keep:
    """Have retention leave the job alone, or not any more."""

    is_kept: bool


Command = AppendEvents | UpdateStatus | HandBack | Fail | Complete | Cancel | Keep


#: A job that can't be run fails at its tenth hand-back, or that by a third controller.
MAX_HAND_BACKS = 10
MAX_UNFIT_CONTROLLERS = 3
_MOVES = {
    JobStatus.RUNNING: FactType.STARTED,
    JobStatus.QUEUED: FactType.REQUEUED,
    JobStatus.FAILED: FactType.FAILED,
    JobStatus.CANCELLED: FactType.CANCELLED,
}


def decide_creation(
    job: Job, events: Sequence[JobEvent], now: datetime, token: str | None = None, held: Fact | None = None
) -> list[Record]:
    """Return the records of a new job with accepted events; `token` is that of the call that creates it.

    If `held` says who has claimed it, the job ends with that process.
    """
    known = vars(job)
    fields = {name: value for name in JOB_FIELD_NAMES if (value := known[name]) is not None}
    fields["status"] = str(job.status)
    if held is not None:
        fields["ends_if_lost"] = True
    records: list[Record] = [Fact(FactType.CREATED, now, fields, token), *events]
    if job.status in ENDED and not any(event.type == "complete" for event in events):
        records.append(Fact(FactType.ENDED, now))
    if held is not None:
        records.append(held)
    return records


def decide(job_id: str, state: JobState, command: Command, now: datetime) -> list[Record]:
    """Return the records that a command appends, none if it changes nothing.

    InvalidTransitionError, ResultConflictError; JobNotFoundError for another user's job.
    """
    match command:
        case AppendEvents():
            return _append(job_id, state, command, now)
        case UpdateStatus():
            return _update_status(job_id, state, command, now)
        case HandBack():
            return _hand_back(job_id, state, command, now)
        case Fail():
            check_move(job_id, state.status, JobStatus.FAILED)
            line = JobEvent("log", command.line, timestamp=now)
            return [line, *_update_status(job_id, state, UpdateStatus(JobStatus.FAILED), now)]
        case Complete():
            return _complete(job_id, state, command, now)
        case Cancel() | Keep():
            return _keep(state, command, now) if isinstance(command, Keep) else _cancel(job_id, state, command, now)


def _keep(state: JobState, command: Keep, now: datetime) -> list[Record]:
    is_new = command.is_kept != bool(state.is_kept)
    return [Fact(FactType.UPDATED, now, {"is_kept": command.is_kept})] if is_new else []


def _append(job_id: str, state: JobState, command: AppendEvents, now: datetime) -> list[Record]:
    records: list[Record] = []
    for event in command.events:
        if event.type == "complete":
            added = _complete(job_id, evolve_all(state, records), Complete(event, end_time_is_explicit=False), now)
        else:
            added = [event]
        records += added
    return records


def _update_status(job_id: str, state: JobState, command: UpdateStatus, now: datetime) -> list[Record]:
    details: dict[str, Any] = {}
    if command.start_time is not None and state.start_time is None:
        details["start_time"] = command.start_time
    if command.container_id not in (None, state.container_id) and command.status != JobStatus.QUEUED:
        details["container_id"] = command.container_id
    if command.status == state.status:
        return [Fact(FactType.UPDATED, now, details)] if details else []
    if command.status == JobStatus.COMPLETED:
        hint = "a job is completed with its result, by complete_job"
        raise InvalidTransitionError(job_id, state.status.value, "completed", hint)
    check_move(job_id, state.status, command.status)
    if command.status == JobStatus.QUEUED:
        if state.cancel_line is not None:
            # A job that is given back would lose the request.
            return _cancel(job_id, state, Cancel(state.cancel_line, is_final=True), now)
        details |= given_back(state)
    if command.status == JobStatus.RUNNING and state.start_time is None:
        details.setdefault("start_time", now)
    records: list[Record] = [Fact(_MOVES[command.status], now, details)]
    if command.status in ENDED:
        records.append(JobEvent("complete", success=False, timestamp=now))
    return records


def _hand_back(job_id: str, state: JobState, command: HandBack, now: datetime) -> list[Record]:
    check_move(job_id, state.status, JobStatus.QUEUED)
    if state.cancel_line is not None:
        return _cancel(job_id, state, Cancel(state.cancel_line, is_final=True), now)
    return [Fact(FactType.REQUEUED, now, {**given_back(state), **handed_back(state, command.controller)})]


def given_back(state: JobState) -> dict[str, Any]:
    """Return what changes when a controller gives a job back: it doesn't count as an attempt."""
    return {} if state.claim is None else {"attempts": max(state.attempts - 1, 0)}


def handed_back(state: JobState, controller: str) -> dict[str, Any]:
    """Return what changes when a controller can't run a job: how often that happened, and to which controllers."""
    controllers = [*(state.handed_back_by or "").split(), controller]
    return {"hand_backs": (state.hand_backs or 0) + 1, "handed_back_by": " ".join(dict.fromkeys(controllers))}


def is_handed_back_too_often(state: JobState, controller: str) -> bool:
    """Return whether a job that this controller can't run is to fail: the job itself may fill the disks."""
    after = handed_back(state, controller)
    return after["hand_backs"] >= MAX_HAND_BACKS or len(after["handed_back_by"].split()) >= MAX_UNFIT_CONTROLLERS


def _complete(job_id: str, state: JobState, command: Complete, now: datetime) -> list[Record]:
    success, known = bool(command.event.success), state.success
    if known is None and state.status in (JobStatus.FAILED, JobStatus.CANCELLED):
        known = False
    if known is not None and known != success:
        raise ResultConflictError(job_id, known, success)
    records: list[Record] = []
    if command.end_time_is_explicit and (state.end_time is None or state.end_time_from_event):
        records.append(Fact(FactType.END_TIME_SET, now, {"end_time": command.event.timestamp}))
    if not state.has_complete:
        records.append(replace(command.event, id=None))
    return records


def _cancel(job_id: str, state: JobState, command: Cancel, now: datetime) -> list[Record]:
    if command.user_id is not None and command.user_id != state.user_id:
        raise JobNotFoundError(job_id)
    if state.status == JobStatus.CANCELLED:
        return []
    check_move(job_id, state.status, JobStatus.CANCELLED)
    if state.claim is not None and not command.is_final:
        return [] if state.cancel_line else [Fact(FactType.CANCEL_REQUESTED, now, {"cancel_line": command.line})]
    return [
        JobEvent("log", state.cancel_line or command.line, timestamp=now),
        Fact(FactType.CANCELLED, now),
        JobEvent("complete", success=False, timestamp=now),
    ]
