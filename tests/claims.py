"""Claim jobs without a controller, for tests: by the functions that a controller's claimer calls."""

import random
from collections.abc import Sequence
from weakref import WeakKeyDictionary

from ci_eventstore.events.caller import Caller
from ci_eventstore.keys import QueueKeys, queue_everywhere
from ci_eventstore.queues.claim import claim as claim_jobs
from ci_eventstore.queues.claim import peek
from ci_eventstore.queues.claimed import Claim, Claimed
from ci_eventstore.queues.claimer import tidy
from ci_eventstore.queues.lease_keeper import renew as renew_leases
from ci_eventstore.queues.overview import QueueOverview, read_overviews
from ci_eventstore.repository import RedisJobRepository

#: How often it is asked again when others were faster.
RACES = 10
_callers: WeakKeyDictionary[RedisJobRepository, Caller] = WeakKeyDictionary()


async def claim(
    repository: RedisJobRepository, queue: str, controller: str, count: int, lease_seconds: float
) -> list[Claimed]:
    """Claim up to so many jobs of a queue, in all partitions."""
    claimed: list[Claimed] = []
    partitions = queue_everywhere(repository.engine.keys, queue)
    random.shuffle(partitions)
    for partition in partitions:
        claimed += await claim_in(repository, partition, controller, count - len(claimed), lease_seconds)
    return claimed


async def claim_in(
    repository: RedisJobRepository, partition: QueueKeys, controller: str, count: int, lease_seconds: float
) -> list[Claimed]:
    """Claim up to so many jobs of one partition."""
    nodes, lease_ms = repository.engine.nodes, int(lease_seconds * 1000)
    for _ in range(RACES if count > 0 else 0):
        expired, waiting, *_ = await peek(nodes, partition, count, lease_ms)
        if not expired and not waiting:
            break
        call, waiting = new_call(repository), waiting[: count - len(expired)]
        if found := await claim_jobs(
            nodes, partition, controller, lease_ms, call=call, expired=expired, waiting=waiting
        ):
            return found
    return []


async def claim_expired(
    repository: RedisJobRepository, job_id: str, queue: str, controller: str, lease_seconds: float
) -> Claimed | None:
    """Claim one job if its controller is gone."""
    engine = repository.engine
    partition, lease_ms = engine.keys.job(job_id).queue(queue), int(lease_seconds * 1000)
    found = await claim_jobs(engine.nodes, partition, controller, lease_ms, call=new_call(repository), expired=[job_id])
    return found[0] if found else None


async def renew(
    repository: RedisJobRepository, queue: str, claims: Sequence[Claim], lease_seconds: float
) -> dict[Claim, str]:
    """Renew leases."""
    return await renew_leases(repository.engine.nodes, repository.engine.keys, queue, claims, lease_seconds)


async def sign_off(repository: RedisJobRepository, queue: str, controller: str = "") -> None:
    """Forget a controller in all partitions of a queue."""
    for partition in queue_everywhere(repository.engine.keys, queue):
        await tidy(repository.engine.nodes, partition, controller)


async def overview(repository: RedisJobRepository, queue: str) -> QueueOverview:
    """Return what a queue holds."""
    found = await read_overviews(repository.engine.nodes, repository.engine.keys, [queue])
    return next(one for one in found.queues if one.name == queue)


def new_call(repository: RedisJobRepository) -> str:
    """Return the next call of those who claim through a repository."""
    return _callers.setdefault(repository, Caller()).next_call().name
