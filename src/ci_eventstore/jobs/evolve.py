"""The fold: a job's state after each record of its stream."""

from collections.abc import Iterable
from datetime import UTC, datetime
from itertools import groupby
from typing import Any, cast

from ci_common.models import JobEvent, JobStatus, Outcome
from ci_common.transitions import ENDED
from ci_eventstore.events.records import Fact, FactType, Record, log_text, text_size
from ci_eventstore.jobs.state import JobState, created_fields, decided_changes, from_checkpoint

_ANY_TIME = datetime(1970, 1, 1, tzinfo=UTC)
#: The fields that a job loses with its controller.
UNCLAIMED: dict[str, Any] = dict.fromkeys(("controller", "claim", "ticket", "cancel_line"))


def evolve(state: JobState | None, record: Record) -> JobState:
    """Return the state after one more record; None is the state before the first, `created` or `log_deleted`."""
    created = isinstance(record, Fact) and record.type is FactType.CREATED
    if created != (state is None):
        if isinstance(record, Fact) and record.type is FactType.LOG_DELETED:
            return from_checkpoint(record.fields)
        raise ValueError(f"a job's stream begins with `created`, once: {record.type} comes at the wrong place")
    if state is None:
        return _created(cast(Fact, record))
    return _fact(state, record) if isinstance(record, Fact) else _event(state, record)


def evolve_given(created: Record, controller: str, claim: str, ticket: str) -> JobState:
    """Return the state of a job that a controller was given in the step that created it: at that time, by its claim."""
    state, time = evolve(None, created), cast(Fact, created).time
    known = {"epoch": 1, "attempts": 1, "controller": controller, "claim": claim, "ticket": ticket}
    return evolve(state, Fact(FactType.CLAIMED, time, known))


def evolve_all(state: JobState | None, records: Iterable[Record]) -> JobState:
    """Return the state after some more records; logs, of which there are many, are counted run by run."""
    for is_log, run in groupby(records, _is_log):
        if is_log and state is not None:
            state = _count(state, cast(Iterable[JobEvent], run))
        else:
            for record in run:
                state = evolve(state, record)
    if state is None:
        raise ValueError("a job's stream has at least `created`")
    return state


def _is_log(record: Record) -> bool:
    return record.type == "log"


def _count(state: JobState, events: Iterable[JobEvent]) -> JobState:
    """Return the state after some more events, as far as they are entries of the log."""
    position, part, total, lines = state.position, state.part, state.bytes, state.lines
    for event in events:
        size, newlines = text_size(log_text(event))
        position, part, total, lines = position + 1, 0, total + size, lines + newlines
    return state.but(position=position, part=part, bytes=total, lines=lines)


def _event(state: JobState, event: JobEvent) -> JobState:
    state = _count(state, [event])
    return _complete(state, event) if event.type == "complete" else state


def _complete(state: JobState, event: JobEvent) -> JobState:
    from_event = state.end_time is None
    outcome = event.outcome or Outcome(state.exit_code, state.signal)
    return state.but(
        status=state.status if state.status in ENDED else JobStatus.COMPLETED,
        success=event.success,
        exit_code=outcome.exit_code,
        signal=outcome.signal,
        end_time=event.timestamp if from_event else state.end_time,
        end_time_from_event=from_event or state.end_time_from_event,
        has_complete=True,
        **UNCLAIMED,
        end_position=state.position,
        end_bytes=state.bytes,
        version=state.version + 1,
    )


def _created(fact: Fact) -> JobState:
    known = dict(fact.fields)
    known["status"] = JobStatus(known["status"])
    if known.get("command") is not None:
        known["command"] = tuple(known["command"])
    return JobState.of(**known, incarnation=fact.token, part=1, version=1)


#: What a fact changes besides the fields that it holds.
_CHANGES: dict[FactType, dict[str, Any]] = {
    FactType.STARTED: {"status": JobStatus.RUNNING},
    FactType.UPDATED: {},
    FactType.CLAIMED: {"status": JobStatus.RUNNING},
    FactType.REQUEUED: {"status": JobStatus.QUEUED, "container_id": None, **UNCLAIMED},
    FactType.CANCEL_REQUESTED: {},
    FactType.FAILED: {"status": JobStatus.FAILED},
    FactType.CANCELLED: {"status": JobStatus.CANCELLED},
    FactType.ENDED: {},
    FactType.END_TIME_SET: {"end_time_from_event": False},
}


def _fact(state: JobState, fact: Fact) -> JobState:
    if fact.type is FactType.TRUNCATING:
        # It is about the log, so like a log event it raises no version.
        return state.but(part=state.part + 1, truncated_at=state.position)
    if fact.type is FactType.LOG_DELETED:
        return from_checkpoint(fact.fields)
    changes = {**_CHANGES[fact.type], **fact.fields}
    if fact.type is FactType.CLAIMED and state.start_time is None:
        changes["start_time"] = fact.time
    if fact.type is FactType.ENDED:
        changes |= {"end_position": state.position, "end_bytes": state.bytes}
    return state.but(part=state.part + 1, version=state.version + 1, **changes)


#: What the fold says of transitions that scripts make by themselves: fields that a hash is given, and those that it
#: loses. Scripts have them when they are loaded, with Lua in place of the values that are each job's own.
_QUEUED = JobState.of(created_at=_ANY_TIME, status=JobStatus.QUEUED, part=1, version=1)
_CLAIM = {"epoch": 1, "attempts": 1, "controller": "any", "claim": "any", "ticket": "any"}
_CLAIMED = evolve(_QUEUED, Fact(FactType.CLAIMED, _ANY_TIME, _CLAIM))
_COMPLETE = JobEvent("complete", success=True, timestamp=_ANY_TIME)
#: Of a job that waits from now on; of one that is claimed for the first time; of a claimed one that is completed.
#: Servers look for a field from a hash's beginning: what is asked for at each write comes first.
QUEUED_FIELDS = {"version": "", "status": ""} | created_fields({"status": JobStatus.QUEUED})
CLAIM_FIELDS, _ = decided_changes(_QUEUED, _CLAIMED)
COMPLETED_FIELDS, _ = decided_changes(_CLAIMED, evolve(_CLAIMED, _COMPLETE))
