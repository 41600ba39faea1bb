"""Make all that is derived from one job's log as its fold says: the typed face of `rebuild.lua`."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ci_eventstore.connection.call_names import Key
from ci_eventstore.connection.nodes import Nodes
from ci_eventstore.connection.replies import as_bytes
from ci_eventstore.connection.scripts import load_script
from ci_eventstore.events.append import Field
from ci_eventstore.jobs.packed_records import KEPT_FIELDS, shortened
from ci_eventstore.jobs.state import JobState, to_hash
from ci_eventstore.keys import gone_key
from ci_eventstore.members import backlog_member
from ci_eventstore.projection.fold import Fold

#: A lease that is found missing begins now, and lasts this long.
REBUILT_LEASE_MS = 30_000


class RebuildCall(NamedTuple):
    """What `rebuild.lua` is called with: what there has to be of a job."""

    hash: Key
    stream: Key
    log_index: Key
    ring: Key
    ids: Key
    dispatch: Key
    backlog: Key
    tickets: Key
    leases: Key
    clock: Key
    ended_jobs: Key
    unsealed: Key
    #: The stream of a copy, and the partition's tombstones.
    staged: Key
    gone: Key
    #: Of the stream's last entry, as its id; "" if it is to have none.
    place: str
    #: The hash's field `log` as it was read; "" for none.
    log_before: bytes
    id: str
    user: str
    #: Its members of the backlog, of the listings and of the ended; "" for none of those.
    waiting: str
    member: str
    ended: str
    #: 1 or 0, as is whether it may have a ring.
    is_queued: int
    is_claimed: int
    has_ring: int
    #: The queue's.
    channel: str
    #: 1 or 0; then the place and the mark that the hash had, and the member of the ended.
    is_copy: int
    place_before: str
    mark_before: str
    ended_before: str
    #: Of a copy: segments that were staged, and those that they replace.
    segments: Sequence[Key]
    dropped: Sequence[Key]
    #: The listings in which it doesn't stand and those in which it does.
    leaves: Sequence[Key]
    joins: Sequence[Key]
    fields: Sequence[Field]
    #: Of the sparse index.
    entries: Sequence[str]


@dataclass(frozen=True, slots=True)
class Copied:
    """What becomes a job's by a copy."""

    #: A stream with what doesn't lie in segments; where that ends is told apart, as for every job.
    staged: str
    #: What the target has of the job so far.
    before: JobState | None = None
    segments: Sequence[str] = ()
    dropped: Sequence[str] = ()
    #: Whether the record has to be packed.
    is_packed: bool = False


REBUILD = load_script(__package__, "rebuild", {"REBUILT_LEASE_MS": REBUILT_LEASE_MS}, call=RebuildCall)


async def rebuild(
    nodes: Nodes, fold: Fold, end: str, index: Sequence[str], log: str, copied: Copied | None = None
) -> bytes:
    """Mend by `rebuild.lua` what differs from a fold, and return its answer: "right", "mended" or "changed".

    `end` is where the stream ended, "" if there was none, `log` the hash's field as it was read. If the job is copied,
    what was staged becomes its log in the same step.
    """
    state, keys = fold.state, fold.keys
    assert state is not None
    made = copied or Copied(keys.stream)
    before, fields = made.before, to_hash(state)
    if made.is_packed:
        fields = shortened({name: value for name, value in fields.items() if name in KEPT_FIELDS})
    listings, queue, in_queue = fold.listings(), keys.queue(state.lease_queue), fold.belongs_in_queue()
    call = RebuildCall(
        *(keys.hash, keys.stream, keys.log_index, keys.ring, keys.ids),
        *(queue.dispatch, queue.backlog, queue.tickets, queue.leases, queue.clock),
        *(keys.ended, keys.unsealed, made.staged, gone_key(keys.tag)),
        place=end,
        log_before=as_bytes(log),
        id=keys.job_id,
        user=state.user_id or "",
        waiting=backlog_member(state.user_id, state.created_at, keys.job_id),
        member=fold.member(),
        ended=state.ended_member(keys.job_id),
        is_queued=int(in_queue["backlog"]),
        is_claimed=int(in_queue["lease"]),
        has_ring=int(fold.has_ring),
        channel=queue.channel,
        is_copy=int(copied is not None),
        place_before=f"{before.position}-{before.part}" if before else "-",
        mark_before=(before.mark or "") if before else "",
        ended_before=before.ended_member(keys.job_id) if before else "",
        segments=made.segments,
        dropped=made.dropped,
        leaves=[key for key, belongs in listings.items() if not belongs],
        joins=[key for key, belongs in listings.items() if belongs],
        fields=[Field(name, value) for name, value in fields.items()],
        entries=index,
    )
    reply: bytes = await nodes.run(REBUILD, *REBUILD.order(call))
    return reply
