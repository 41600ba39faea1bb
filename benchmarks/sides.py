"""The two sides of a measurement, on one server: the store, and redis-py as a user would use it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from redis.asyncio import Redis

from benchmarks.scale import Scale
from ci_common.models import Job
from ci_eventstore import RedisJobRepository
from ci_eventstore.keys import Keys

PREFIX = "bench"


@dataclass(frozen=True, slots=True)
class Sides:
    """An open repository and a client with redis-py's defaults."""

    repository: RedisJobRepository
    client: Redis
    scale: Scale

    async def new_job(self) -> str:
        """Create a running job and return its id."""
        job_id = str(uuid4())
        await self.repository.create_job(Job(id=job_id, status="running"))
        return job_id

    async def info(self, section: str) -> dict[str, Any]:
        """Return a section of what the server says of itself."""
        found: dict[str, Any] = await self.client.info(section)
        return found


def new_key() -> str:
    """Return the name of a stream that isn't there yet."""
    return f"stream:{uuid4()}"


def stream_of(job_id: str) -> str:
    """Return the name of a job's stream."""
    return Keys(PREFIX, 1).job(job_id).stream


@asynccontextmanager
async def open_sides(url: str, scale: Scale) -> AsyncIterator[Sides]:
    """Connect both sides to a server, and close them again."""
    client = Redis.from_url(url)
    try:
        async with RedisJobRepository.from_url(url, prefix=PREFIX) as repository:
            yield Sides(repository, client, scale)
    finally:
        await client.aclose()
