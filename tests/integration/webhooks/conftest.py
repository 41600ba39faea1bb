"""A store, and processes that send its webhooks in this one."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import datetime, timedelta, tzinfo
from typing import Self

import pytest
from standardwebhooks import webhooks as foreign_verifier

from ci_common.models import Job, utc_now
from ci_eventstore.repository import RedisJobRepository
from ci_eventstore.webhooks import sender
from ci_eventstore.webhooks.addresses import networks_of
from ci_eventstore.webhooks.outbox import Outbox
from ci_eventstore.webhooks.posting import Poster
from ci_eventstore.webhooks.sender import Means, Sender
from tests.integration.store.conftest import find_server, keys, own, repository, server, valkey

__all__ = ["find_server", "keys", "own", "repository", "server", "valkey"]


@asynccontextmanager
async def sending(
    repository: RedisJobRepository, *allowed: str, seconds: float = 15.0
) -> AsyncIterator["asyncio.Task[None]"]:
    """Send until the block ends; whatever is allowed is as if it were public."""
    engine, poster = repository.engine, Poster(networks_of(allowed), seconds=seconds)
    sends = Sender(Means(engine.nodes, engine.keys, engine.reader.source, engine.facts, poster.post))
    task: asyncio.Task[None] = asyncio.create_task(sends.run())
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks come soon, and so does the end of a lease."""
    monkeypatch.setattr(sender, "LOOK_SECONDS", 0.05)


class Clock:
    """The time as senders and the foreign verifier see it, which a test turns."""

    def __init__(self) -> None:
        self.ahead_ms = 0

    def turn(self, hours: float) -> None:
        self.ahead_ms += int(hours * 3_600_000)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    turned, true = Clock(), vars(Outbox)["now_ms"]
    monkeypatch.setattr(Outbox, "now_ms", property(lambda self: true.fget(self) + turned.ahead_ms))

    class Turned(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Self:
            return super().now(tz) + timedelta(milliseconds=turned.ahead_ms)

    monkeypatch.setattr(foreign_verifier, "datetime", Turned)
    return turned


async def run_job(repository: RedisJobRepository, job_id: str, user_id: str | None = None) -> None:
    """Have a job created, run and ended."""
    await repository.create_job(Job(id=job_id, status="queued", user_id=user_id, name=f"the job {job_id}"))
    await repository.update_job_status(job_id, "running")
    await repository.complete_job(job_id, True, utc_now())


async def until(condition: Callable[[], Awaitable[bool]], seconds: float = 60.0) -> None:
    """Return as soon as it holds; TimeoutError."""
    async with asyncio.timeout(seconds):
        while not await condition():  # noqa: ASYNC110 - the store sets no event
            await asyncio.sleep(0.01)
