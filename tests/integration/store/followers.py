"""Those who follow live jobs in tests, and what they were handed, in short."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from redis.asyncio import Redis

from ci_common.models import Job, JobEvent, utc_now
from ci_eventstore.following.follower import Follower
from ci_eventstore.following.records import Followed
from ci_eventstore.repository import RedisJobRepository
from tests.servers import RealServer

Ids = list[int | str | None]


def logs(first: int, last: int) -> list[JobEvent]:
    return [JobEvent("log", f"{number}\n") for number in range(first, last + 1)]


async def create(repository: RedisJobRepository, events: int = 0, job_id: str = "j") -> None:
    await repository.create_job(Job(id=job_id, status="running"))
    if events:
        await repository.add_events(job_id, logs(1, events))


def admin_of(server: RealServer) -> Redis:
    """Return a client for what only an operator does."""
    return Redis(unix_socket_path=str(server.socket_path))


async def listeners(admin: Redis, channel: str) -> int:
    """Return how many connections listen to a channel, sharded or not."""
    counts = [await admin.execute_command("PUBSUB", kind, channel) for kind in ("NUMSUB", "SHARDNUMSUB")]
    return sum(int(count[1] if isinstance(count[0], bytes) else count[0][1]) for count in counts)


def in_short(record: Followed) -> int | str | None:
    return record.id if isinstance(record, JobEvent) else str(record.type)


@asynccontextmanager
async def following(repository: RedisJobRepository, job_id: str = "j", after: int = 0) -> AsyncIterator[Follower]:
    follower = await repository.follow(job_id, after)
    try:
        yield follower
    finally:
        follower.close()


async def next_page(follower: Follower) -> Ids:
    """Return the next page in short: ids of events, types of facts and notices; it has to come in time."""
    async with asyncio.timeout(30):
        page = await follower.read()
    return [in_short(record) for record in page.records]


async def rest_of(follower: Follower) -> Ids:
    """Return all that comes until the job's end."""
    found: Ids = []
    async with asyncio.timeout(60):
        while True:
            page = await follower.read()
            found += [in_short(record) for record in page.records]
            if page.is_last:
                return found


def events_in(found: Ids) -> Ids:
    return [item for item in found if isinstance(item, int)]


async def collect_all(repository: RedisJobRepository, job_id: str, after: int = 0) -> Ids:
    async with asyncio.timeout(60):
        return [event.id async for event in repository.follow_events(job_id, after)]


async def write_and_complete(repository: RedisJobRepository, first: int, last: int) -> None:
    for number in range(first, last + 1):
        await repository.add_event("j", JobEvent("log", f"{number}\n"))
    await repository.complete_job("j", True, utc_now())
