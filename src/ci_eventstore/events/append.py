"""Append records to a job's stream: the typed face of `append.lua`."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from ci_common.errors import JobAlreadyExistsError, JobClaimedError, JobNotFoundError, LeaseLostError
from ci_eventstore.connection.counters import Counters
from ci_eventstore.connection.nodes import Nodes
from ci_eventstore.connection.scripts import load_script
from ci_eventstore.errors import AcknowledgedEventsLostError, LateOutputError, ProjectionMissingError
from ci_eventstore.events.batch import Batch
from ci_eventstore.events.caller import Call, as_argument
from ci_eventstore.events.log_index import INDEX_BYTES, INDEX_EVENTS
from ci_eventstore.keys import JobKeys, QueueKeys

logger = logging.getLogger("ci_eventstore.events")

#: The number of a token that was closed.
CLOSED = -1
#: Instead of a claim: this may be written whoever has claimed the job.
ANY_CLAIM = "*"
#: A log keeps so many bytes of text from its beginning, unless a setting says otherwise, then so many bytes from its
#: end, as they are stored, then so many bytes of text that come after the job's end.
HEAD_BYTES = 64 * 1024 * 1024
RING_BYTES = 1024 * 1024
LATE_BYTES = 1024 * 1024

APPEND = load_script(
    __package__,
    "append",
    constants={
        "INDEX_EVENTS": INDEX_EVENTS,
        "INDEX_BYTES": INDEX_BYTES,
        "LOG": ord("l"),
        "FACT": ord("f"),
        "RING_BYTES": RING_BYTES,
        # What a hash's field takes beside its value, about.
        "RING_ENTRY_BYTES": 64,
        "LATE_BYTES": LATE_BYTES,
        # Entries ride in the message to followers if they have at most so many bytes together, and are so few.
        "TOLD_BYTES": 16384,
        "TOLD_ENTRIES": 64,
        # A writer that was idle for an hour may be forgotten, once there are as many as this.
        "CALLS_KEPT": 64,
        "CALLS_AGE_MS": 3_600_000,
        "CALLS_TTL_MS": 86_400_000,
    },
)


@dataclass(frozen=True, slots=True)
class QueueMove:
    """What an append does in its job's queue: drop a lease with its ticket, leave it, enter it, tell of a cancel."""

    keys: QueueKeys
    steps: Sequence[Literal["drop", "leave", "enter", "cancel"]]
    user_id: str | None
    ticket: str | None


@dataclass(frozen=True, slots=True)
class Change:
    """What an append does to the projection beside its counters."""

    #: The version that the records were decided on, that the job must be new, or that it has to be there.
    expected: int | Literal["new", "any"]
    #: Which record, counted from 1, is the job's end; 0 for none.
    ends_at: int = 0
    #: A letter for each record, l(og), c(omplete) or f(act).
    kinds: str = ""
    given: dict[str, str] = field(default_factory=dict)
    lost: Sequence[str] = ()
    #: The job's member in the listings, and the listings that it leaves and joins.
    member: str = ""
    leaves: Sequence[str] = ()
    joins: Sequence[str] = ()
    queue: QueueMove | None = None


#: What an append of logs does: nothing, whatever the job's version is.
LOGS = Change(expected="any")


async def append(
    nodes: Nodes,
    keys: JobKeys,
    batch: Batch,
    *,
    call: Call,
    change: Change | None = None,
    claim: str = "",
    head_bytes: int = HEAD_BYTES,
) -> bool:
    """Append the records in one step; False: the version isn't the expected one any more, nothing was changed.

    Without a change, all records are logs and the job may be in any state. A repeated call is answered as the first
    time. `claim` is the one under which this is written, ANY_CLAIM if it needs none. JobNotFoundError,
    JobAlreadyExistsError, ProjectionMissingError, AcknowledgedEventsLostError, LateOutputError, JobClaimedError,
    LeaseLostError, StoreError.
    """
    change = change or LOGS
    listings = [*change.leaves, *change.joins]
    given = [text for pair in change.given.items() for text in pair]
    counts: list[str | int] = [change.member, len(change.leaves), len(change.given), len(change.lost)]
    after = as_argument(call.after)
    queue_keys, queue = _queue_arguments(change.queue)
    all_keys = [keys.hash, keys.stream, keys.calls, keys.log_index, keys.ids, keys.ring, *queue_keys, *listings]
    sizes = " ".join(batch.sizes()) if change.kinds else ""
    while True:
        head = [change.expected, " ".join(call.closes), change.ends_at, change.kinds, batch.bytes, batch.lines, sizes]
        fixed = [call.token, call.number, *head, head_bytes, claim, *queue]
        arguments = [*fixed, *counts, after, *given, *change.lost, *batch.payloads]
        reply = await nodes.run(APPEND, all_keys, arguments)
        if reply[0] != b"sizes":
            if _is_done(reply[0], keys.job_id, nodes.counters):
                if len(reply) > 2:
                    logger.warning("job %s: %s; run `ci-eventstore rebuild`", keys.job_id, reply[2].decode())
                nodes.counters.appended_records += len(batch.payloads)
                return True
            return False
        sizes = " ".join(batch.sizes())


async def has_call(nodes: Nodes, keys: JobKeys, token: str, number: int) -> bool:
    """Tell whether an acknowledged call is there still, or a later one of its token; StoreUnavailableError."""
    entry = await nodes.read_together("HGET", keys.calls, token)
    last = 0 if entry is None else int(entry.split()[0])
    return last == CLOSED or last >= number


def _queue_arguments(move: QueueMove | None) -> tuple[list[str], list[str]]:
    """Return a queue's keys, and what is to be done in it."""
    if move is None:
        return [], ["", "", "", ""]
    keys = move.keys
    arguments = [" ".join(move.steps), move.user_id or "", move.ticket or "", keys.channel]
    return [keys.dispatch, keys.backlog, keys.tickets, keys.leases], arguments


def _is_done(outcome: bytes, job_id: str, counters: Counters) -> bool:
    match outcome:
        case b"ok" | b"repeated":
            return True
        case b"conflict":
            return False
        case b"exists":
            raise JobAlreadyExistsError(job_id)
        case b"missing":
            raise JobNotFoundError(job_id)
        case b"unprojected":
            raise ProjectionMissingError(job_id)
        case b"claimed":
            raise JobClaimedError(job_id)
        case b"fenced":
            counters.refused_stale_writes += 1
            raise LeaseLostError(job_id)
        case b"full":
            raise LateOutputError(job_id, LATE_BYTES)
        case b"lost":
            raise AcknowledgedEventsLostError(job_id)
    raise AssertionError(f"append.lua answered {outcome!r}")
