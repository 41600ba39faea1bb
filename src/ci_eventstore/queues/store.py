"""Take jobs out of queues, and keep them: the typed face of `peek.lua`, `claim.lua` and `renew.lua`."""

import logging
import random
import secrets
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from ci_common.models import JobStatus, utc_now
from ci_eventstore.connection.nodes import Nodes
from ci_eventstore.connection.replies import Reply, as_text, as_texts
from ci_eventstore.connection.scripts import load_script
from ci_eventstore.connection.subscription import Subscription
from ci_eventstore.errors import ProjectionDamagedError, StoreError
from ci_eventstore.events.caller import Caller, Ledger
from ci_eventstore.events.codec import encode_time
from ci_eventstore.jobs.state import CLAIMED_FIELDS, claimed_state, encode_field, from_hash
from ci_eventstore.keys import Keys, QueueKeys, jobs_key, keys_of_claim, member_job_id
from ci_eventstore.queues.claimed import GONE_MS, Claim, Claimed
from ci_eventstore.queues.completions import Completions
from ci_eventstore.queues.offers.offer import Offer, as_claimed
from ci_eventstore.queues.overview import QueueOverview, read_overviews
from ci_eventstore.queues.queue_names import queue_names

logger = logging.getLogger("ci_eventstore.queues")

PEEK = load_script(__package__, "peek", {"OFFERED_TTL_MS": 86_400_000})
CLAIM = load_script(__package__, "claim", {"CALLS_TTL_MS": 86_400_000, "CLAIMED_FIELDS": CLAIMED_FIELDS.split()})
RENEW = load_script(__package__, "renew")

TIDY = load_script(__package__, "tidy")

#: One script call gives at most so many jobs.
CLAIM_JOBS = 256
#: Who asks for several jobs is told so many, and needs not ask again for those.
FORESEEN_JOBS = 256
#: How often a controller looks again when others were faster, before it waits for a message.
RACES = 10


class _Candidate(NamedTuple):
    """A job that a claim may give: with its owner and its member in the listings, if it waits in the queue."""

    job_id: str
    user_id: str = ""
    member: str = ""


class _Peeked(NamedTuple):
    """What a claim would get, and what the last offer has brought, as `peek.lua` writes it."""

    expired: list[_Candidate]
    waiting: list[_Candidate]
    given: str
    is_offer_made: bool


class ClaimStore:
    """The queues of one store."""

    def __init__(
        self,
        nodes: Nodes,
        keys: Keys,
        is_writing: Callable[[str, str], bool] = lambda job_id, claim: False,
        ledger: Ledger | None = None,
    ) -> None:
        """Use the queues under these keys; `is_writing` tells whether this process writes to a job under a claim.

        The ledger has its last calls to each job.
        """
        self._nodes = nodes
        self._keys = keys
        self._caller = Caller()
        #: Jobs that will be the next ones, if nobody else is faster.
        self._foreseen: dict[QueueKeys, list[_Candidate]] = {}
        #: Jobs of which it was said that they can't be read.
        self._damaged: set[str] = set()
        self.completions = Completions(nodes, is_writing, ledger or Ledger())

    async def claim_waiting(
        self, queue: str, controller: str, waiting: Sequence[str], lease_seconds: float
    ) -> list[Claimed]:
        """Claim jobs that messages told of, as far as it is their turn: a question less than `claim`."""
        claimed: list[Claimed] = []
        by_partition: dict[QueueKeys, list[_Candidate]] = {}
        for candidate in map(_as_candidate, waiting):
            by_partition.setdefault(self._keys.job(candidate.job_id).queue(queue), []).append(candidate)
        for keys, candidates in by_partition.items():
            claimed += await self._take(keys, controller, [], candidates, int(lease_seconds * 1000))
        return claimed

    def partitions(self, queue: str) -> list[QueueKeys]:
        """Return a queue's keys in all partitions."""
        return [QueueKeys(queue, tag) for tag in self._keys.tags]

    async def claim(self, queue: str, controller: str, count: int, lease_seconds: float) -> list[Claimed]:
        """Claim up to so many jobs of a queue for a controller.

        First come those whose controllers are gone, then each user's next one in turn. A call that lost its answer
        gives the same jobs when it is repeated. StoreError.
        """
        claimed: list[Claimed] = []
        partitions = self.partitions(queue)
        # Or jobs of the first one would always come first.
        random.shuffle(partitions)
        for partition in partitions:
            missing = min(count - len(claimed), CLAIM_JOBS)
            if missing > 0:
                claimed += await self.claim_in(partition, controller, missing, lease_seconds)
        return claimed

    async def claim_in(
        self,
        partition: QueueKeys,
        controller: str,
        count: int,
        lease_seconds: float,
        offer: Offer | None = None,
        *,
        makes_offer: bool = False,
    ) -> list[Claimed]:
        """Claim up to so many jobs of one partition, or what the offer that stands there has brought; StoreError."""
        lease_ms = int(lease_seconds * 1000)
        foreseen: list[Claimed] = []
        if offer is None or offer.stands_in is None:
            foreseen = await self._claim_foreseen(partition, controller, count, lease_ms)
        missing = count - len(foreseen)
        if not missing:
            return foreseen
        try:
            return foreseen + await self._claim_asking(
                partition, controller, missing, lease_ms, offer, makes_offer and not foreseen
            )
        except StoreError:
            if foreseen:
                return foreseen
            raise

    async def withdraw(self, partition: QueueKeys, offer: Offer, lease_seconds: float) -> list[Claimed]:
        """Take an offer back; return what it has brought and isn't known yet. StoreError."""
        peeked = await self._peek(partition, 0, int(lease_seconds * 1000), offer)
        return await self._brought(partition, offer, peeked)

    def read_given(self, offer: Offer, message: bytes) -> Claimed | None:
        """Return the job of which a message to an offer's controller tells, if it isn't known yet."""
        return offer.read(self._keys, message)

    async def claim_expired(self, job_id: str, queue: str, controller: str, lease_seconds: float) -> Claimed | None:
        """Claim one job if its controller is gone."""
        keys = self._keys.job(job_id).queue(queue)
        found = await self._take(
            keys, controller, [_Candidate(job_id)], [], int(lease_seconds * 1000), Caller().next_call().name
        )
        return found[0] if found else None

    async def renew(
        self, queue: str, claims: Sequence[Claim], lease_seconds: float, *, patience_seconds: float | None = None
    ) -> dict[Claim, str]:
        """Renew the leases of a controller's jobs, trying for so many seconds.

        Return for each "held", "cancel" (held, and someone wants it cancelled) or "lost".
        """
        answers: dict[Claim, str] = {}
        by_partition: dict[QueueKeys, list[Claim]] = {}
        for claim in claims:
            by_partition.setdefault(self._keys.job(claim.job_id).queue(queue), []).append(claim)
        for keys, group in by_partition.items():
            hashes = [self._keys.job(claim.job_id).hash for claim in group]
            pairs = [text for claim in group for text in (claim.job_id, str(claim))]
            lease_ms = str(int(lease_seconds * 1000))
            all_keys = [keys.leases, keys.clock, *hashes]
            reply = await self._nodes.run(RENEW, all_keys, [lease_ms, *pairs], patience_seconds=patience_seconds)
            for claim, answer in zip(group, as_texts(reply), strict=True):
                if answer == "damaged":
                    self._report(claim.job_id, "its hash")
                answers[claim] = "lost" if answer == "damaged" else answer
        return answers

    async def sign_off(self, queue: str, controller: str = "") -> None:
        """Remove a controller that has no jobs from a queue's consumer group, and those that are long gone."""
        for keys in self.partitions(queue):
            all_keys = [keys.dispatch, keys.calls, keys.offers, keys.offered, keys.clock]
            await self._nodes.run(TIDY, all_keys, [controller, GONE_MS])

    def subscription(
        self, on_message: Callable[[str, bytes], None], on_listening: Callable[[list[str]], None]
    ) -> Subscription:
        """Return a subscription that has no channels yet.

        On a queue's channel controllers are told "ticket", "ticket <waiting job>" and "cancel <job id>", each on its
        own channel of the jobs that its offers have brought.
        """
        return self._nodes.subscription(on_message, on_listening)

    async def overview(self, queue: str) -> QueueOverview:
        """Return what a queue holds: its waiting jobs, and its controllers with theirs."""
        [found] = await read_overviews(self._nodes, self._keys, [queue])
        return found

    async def overviews(self) -> list[QueueOverview]:
        """Return what each queue holds that is known by name."""
        return await read_overviews(self._nodes, self._keys, await queue_names(self._nodes, self._keys))

    async def _claim_asking(
        self, keys: QueueKeys, controller: str, count: int, lease_ms: int, offer: Offer | None, makes_offer: bool
    ) -> list[Claimed]:
        """Ask whose turn it is, then claim those jobs; again if others were faster."""
        count_before = 0 if offer is None else offer.count
        for _ in range(RACES):
            peeked = await self._peek(keys, count, lease_ms, offer, makes_offer)
            if offer is not None:
                brought = await self._brought(keys, offer, peeked)
                if offer.count > count_before:
                    # By this answer or by a message that came meanwhile: there may be no room for more.
                    return brought
            expired, waiting = peeked.expired, peeked.waiting
            if not expired and not waiting:
                break
            now, later = waiting[: max(count - len(expired), 0)], waiting[max(count - len(expired), 0) :]
            if found := await self._take(keys, controller, expired, now, lease_ms):
                if len(found) == count and later:
                    self._foreseen[keys] = later
                return found
        return []

    async def _peek(
        self, keys: QueueKeys, count: int, lease_ms: int, offer: Offer | None = None, makes_offer: bool = False
    ) -> _Peeked:
        """Ask whose turn it is, and take back an offer that stands, or make one if it is nobody's."""
        offers: list[str | int] = ["", "", 0, ""]
        if offer is not None:
            offers = [
                offer.controller,
                offer.next_question(),
                offer.milliseconds if makes_offer else 0,
                offer.newest(keys),
            ]
            # Should no answer come, it may stand.
            offer.stands_in = keys
        all_keys = [keys.dispatch, keys.backlog, keys.leases, keys.clock, keys.offers, keys.offered]
        together = FORESEEN_JOBS if count > 1 else 1
        reply = await self._nodes.run(PEEK, all_keys, [count, min(count, 1) * together, lease_ms, *offers])
        expired = [_Candidate(job_id) for job_id in as_texts(reply[0])]
        waiting = [_as_candidate(text) for text in as_texts(reply[1])]
        return _Peeked(expired, waiting, reply[2].decode(), bool(reply[3]))

    async def _brought(self, partition: QueueKeys, offer: Offer, peeked: _Peeked) -> list[Claimed]:
        """Return the job that an offer has brought if no message told of it and it is still the controller's."""
        found: list[Claimed] = []
        claim = offer.missed(partition, peeked.given)
        if claim is not None:
            reply = await self._nodes.read("HGETALL", self._keys.job(claim.job_id).hash)
            if offer.accept(partition, claim.token) and reply:
                found = _read_brought(partition, claim, reply)
        if not peeked.is_offer_made:
            # Not before what it has brought is known: whoever fails or stops until then has to ask here again.
            offer.stands_in = None
        return found

    async def _claim_foreseen(self, keys: QueueKeys, controller: str, count: int, lease_ms: int) -> list[Claimed]:
        """Claim what the last question has shown beyond what was wanted then, as far as it is still its turn."""
        foreseen = self._foreseen.pop(keys, [])
        if not foreseen:
            return []
        found = await self._take(keys, controller, [], foreseen[:count], lease_ms)
        if len(found) == count and len(foreseen) > count:
            self._foreseen[keys] = foreseen[count:]
        return found

    async def _take(
        self,
        keys: QueueKeys,
        controller: str,
        expired: Sequence[_Candidate],
        waiting: Sequence[_Candidate],
        lease_ms: int,
        call: str | None = None,
    ) -> list[Claimed]:
        candidates = [*expired, *waiting]
        tokens, owners = secrets.token_hex(8 * len(candidates)), dict[str, int]()
        tag, now = keys.tag, utc_now()
        time = [encode_field(now) or "", encode_time(now)]
        all_keys = [keys.dispatch, keys.backlog, keys.tickets, keys.leases, keys.clock, keys.calls]
        all_keys += [jobs_key(tag, status=JobStatus.QUEUED), jobs_key(tag, status=JobStatus.RUNNING)]
        counts = [len(candidates), len(expired)]
        call = call or self._caller.next_call().name
        arguments: list[Any] = [controller, call, lease_ms, *time, keys.channel, *counts]
        for place, (job_id, user_id, member) in enumerate(candidates):
            all_keys += keys_of_claim(tag, job_id)
            owner = owners.setdefault(user_id, len(owners) + 1) if user_id else 0
            arguments += (job_id, user_id, member, tokens[16 * place : 16 * place + 16], owner)
        for user_id in owners:
            all_keys += (jobs_key(tag, user_id, JobStatus.QUEUED), jobs_key(tag, user_id, JobStatus.RUNNING))
        found, damaged = await self._nodes.run(CLAIM, all_keys, arguments)
        for job_id, what in map(as_texts, damaged):
            self._report(job_id, what)
        return list(_read_claimed(keys, found))

    def _report(self, job_id: str, what: str) -> None:
        """Say once of a job that scripts left it alone, or of a queue that not all could be written."""
        if job_id not in self._damaged:
            self._damaged.add(job_id)
            subject = f"job {job_id} can't be read" if job_id else "not all could be written"
            logger.error("%s (%s): run `ci-eventstore rebuild`", subject, what, extra={"job_id": job_id})


def _as_candidate(text: str) -> _Candidate:
    user_id, _, member = text.partition("\0")
    return _Candidate(member_job_id(member), user_id, member)


def _read_claimed(queue: QueueKeys, found: Reply) -> Iterator[Claimed]:
    """Yield the jobs that a claim was given, as far as they can be read."""
    for raw_id, lost_by, values in found:
        job_id = as_text(raw_id)
        try:
            yield as_claimed(queue, job_id, claimed_state(job_id, values), as_text(lost_by) or None)
        except ProjectionDamagedError as error:
            _leave_alone(job_id, error)


def _read_brought(queue: QueueKeys, claim: Claim, reply: Reply) -> list[Claimed]:
    """Return the job that an offer has brought, by its hash, if it still has the claim."""
    try:
        state = from_hash(claim.job_id, reply)
    except ProjectionDamagedError as error:
        _leave_alone(claim.job_id, error)
        return []
    return [as_claimed(queue, claim.job_id, state)] if state.claim == str(claim) else []


def _leave_alone(job_id: str, error: ProjectionDamagedError) -> None:
    logger.error("a claimed job is left alone: %s", error, extra={"job_id": job_id})
