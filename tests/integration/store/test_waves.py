"""A controller of many jobs at a time, which asks for the next ones while it begins others."""

import asyncio

import pytest

from ci_common.models import Job
from ci_eventstore.connection.nodes import Nodes
from ci_eventstore.controllers import ClaimedJob, Controller, ControllerSettings
from ci_eventstore.controllers.controller import WAVES
from ci_eventstore.repository import RedisJobRepository

LEASES = "{ci:0}:leases:default"
MANY = ControllerSettings(concurrency=64, grace_seconds=0.2)


async def submit(repository: RedisJobRepository, count: int) -> None:
    for number in range(count):
        await repository.create_job(Job(id=f"{number:04}", status="queued", user_id="abc"[number % 3]))


async def test_it_never_has_more_jobs_than_it_may(repository: RedisJobRepository, server: Nodes) -> None:
    """Neither running nor leased, and all of them run once, each user's in the order of creation."""
    await submit(repository, 300)
    begun: list[str] = []
    running, most_running, most_leased = 0, 0, 0

    async def handler(job: ClaimedJob) -> None:
        nonlocal running, most_running, most_leased
        begun.append(job.job.id)
        running += 1
        most_leased = max(most_leased, await server.read("ZCARD", LEASES))
        most_running = max(most_running, running)
        running -= 1
        if len(begun) == 300:
            controller.stop()

    async with Controller(repository, settings=MANY) as controller:
        await controller.run(handler)
    assert begun == [f"{number:04}" for number in range(300)]
    assert most_running <= 64
    assert most_leased <= 64


@pytest.mark.parametrize("at", [1, 64 // WAVES, 64 // WAVES + 1, 40])
async def test_what_comes_after_a_stop_is_given_back(repository: RedisJobRepository, server: Nodes, at: int) -> None:
    """Also jobs that were asked for before it; nobody has to wait for their leases."""
    await submit(repository, 100)
    begun: list[str] = []

    async def handler(job: ClaimedJob) -> None:
        begun.append(job.job.id)
        if len(begun) == at:
            controller.stop()

    async with Controller(repository, settings=MANY) as controller:
        await controller.run(handler)
    assert await server.read("ZCARD", LEASES) == 0
    assert len(await repository.page_jobs(status="queued", limit=200)) == 100 - len(begun)
    assert len(begun) < 100


async def test_who_is_cancelled_gives_back_what_it_asked_for(repository: RedisJobRepository, server: Nodes) -> None:
    """A wave that is on its way is waited for."""
    await submit(repository, 100)
    began = asyncio.Event()

    async def handler(job: ClaimedJob) -> None:
        began.set()
        await asyncio.sleep(3600)

    async with Controller(repository, settings=MANY) as controller:
        running = asyncio.create_task(controller.run(handler))
        await began.wait()
        running.cancel()
        await asyncio.wait({running})
    assert await server.read("ZCARD", LEASES) == 0
