"""Store new jobs that wait in their queues, as most do: the typed face of `create.lua`."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Final, NamedTuple

from ci_common.errors import JobAlreadyExistsError, JobGoneError
from ci_common.models import JobStatus
from ci_eventstore.connection.call_names import Key
from ci_eventstore.connection.nodes import Nodes
from ci_eventstore.connection.scripts import load_script, placed
from ci_eventstore.events.codec import encode, encode_time
from ci_eventstore.events.records import Fact, Record
from ci_eventstore.jobs.evolve import CLAIM_FIELDS, QUEUED_FIELDS
from ci_eventstore.jobs.state import encode_field, given_fields
from ci_eventstore.keys import JobKeys, QueueKeys, facts_key, gone_key, jobs_key
from ci_eventstore.members import members_of_waiting


class Listings(NamedTuple):
    """The listings of all jobs, or of a user's."""

    queued: Key
    running: Key


class CreateCall(NamedTuple):
    """What `create.lua` is called with."""

    hash: Key
    stream: Key
    ids: Key
    dispatch: Key
    backlog: Key
    tickets: Key
    leases: Key
    clock: Key
    offers: Key
    offered: Key
    facts: Key
    #: Tombstones.
    gone: Key
    id: str
    #: The job's `created` fact.
    created: bytes
    #: Its members of the listings and of the backlog.
    member: str
    waiting: str
    user: str
    #: That no other call has: it is in the fact, too, and in the claim of a controller that is given the job.
    token: str
    #: The time that it is, as the hash has it, and as msgpack.
    time: str
    packed_time: bytes
    #: The queue's, and what controllers' own ones begin with.
    channel: str
    channels: str
    listings: Sequence[Listings]
    #: Names and values, by turns: what the hash has beside what each job that waits has.
    fields: Sequence[str]


CREATE = load_script(
    __package__,
    "create",
    call=CreateCall,
    constants={
        "WAITING_FIELDS": placed(QUEUED_FIELDS),
        "GIVEN_FIELDS": placed(
            {"claim": "", **QUEUED_FIELDS, **CLAIM_FIELDS},
            controller="controller",
            claim="claim",
            ticket="new_ticket",
            start_time="time",
        ),
    },
)


def waiting_job(records: Sequence[Record]) -> Fact | None:
    """Return the only record of a new job that waits in its queue and has no events; None for other jobs."""
    [first, *others] = records
    if isinstance(first, Fact) and not others and first.fields["status"] == JobStatus.QUEUED:
        return first
    return None


async def create_waiting(nodes: Nodes, keys: JobKeys, created: Fact) -> None:
    """Store a job that waits, under the fact's token, which no other call has; JobAlreadyExistsError, JobGoneError.

    If a controller is given the job at once, that is the token of its claim, too.
    """
    known, time = created.fields, created.time
    user_id = known.get("user_id")
    shared = _shared(keys.tag, known["queue"], user_id)
    own = given_fields({**known, "incarnation": created.token})
    member, waiting = members_of_waiting(user_id, known["created_at"], keys.job_id)
    call = CreateCall(
        keys.hash,
        keys.stream,
        *shared[:_SHARED_KEYS],
        keys.job_id,
        encode(created),
        member,
        waiting,
        user_id or "",
        created.token or "",
        encode_field(time) or "",
        encode_time(time),
        *shared[_SHARED_KEYS:],
        [text for name, value in own.items() if QUEUED_FIELDS.get(name) != value for text in (name, value)],
    )
    answer = await nodes.run(CREATE, *CREATE.order(call))
    if answer != b"ok":
        raise JobGoneError(keys.job_id) if answer == b"gone" else JobAlreadyExistsError(keys.job_id)
    nodes.counters.appended_records += 1


_SHARED_KEYS: Final = 10
_Shared = tuple[str, str, str, str, str, str, str, str, str, str, str, str, list[Listings]]


@lru_cache(maxsize=1000)
def _shared(tag: str, queue_name: str, user_id: str | None) -> _Shared:
    """Return what jobs of a partition, queue and owner have in common: keys, the queue's channels, the listings."""
    queue, owners = QueueKeys(queue_name, tag), (None,) if user_id is None else (None, user_id)
    listings = [
        Listings(*(jobs_key(tag, status, owner) for status in (JobStatus.QUEUED, JobStatus.RUNNING)))
        for owner in owners
    ]
    keys = (queue.dispatch, queue.backlog, queue.tickets, queue.leases, queue.clock, queue.offers, queue.offered)
    return (
        JobKeys("", tag).ids,
        *keys,
        facts_key(tag),
        gone_key(tag),
        queue.channel,
        queue.controllers_channel,
        listings,
    )
