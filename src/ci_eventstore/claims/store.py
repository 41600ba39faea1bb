"""Take jobs out of queues, and keep them: the typed face of `peek.lua`, `claim.lua` and `renew.lua`."""

import itertools
import random
import secrets
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from typing import Any, NamedTuple

import msgpack

from ci_common.models import JobStatus, utc_now
from ci_eventstore.claims.claim import Claim, Claimed
from ci_eventstore.claims.completions import Completions
from ci_eventstore.claims.overview import QueueOverview, queue_names, read_overview
from ci_eventstore.errors import StoreError
from ci_eventstore.events.append import QUEUE_FUNCTIONS
from ci_eventstore.jobs.state import STATE_FIELDS, encode_field, from_values, to_job
from ci_eventstore.keys import Keys, QueueKeys, jobs_key, member_job_id
from ci_eventstore.server.client import Server
from ci_eventstore.server.replies import Reply, as_texts
from ci_eventstore.server.scripts import load_script

PEEK = load_script(__package__, "peek", functions=QUEUE_FUNCTIONS)
CLAIM = load_script(__package__, "claim", {"CALLS_TTL_MS": 86_400_000}, QUEUE_FUNCTIONS)
RENEW = load_script(__package__, "renew", functions=QUEUE_FUNCTIONS)

TIDY = load_script(__package__, "tidy", functions=QUEUE_FUNCTIONS)

#: A controller that hasn't looked for jobs for so long and has none is gone.
GONE_MS = 3_600_000
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


class ClaimStore:
    """The queues of one store."""

    def __init__(
        self, server: Server, keys: Keys, is_writing: Callable[[str, str], bool] = lambda job_id, claim: False
    ) -> None:
        """Use the queues under these keys; `is_writing` tells whether this process writes to a job under a claim."""
        self._server = server
        self._keys = keys
        self._session, self._numbers = secrets.token_hex(8), itertools.count(1)
        #: Jobs that will be the next ones, if nobody else is faster.
        self._foreseen: dict[QueueKeys, list[_Candidate]] = {}
        self.completions = Completions(server, is_writing)

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

    async def claim(self, queue: str, controller: str, count: int, lease_seconds: float) -> list[Claimed]:
        """Claim up to so many jobs of a queue for a controller.

        First come those whose controllers are gone, then each user's next one in turn. A call that lost its answer
        gives the same jobs when it is repeated. StoreError.
        """
        claimed: list[Claimed] = []
        partitions = self._partitions(queue)
        # Or jobs of the first one would always come first.
        random.shuffle(partitions)
        for partition in partitions:
            missing = min(count - len(claimed), CLAIM_JOBS)
            if missing > 0:
                claimed += await self._claim_in(partition, controller, missing, int(lease_seconds * 1000))
        return claimed

    async def claim_expired(self, job_id: str, queue: str, controller: str, lease_seconds: float) -> Claimed | None:
        """Claim one job if its controller is gone."""
        keys = self._keys.job(job_id).queue(queue)
        call = f"{secrets.token_hex(8)}-1"
        found = await self._take(keys, controller, [_Candidate(job_id)], [], int(lease_seconds * 1000), call)
        return found[0] if found else None

    async def renew(self, queue: str, claims: Sequence[Claim], lease_seconds: float) -> dict[Claim, str]:
        """Renew the leases of a controller's jobs.

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
            reply = as_texts(await self._server.run(RENEW, [keys.leases, keys.clock, *hashes], [lease_ms, *pairs]))
            answers.update(zip(group, reply, strict=True))
        return answers

    async def sign_off(self, queue: str, controller: str = "") -> None:
        """Remove a controller that has no jobs from a queue's consumer group, and those that are long gone."""
        for keys in self._partitions(queue):
            await self._server.run(TIDY, [keys.dispatch, keys.calls], [controller, GONE_MS])

    async def messages(self, queues: Sequence[str]) -> AsyncGenerator[tuple[str, str], None]:
        """Yield queues and what their controllers are told: "ticket", "ticket <waiting job>", "cancel <job id>".

        "" for all of them when some messages may have been missed.
        """
        by_channel = {self._partitions(queue)[0].channel: queue for queue in queues}
        async with aclosing(self._server.messages(list(by_channel))) as messages:
            async for channel, message in messages:
                yield by_channel.get(channel, ""), message

    async def queue_names(self) -> list[str]:
        """Return the names of all queues that ever had a job."""
        return await queue_names(self._server, self._keys)

    async def overview(self, queue: str) -> QueueOverview:
        """Return what a queue holds: its waiting jobs, and its controllers with theirs."""
        return await read_overview(self._server, self._keys, queue)

    def _partitions(self, queue: str) -> list[QueueKeys]:
        return [QueueKeys(queue, tag) for tag in self._keys.tags]

    async def _claim_in(self, keys: QueueKeys, controller: str, count: int, lease_ms: int) -> list[Claimed]:
        foreseen = await self._claim_foreseen(keys, controller, count, lease_ms)
        if len(foreseen) == count:
            return foreseen
        try:
            return foreseen + await self._claim_asking(keys, controller, count - len(foreseen), lease_ms)
        except StoreError:
            if foreseen:
                return foreseen
            raise

    async def _claim_asking(self, keys: QueueKeys, controller: str, count: int, lease_ms: int) -> list[Claimed]:
        """Ask whose turn it is, then claim those jobs; again if others were faster."""
        peek_keys = [keys.dispatch, keys.backlog, keys.leases, keys.clock]
        for _ in range(RACES):
            reply = await self._server.run(PEEK, peek_keys, [count, FORESEEN_JOBS if count > 1 else 1, lease_ms])
            expired = [_Candidate(job_id) for job_id in as_texts(reply[0])]
            waiting = [_as_candidate(text) for text in as_texts(reply[1])]
            if not expired and not waiting:
                break
            now, later = waiting[: max(count - len(expired), 0)], waiting[max(count - len(expired), 0) :]
            if found := await self._take(keys, controller, expired, now, lease_ms):
                if len(found) == count and later:
                    self._foreseen[keys] = later
                return found
        return []

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
        time = [encode_field(now) or "", msgpack.packb(now, datetime=True)]
        all_keys = [keys.dispatch, keys.backlog, keys.tickets, keys.leases, keys.clock, keys.calls]
        all_keys += [jobs_key(tag, status=JobStatus.QUEUED), jobs_key(tag, status=JobStatus.RUNNING)]
        counts = [len(candidates), len(expired)]
        call = call or f"{self._session}-{next(self._numbers)}"
        arguments: list[Any] = [controller, call, lease_ms, *time, keys.channel, *counts, STATE_FIELDS]
        for place, (job_id, user_id, member) in enumerate(candidates):
            all_keys += (f"{tag}:job:{job_id}", f"{tag}:events:{job_id}")
            owner = owners.setdefault(user_id, len(owners) + 1) if user_id else 0
            arguments += (job_id, user_id, member, tokens[16 * place : 16 * place + 16], owner)
        for user_id in owners:
            all_keys += (jobs_key(tag, user_id, JobStatus.QUEUED), jobs_key(tag, user_id, JobStatus.RUNNING))
        return [_as_claimed(keys, found) for found in await self._server.run(CLAIM, all_keys, arguments)]


def _as_candidate(text: str) -> _Candidate:
    user_id, _, member = text.partition("\0")
    return _Candidate(member_job_id(member), user_id, member)


def _as_claimed(keys: QueueKeys, reply: Reply) -> Claimed:
    job_id, lost_by = as_texts(reply[:2])
    state = from_values(reply[2])
    assert state.claim is not None
    claim = Claim(job_id, state.epoch, state.claim.partition(" ")[2])
    return Claimed(claim, to_job(job_id, state), state, lost_by or None, keys)
