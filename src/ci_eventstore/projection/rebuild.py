"""Make all that is derived from one job's log as its fold says: the typed face of `rebuild.lua`."""

from collections.abc import Sequence
from typing import NamedTuple

from ci_eventstore.connection.call_names import Key
from ci_eventstore.connection.nodes import Nodes
from ci_eventstore.connection.replies import as_bytes
from ci_eventstore.connection.scripts import load_script
from ci_eventstore.events.append import Field
from ci_eventstore.jobs.state import to_hash
from ci_eventstore.keys import backlog_member
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
    #: The listings in which it doesn't stand and those in which it does.
    leaves: Sequence[Key]
    joins: Sequence[Key]
    fields: Sequence[Field]
    #: Of the sparse index.
    entries: Sequence[str]


REBUILD = load_script(__package__, "rebuild", {"REBUILT_LEASE_MS": REBUILT_LEASE_MS}, call=RebuildCall)


async def rebuild(nodes: Nodes, fold: Fold, end: str, index: Sequence[str], log: str) -> bytes:
    """Mend by `rebuild.lua` what differs from a fold, and return its answer: "right", "mended" or "changed".

    `end` is where the stream ended, "" if there was none, `log` the hash's field as it was read.
    """
    state, keys = fold.state, fold.keys
    assert state is not None
    listings, queue, in_queue = fold.listings(), keys.queue(state.lease_queue), fold.belongs_in_queue()
    call = RebuildCall(
        *(keys.hash, keys.stream, keys.log_index, keys.ring, keys.ids),
        *(queue.dispatch, queue.backlog, queue.tickets, queue.leases, queue.clock),
        *(keys.ended, keys.unsealed),
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
        leaves=[key for key, belongs in listings.items() if not belongs],
        joins=[key for key, belongs in listings.items() if belongs],
        fields=[Field(name, value) for name, value in to_hash(state).items()],
        entries=index,
    )
    reply: bytes = await nodes.run(REBUILD, *REBUILD.order(call))
    return reply
