"""Ask which jobs of a queue come next, and claim them: the typed faces of `peek.lua` and `claim.lua`."""

import secrets
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from ci_common.models import JobStatus, utc_now
from ci_eventstore.connection.call_names import Key
from ci_eventstore.connection.nodes import Nodes
from ci_eventstore.connection.replies import Reply, as_text, as_texts
from ci_eventstore.connection.scripts import Constants, load_script, placed
from ci_eventstore.errors import ProjectionDamagedError
from ci_eventstore.events.codec import encode_time
from ci_eventstore.jobs.evolve import CLAIM_FIELDS
from ci_eventstore.jobs.state import CLAIMED_FIELDS, claimed_state, encode_field
from ci_eventstore.keys import QueueKeys, facts_key, jobs_key, keys_of_claim
from ci_eventstore.members import read_backlog_member
from ci_eventstore.queues.claimed import Claimed, as_claimed, name_damage

#: How many jobs a caller that asks for more than one is shown: it needn't ask again for those.
FORESEEN_JOBS = 256


class PeekCall(NamedTuple):
    """What `peek.lua` is called with."""

    dispatch: Key
    backlog: Key
    leases: Key
    clock: Key
    offers: Key
    offered: Key
    #: How many jobs whose leases have run out, and how many jobs together.
    expired_count: int
    limit: int
    lease_ms: int
    controller: str
    #: "<session>-<number>", a session's numbers go up; "" from those that make no offers.
    question: str
    #: How long its offer stands; 0: it makes none.
    offer_ms: int
    #: Token of the last claim that its offers have brought, as far as it knows.
    newest: str


PEEK = load_script(__package__, "peek", call=PeekCall, constants={"OFFERED_TTL_MS": 86_400_000})


class Waiting(NamedTuple):
    """A job that waits in a queue."""

    user_id: str
    sort_key: str
    job_id: str
    #: Its member of the backlog.
    text: str

    @classmethod
    def of(cls, text: str) -> "Waiting":
        """Return the job that a member of a backlog stands for."""
        return cls(*read_backlog_member(text), text)


class Peeked(NamedTuple):
    """What a claim would get, and what the last offer has brought."""

    #: Ids of jobs whose leases have run out.
    expired: list[str]
    waiting: list[Waiting]
    #: The last job that the session's offers have brought, as "<token of the claim> <job id>"; "": none.
    given: str
    is_offer_made: bool


async def peek(
    nodes: Nodes, keys: QueueKeys, count: int, lease_ms: int, offer: tuple[str, str, int, str] = ("", "", 0, "")
) -> Peeked:
    """Ask whose turn it is in one partition; take back an offer that stands, or make one if no job waits. StoreError.

    `offer` is what `Offer.ask` returns.
    """
    together = min(count, 1) * (FORESEEN_JOBS if count > 1 else 1)
    all_keys = keys.dispatch, keys.backlog, keys.leases, keys.clock, keys.offers, keys.offered
    call = PeekCall(*all_keys, count, together, lease_ms, *offer)
    expired, waiting, given, is_made = await nodes.run(PEEK, *PEEK.order(call))
    jobs = [Waiting.of(text) for text in as_texts(waiting)]
    return Peeked(as_texts(expired), jobs, given.decode(), bool(is_made))


#: One script call gives at most this many jobs.
CLAIM_JOBS = 256


class JobOfClaim(NamedTuple):
    """A job that a claim may give; one whose lease has run out has neither members nor owner."""

    hash: Key
    stream: Key
    id: str
    #: Its members of the backlog and of the listings.
    waiting: str
    member: str
    #: Of the claim, should it be given.
    token: str
    #: The place of its user among those of the call; 0: none.
    owner: int


class OwnedListings(NamedTuple):
    """The listings of a user's jobs."""

    queued: Key
    running: Key


class ClaimCall(NamedTuple):
    """What `claim.lua` is called with."""

    dispatch: Key
    backlog: Key
    tickets: Key
    leases: Key
    clock: Key
    #: The controllers' last calls.
    calls: Key
    #: Listings of all jobs.
    queued: Key
    running: Key
    facts: Key
    controller: str
    #: "<session>-<number>", a session's numbers go up.
    call: str
    lease_ms: int
    #: The time that it is, as the hash has it, and as msgpack.
    time: str
    packed_time: bytes
    #: The queue's.
    channel: str
    #: How many jobs, the first ones, have leases that have run out.
    expired: int
    jobs: Sequence[JobOfClaim]
    owned: Sequence[OwnedListings]
    users: Sequence[str]


CONSTANTS: Constants = {
    "CALLS_TTL_MS": 86_400_000,
    "CLAIMED_FIELDS": CLAIMED_FIELDS.split(),
    "CLAIM_FIELDS": placed(
        CLAIM_FIELDS,
        version="version",
        epoch="epoch",
        attempts="attempts",
        controller="controller",
        claim="claim",
        ticket="ticket",
        start_time="started_at",
    ),
}
CLAIM = load_script(__package__, "claim", CONSTANTS, call=ClaimCall)


async def claim(
    nodes: Nodes,
    keys: QueueKeys,
    controller: str,
    lease_ms: int,
    *,
    call: str,
    expired: Sequence[str] = (),
    waiting: Sequence[Waiting] = (),
) -> list[Claimed]:
    """Claim jobs of one partition for a controller, as far as it is their turn; StoreError.

    First come those whose leases have run out. A call that lost its answer gives the same jobs when it is repeated.
    """
    tag, now = keys.tag, utc_now()
    jobs, users = _candidates(tag, expired, waiting)
    queued, running = JobStatus.QUEUED, JobStatus.RUNNING
    all_of_it = ClaimCall(
        *(keys.dispatch, keys.backlog, keys.tickets, keys.leases, keys.clock, keys.calls),
        *(jobs_key(tag, queued), jobs_key(tag, running), facts_key(tag)),
        controller,
        call,
        lease_ms,
        encode_field(now) or "",
        encode_time(now),
        keys.channel,
        len(expired),
        jobs,
        [OwnedListings(jobs_key(tag, queued, user), jobs_key(tag, running, user)) for user in users],
        users,
    )
    found, damaged = await nodes.run(CLAIM, *CLAIM.order(all_of_it))
    for job_id, what in map(as_texts, damaged):
        name_damage(nodes, job_id, what)
    return list(_read_claimed(nodes, keys, found))


def _candidates(tag: str, expired: Sequence[str], waiting: Sequence[Waiting]) -> tuple[list[JobOfClaim], list[str]]:
    """Return the jobs of a call, each with a token, and the users whom they belong to."""
    users = dict[str, int]()
    tokens = secrets.token_hex(8 * (len(expired) + len(waiting)))
    jobs = [
        JobOfClaim(*keys_of_claim(tag, job_id), job_id, "", "", tokens[16 * place : 16 * place + 16], 0)
        for place, job_id in enumerate(expired)
    ]
    for place, (user_id, sort_key, job_id, text) in enumerate(waiting, len(expired)):
        owner = users.setdefault(user_id, len(users) + 1) if user_id else 0
        token = tokens[16 * place : 16 * place + 16]
        jobs.append(JobOfClaim(*keys_of_claim(tag, job_id), job_id, text, f"{sort_key}:{job_id}", token, owner))
    return jobs, list(users)


def _read_claimed(nodes: Nodes, queue: QueueKeys, found: Reply) -> Iterator[Claimed]:
    """Yield the jobs that a claim was given, as far as they can be read."""
    for raw_id, lost_by, values in found:
        job_id = as_text(raw_id)
        try:
            yield as_claimed(queue, job_id, claimed_state(job_id, values), as_text(lost_by) or None)
        except ProjectionDamagedError as error:
            name_damage(nodes, job_id, error)
