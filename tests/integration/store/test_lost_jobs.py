"""A job that is to be cancelled ends although its only controller is gone: whoever asked, or follows it, sees to it."""

import asyncio

import pytest

from ci_common.models import Job
from ci_eventstore.connection.nodes import Nodes
from ci_eventstore.controllers import ClaimedJob, Controller, ControllerSettings
from ci_eventstore.errors import StoreFullError
from ci_eventstore.following import hub
from ci_eventstore.queues import lost_jobs
from ci_eventstore.repository import RedisJobRepository
from tests import claims
from tests.integration.store.test_controller import log_of
from tests.servers import RealServer

LEASE = 0.8


async def take(repository: RedisJobRepository, lease_seconds: float = LEASE) -> ClaimedJob:
    await repository.create_job(Job(id="j", status="queued"))
    [claimed] = await claims.claim(repository, "default", "gone", 1, lease_seconds)
    return ClaimedJob(repository, claimed)


async def until_ended(repository: RedisJobRepository) -> None:
    async with asyncio.timeout(20):
        while (await log_of(repository, "j"))[0] == "running":  # noqa: ASYNC110 - it is the server's
            await asyncio.sleep(0.05)


async def test_one_cancel_is_enough(repository: RedisJobRepository) -> None:
    """The repository that asked for it looks until the lease has run out; the clock goes on by its looks."""
    await take(repository)
    await repository.cancel_job("j", "enough")
    assert (await log_of(repository, "j"))[0] == "running"
    await until_ended(repository)
    assert await log_of(repository, "j") == ("cancelled", False, "[cancelled: enough]\n")


async def test_a_follower_ends_it(
    repository: RedisJobRepository, valkey: RealServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where whoever asked for it has gone, too."""
    monkeypatch.setattr(hub, "WATCH_SECONDS", 0.1)
    await take(repository)
    async with RedisJobRepository.from_url(valkey.url) as asking:
        await asking.cancel_job("j")
    async with asyncio.timeout(20):
        events = [event.type async for event in repository.follow_events("j")]
    assert events == ["log", "complete"]


async def test_it_is_told_apart_from_a_controller_that_lives(repository: RedisJobRepository, server: Nodes) -> None:
    """Waiting for a dead one takes as long as its lease, for one that lives until it renews that."""
    await take(repository)
    lost_jobs = repository.engine.lost_jobs
    sign = await lost_jobs.sign_of_life("j")
    await repository.cancel_job("j")
    assert await lost_jobs.settle("j", sign)
    assert (await log_of(repository, "j"))[0] == "cancelled"
    await repository.create_job(Job(id="k", status="queued"))
    began, free = asyncio.Event(), asyncio.Event()

    async def slow(job: ClaimedJob) -> None:
        began.set()
        try:
            await asyncio.sleep(3600)
        finally:
            await free.wait()

    settings = ControllerSettings(lease_seconds=60, poll_seconds=0.05)
    async with asyncio.timeout(20), Controller(repository, settings=settings) as controller:
        running = asyncio.create_task(controller.run(slow))
        await began.wait()
        sign = await lost_jobs.sign_of_life("k")
        await repository.cancel_job("k")
        assert not await lost_jobs.settle("k", sign)
        free.set()
        controller.stop()
        await running
    assert (await log_of(repository, "k"))[0] == "cancelled"


async def test_a_request_that_is_stored_succeeds(
    repository: RedisJobRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though the store is full when it is looked whether the controller is gone."""

    async def refuse(*arguments: object, **more: object) -> None:
        raise StoreFullError("out of memory")

    job = await take(repository, 30.0)
    with monkeypatch.context() as patched:
        patched.setattr(lost_jobs, "claim", refuse)
        await repository.cancel_job("j", "stored")
    await job.cancel()
    assert await log_of(repository, "j") == ("cancelled", False, "[cancelled: stored]\n")


async def test_a_cancel_isnt_forgotten_when_the_job_is_given_back(repository: RedisJobRepository) -> None:
    """The controller that gives it back may not know of it: then the job ends."""
    job = await take(repository, 30.0)
    await repository.cancel_job("j", "wanted")
    await job.release()
    assert await log_of(repository, "j") == ("cancelled", False, "[cancelled: wanted]\n")
