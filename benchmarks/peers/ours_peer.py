"""This store's controllers."""

import asyncio
import secrets
from collections.abc import Callable
from importlib.metadata import version

from ci_common.models import Job
from ci_eventstore import RedisJobRepository
from ci_eventstore.controllers import ClaimedJob, Controller, ControllerSettings

VERSIONS = f"ci-eventstore {version('ci-eventstore')}, redis {version('redis')}"
SETTINGS = ControllerSettings(concurrency=100)


class Ours:
    """A repository; the time travels as the job's name."""

    def __init__(self, repository: RedisJobRepository) -> None:
        self._repository = repository

    async def enqueue(self, sent_at: float) -> None:
        await self._repository.create_job(Job(id=secrets.token_hex(8), status="queued", name=str(sent_at)))

    async def work(self, on_job: Callable[[float], None], stop: asyncio.Event) -> None:
        async def handler(job: ClaimedJob) -> None:
            on_job(float(job.job.name or 0))

        async with Controller(self._repository, settings=SETTINGS) as controller:
            running = asyncio.create_task(controller.run(handler))
            await stop.wait()
            controller.stop()
            await running

    async def close(self) -> None:
        await self._repository.close()


async def open_peer(url: str) -> Ours:
    """Connect."""
    repository = RedisJobRepository.from_url(url)
    await repository.initialize()
    return Ours(repository)
