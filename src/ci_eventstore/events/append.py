"""Append records of any kind to a job's stream: the typed face of `append.lua`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from ci_eventstore.connection.call_names import Key
from ci_eventstore.connection.nodes import Nodes
from ci_eventstore.connection.scripts import load_script
from ci_eventstore.events.append_logs import append_logs
from ci_eventstore.events.appending import CONSTANTS, HEAD_BYTES, LATE_BYTES, RING_BYTES, check_answer
from ci_eventstore.events.batch import Batch
from ci_eventstore.events.caller import Call, as_argument
from ci_eventstore.keys import JobKeys, QueueKeys

#: The number of a token that was closed.
CLOSED = -1


class QueuePlace(NamedTuple):
    """Where a job moves in its queue."""

    dispatch: Key
    backlog: Key
    tickets: Key
    leases: Key
    #: "drop" (a lease), "leave", "enter", "cancel" (tell it), joined by spaces.
    steps: str
    user: str
    #: The job's member of the backlog.
    waiting: str
    #: That of the lease.
    ticket: str
    channel: str


class Field(NamedTuple):
    """A field that the hash is given."""

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
    id: str
    #: Of the writer or of the call, and its number: 1, 2, 3 ..
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
class QueueMove:
    """What an append does in its job's queue: drop a lease with its ticket, leave it, enter it, tell of a cancel."""

    keys: QueueKeys
    steps: Sequence[Literal["drop", "leave", "enter", "cancel"]]
    user_id: str | None
    #: The job's member of the backlog.
    waiting: str
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
    given: Mapping[str, str] = field(default_factory=dict)
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
    if change is None:
        if await append_logs(nodes, keys, batch, call=call, claim=claim, head_bytes=head_bytes):
            return True
        change = LOGS
    values = AppendCall(
        hash=keys.hash,
        stream=keys.stream,
        calls=keys.calls,
        log_index=keys.log_index,
        ids=keys.ids,
        ring=keys.ring,
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
        after=as_argument(call.after),
        queue=_queue_places(change.queue),
        leaves=change.leaves,
        joins=change.joins,
        given=[Field(name, value) for name, value in change.given.items()],
        lost=change.lost,
        payloads=batch.payloads,
    )
    reply = await nodes.run(APPEND, *APPEND.order(values))
    return check_answer(reply, keys.job_id, len(batch.payloads), nodes.counters)


async def has_call(nodes: Nodes, keys: JobKeys, token: str, number: int) -> bool:
    """Tell whether an acknowledged call is there still, or a later one of its token; StoreUnavailableError."""
    entry = await nodes.read_together("HGET", keys.calls, token)
    last = 0 if entry is None else int(entry.split()[0])
    return last == CLOSED or last >= number


def _queue_places(move: QueueMove | None) -> Sequence[QueuePlace]:
    if move is None:
        return ()
    keys, steps = move.keys, " ".join(move.steps)
    who = (move.user_id or "", move.waiting, move.ticket or "")
    return (QueuePlace(keys.dispatch, keys.backlog, keys.tickets, keys.leases, steps, *who, keys.channel),)
