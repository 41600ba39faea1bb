"""Where the contract is tested: a deployment is a function that makes a repository for a prefix."""

import secrets
from collections.abc import Iterable
from datetime import datetime
from typing import Any, Protocol
from zlib import crc32

import pytest

from ci_common import JobRepository, MemoryJobRepository
from ci_common.models import Job, JobEvent
from ci_eventstore import RedisJobRepository
from ci_eventstore.history.archiving import archive_job
from ci_eventstore.history.seal import Sealed, seal
from tests.deployments.homes import Home
from tests.examples import slow

#: Names of the fixtures in `conftest`, each of which gives a `MakeRepository`.
#: The simulated server takes four times as long as a real one, so it is left to the slow tests.
FAKE = slow("fake")
SERVERS = [FAKE, "embedded", pytest.param("redis7", marks=pytest.mark.needs("redis7"))]
#: In CI, each of a pair has half of the tests.
PAIRS = (("tls", "sentinel"), ("cluster-redis7", "cluster-valkey9"))
#: Those of `HOMES` that have no fixture of their own: the contract's store has as many partitions as is usual there.
FURTHER = (*PAIRS[0], *PAIRS[1])
#: The whole contract on one real server is quick enough; it is slow on Redis 7, and on a store that seals and archives
#: each job at once.
DEPLOYMENTS = [
    "memory",
    "defaults",
    "embedded",
    FAKE,
    pytest.param("redis7", marks=[pytest.mark.needs("redis7"), pytest.mark.slow]),
    slow("sealing"),
    *(pytest.param(name, marks=[pytest.mark.needs("redis7"), pytest.mark.slow]) for name in FURTHER),
]


class MakeRepository(Protocol):
    """Makes a repository that isn't open yet; within a test, those of one prefix share their data, except in memory."""

    def __call__(self, prefix: str, **settings: Any) -> JobRepository:
        """Make one with settings that those in memory don't have."""


class AtHome:
    """Makes repositories on a deployment, which it can empty."""

    def __init__(self, home: Home) -> None:
        self.empty = home.empty
        self._url = home.url

    def __call__(self, prefix: str, **settings: Any) -> JobRepository:
        return RedisJobRepository.from_url(self._url, prefix=prefix, **settings)


class DefaultsJobRepository(MemoryJobRepository):
    """A repository that has written nothing but what it must, and takes the rest from the contract."""

    add_events = JobRepository.add_events
    cancel_job = JobRepository.cancel_job
    get_job_summary = JobRepository.get_job_summary


class SealingRepository(RedisJobRepository):
    """A repository that seals each job as soon as it has ended, and again after whatever comes later.

    Every other job it archives, too.
    """

    #: The archive's URL.
    archive_url = ""

    async def create_job(self, job: Job) -> None:
        await super().create_job(job)
        await self.seal(job.id)

    async def add_event(self, job_id: str, event: JobEvent) -> None:
        await super().add_event(job_id, event)
        await self.seal(job_id)

    async def add_events(self, job_id: str, events: Iterable[JobEvent]) -> None:
        await super().add_events(job_id, events)
        await self.seal(job_id)

    async def update_job_status(
        self, job_id: str, status: str, start_time: datetime | None = None, container_id: str | None = None
    ) -> None:
        await super().update_job_status(job_id, status, start_time, container_id)
        await self.seal(job_id)

    async def complete_job(self, job_id: str, success: bool, end_time: datetime) -> None:
        await super().complete_job(job_id, success, end_time)
        await self.seal(job_id)

    async def cancel_job(self, job_id: str, reason: str | None = None, user_id: str | None = None) -> None:
        await super().cancel_job(job_id, reason, user_id)
        await self.seal(job_id)

    async def seal(self, job_id: str) -> None:
        """Seal the job if it has ended, and archive it; others may write to it meanwhile."""
        engine = self.engine
        while await seal(engine.nodes, engine.reader.source, engine.keys, job_id) is Sealed.CHANGED:
            pass
        if self.archive_url and crc32(job_id.encode("utf-8", "surrogatepass")) % 2:
            archive = await engine.reader.source.sealed.archived.remember(
                engine.keys, self.archive_url, takes_over=True
            )
            await archive_job(engine.nodes, engine.reader.source, archive, engine.keys.job(job_id))


def new_prefix() -> str:
    """Return a prefix that no other test uses."""
    return f"t{secrets.token_hex(6)}"
