"""Append records to a job's stream: the typed faces of `append_logs.lua` (lines within the budget) and `append.lua`."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from ci_common.errors import (
    JobAlreadyExistsError,
    JobClaimedError,
    JobGoneError,
    JobNotFoundError,
    LeaseLostError,
)
from ci_eventstore.connection.call_names import Key
from ci_eventstore.connection.nodes import Nodes
from ci_eventstore.connection.scripts import load_script
from ci_eventstore.connection.way import Counters
from ci_eventstore.errors import AcknowledgedEventsLostError, LateOutputError, ProjectionMissingError
from ci_eventstore.events.caller import Call, as_argument
from ci_eventstore.events.codec import Batch
from ci_eventstore.events.log_index import INDEX_BYTES, INDEX_EVENTS
from ci_eventstore.keys import JobKeys, keys_of_append

logger = logging.getLogger("ci_eventstore.events")


#: Instead of a claim: for what may be written under any claim and under none.
ANY_CLAIM = "*"
#: What is kept of a log: bytes of text from its beginning, unless a setting says otherwise; bytes of its end, as they
#: are stored; and bytes of text that come after the job's end.
HEAD_BYTES = 256 * 1024 * 1024
RING_BYTES = 1024 * 1024
LATE_BYTES = 1024 * 1024
CONSTANTS = {
    "INDEX_EVENTS": INDEX_EVENTS,
    "INDEX_BYTES": INDEX_BYTES,
    # Entries ride in the message to followers if they have at most this many bytes together, and are at most this many.
    "TOLD_BYTES": 16384,
    "TOLD_ENTRIES": 64,
    # A writer that was idle for an hour may be forgotten, once there are as many as this.
    "CALLS_KEPT": 64,
    "CALLS_AGE_MS": 3_600_000,
    "CALLS_TTL_MS": 86_400_000,
}


def check_answer(reply: Sequence[bytes], job_id: str, records: int, counters: Counters) -> bool:
    """Count the records that a script has appended; False: it left them to another call.

    JobNotFoundError, JobAlreadyExistsError, ProjectionMissingError, AcknowledgedEventsLostError, LateOutputError,
    JobClaimedError, LeaseLostError.
    """
    match reply[0]:
        case b"ok" | b"repeated":
            if len(reply) > 2:
                logger.warning("job %s: %s; run `ci-eventstore rebuild`", job_id, reply[2].decode())
            counters.appended_records += records
            return True
        case b"conflict" | b"limited":
            return False
        case b"exists":
            raise JobAlreadyExistsError(job_id)
        case b"missing":
            raise JobNotFoundError(job_id)
        case b"gone":
            raise JobGoneError(job_id)
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
    raise AssertionError(f"an append was answered {reply[0]!r}")


class LogsCall(NamedTuple):
    """What `append_logs.lua` is called with."""

    hash: Key
    stream: Key
    calls: Key
    log_index: Key
    #: Of the writer, and the number of its call: 1, 2, 3 ..
    token: str
    number: int
    #: Tokens, joined by spaces: calls under them that are still on their way are refused.
    closed: str
    #: Of all texts together.
    added_bytes: int
    added_lines: int
    #: How many bytes of text the log's head may have.
    head_bytes: int
    #: The claim under which this is written, "*" if it needs none though there is one.
    claim: str
    #: Tokens and numbers of calls that this one comes after, joined by spaces.
    after: str
    payloads: Sequence[bytes]


APPEND_LOGS = load_script(__package__, "append_logs", CONSTANTS, call=LogsCall)


async def append_logs(
    nodes: Nodes, keys: JobKeys, batch: Batch, *, call: Call, claim: str = "", head_bytes: int = HEAD_BYTES
) -> bool:
    """Append lines in one step; False: nothing was changed, as the log is over its budget or has ended.

    JobNotFoundError, ProjectionMissingError, AcknowledgedEventsLostError, JobClaimedError, LeaseLostError, StoreError.
    """
    values = LogsCall(
        keys.hash,
        keys.stream,
        keys.calls,
        keys.log_index,
        call.token,
        call.number,
        " ".join(call.closes),
        batch.bytes,
        batch.lines,
        head_bytes,
        claim,
        as_argument(call.after),
        batch.payloads,
    )
    reply = await nodes.run(APPEND_LOGS, *APPEND_LOGS.order(values))
    return check_answer(reply, keys.job_id, len(batch.payloads), nodes.counters)


class QueuePlace(NamedTuple):
    """Where a job moves in its queue."""

    dispatch: Key
    backlog: Key
    tickets: Key
    leases: Key
    #: "drop" (the lease and its ticket), "leave", "enter", "cancel" (notify the controller), joined by spaces.
    steps: str
    user: str
    #: The job's member of the backlog.
    waiting: str
    #: That of the lease.
    ticket: str
    channel: str


class Field(NamedTuple):
    """A field to set in the hash."""

    name: str
    value: str


class AppendCall(NamedTuple):
    """What `append.lua` is called with."""

    hash: Key
    stream: Key
    calls: Key
    log_index: Key
    ids: Key
    ring: Key
    #: The partition's ended jobs, and those of them whose logs are in their streams.
    ended_jobs: Key
    unsealed: Key
    #: Tombstones.
    gone: Key
    #: Of all jobs.
    facts: Key
    id: str
    #: Of the writer or of the call, and its number from 1.
    token: str
    number: int
    #: "any" (the job is there), "new" (it isn't), or the version that the records were decided on.
    expected: int | str
    #: Tokens, joined by spaces: calls under them that are still on their way are refused.
    closed: str
    #: How many of the records end the job when they are in: 0, or the place of the last of them.
    ends_at: int
    #: A letter each record, l(og), c(omplete) or f(act).
    kinds: str
    #: Of all texts together; then "bytes lines" of each, joined by spaces.
    added_bytes: int
    sizes: str
    #: How many bytes of text the log's head may have.
    head_bytes: int
    #: The claim under which this is written, "*" if it needs none though there is one.
    claim: str
    #: The job's member of the listings.
    member: str
    #: The members of the ended that it gets and loses, "" for none.
    ended: str
    had_ended: str
    #: The facts that it comes to, as letters, joined by blanks.
    told: str
    #: Tokens and numbers of calls that this one comes after, joined by spaces.
    after: str
    #: One, if the job's place changes there.
    queue: Sequence[QueuePlace]
    leaves: Sequence[Key]
    joins: Sequence[Key]
    given: Sequence[Field]
    lost: Sequence[str]
    payloads: Sequence[bytes]


APPEND = load_script(
    __package__,
    "append",
    {
        **CONSTANTS,
        "LOG": ord("l"),
        "FACT": ord("f"),
        "RING_BYTES": RING_BYTES,
        # What a hash's field takes beside its value, about.
        "RING_ENTRY_BYTES": 64,
        "LATE_BYTES": LATE_BYTES,
    },
    call=AppendCall,
)


@dataclass(frozen=True, slots=True)
class Change:
    """What an append does to the projection beside its counters."""

    #: The version that the records were decided on, that the job must be new, or that it has to be there.
    expected: int | Literal["new", "any"]
    #: Which record, counted from 1, is the job's end; 0 for none.
    ends_at: int = 0
    #: A letter for each record, l(og), c(omplete) or f(act).
    kinds: str = ""
    given: Mapping[str, str] = field(default_factory=dict)
    lost: Sequence[str] = ()
    #: The job's member in the listings, and the listings that it leaves and joins.
    member: str = ""
    leaves: Sequence[str] = ()
    joins: Sequence[str] = ()
    #: The members of the ended that the job gets and loses: it ends, or its end moves.
    ended: str = ""
    had_ended: str = ""
    #: The facts of all jobs that it comes to.
    told: str = ""
    #: What it does in the job's queue, if anything; and the name of the queue that the job enters.
    queue: Sequence[QueuePlace] = ()
    enters: str = ""


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

    Without a change, all records are logs and the job may be in any state. A repeated call gets its first answer.
    `claim` is the one under which this is written, ANY_CLAIM if it needs none. JobNotFoundError,
    JobAlreadyExistsError, ProjectionMissingError, AcknowledgedEventsLostError, LateOutputError, JobClaimedError,
    LeaseLostError, StoreError.
    """
    if change is None:
        if await append_logs(nodes, keys, batch, call=call, claim=claim, head_bytes=head_bytes):
            return True
        change = LOGS
    values = AppendCall(
        *keys_of_append(keys),
        id=keys.job_id,
        token=call.token,
        number=call.number,
        expected=change.expected,
        closed=" ".join(call.closes),
        ends_at=change.ends_at,
        kinds=change.kinds or "l" * len(batch.payloads),
        added_bytes=batch.bytes,
        sizes=" ".join(batch.sizes()),
        head_bytes=head_bytes,
        claim=claim,
        member=change.member,
        ended=change.ended,
        had_ended=change.had_ended,
        told=change.told,
        after=as_argument(call.after),
        queue=change.queue,
        leaves=change.leaves,
        joins=change.joins,
        given=[Field(name, value) for name, value in change.given.items()],
        lost=change.lost,
        payloads=batch.payloads,
    )
    reply = await nodes.run(APPEND, *APPEND.order(values))
    return check_answer(reply, keys.job_id, len(batch.payloads), nodes.counters)
