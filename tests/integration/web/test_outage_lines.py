"""What a process says of an outage: once, however many of its parts are hit, and once a minute while it lasts."""

import asyncio
import logging
import math
from collections import Counter

import httpx
import pytest

from ci_common.models import Job, JobEvent
from ci_eventstore.connection import connections
from ci_eventstore.connection import node as store_node
from ci_eventstore.controllers import ClaimedJob, Controller, ControllerSettings
from ci_eventstore.following import hub
from ci_eventstore.repository import RedisJobRepository
from ci_eventstore.web import WebSettings, create_app
from ci_eventstore.web.jobs import stream as job_stream
from tests.examples import slow
from tests.integration.store.conftest import find_server, own
from tests.integration.web.serving import Account, Served, create_account, read_lines, serve_as_cli
from tests.servers import RealServer
from tests.waiting import wait_until

__all__ = ["find_server", "own"]

STREAMS = 50
JOBS = 8
SETTINGS = ControllerSettings(lease_seconds=200, concurrency=JOBS, poll_seconds=0.5, grace_seconds=5)


async def ask_on(served: Served, account: Account) -> None:
    """Ask for jobs again and again, as pages do."""
    async with served.client(account) as client:
        while True:
            for path in ("/jobs", "/jobs/j", "/jobs/j/log", "/jobs/j/events", "/ready"):
                await client.get(path)
            await asyncio.sleep(0.1)


async def follow_on(repository: RedisJobRepository, texts: list[str]) -> None:
    """Follow the job through outages, as a program does."""
    position = 0
    while True:
        try:
            async for event in repository.follow_events("j", position):
                texts.append(event.data or "")
                position = event.id or position
            return
        except Exception:  # noqa: BLE001 - whatever an outage raises
            await asyncio.sleep(0.2)


async def run_handler(job: ClaimedJob, ending: asyncio.Event) -> None:
    """Write all the time; half of the jobs end while the store is away."""
    number = 0
    while not ending.is_set():
        await job.write(f"line {number}\n")
        number += 1
        await asyncio.sleep(0.1)


@pytest.mark.parametrize(
    ("seconds", "is_patient"),
    [
        slow(4, False),
        pytest.param(62, True, marks=[pytest.mark.slow, pytest.mark.timeout(300)]),  # It lasts as long as it says.
    ],
)
async def test_an_outage_is_said_once_a_minute(
    own: RealServer,
    seconds: int,
    is_patient: bool,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Streams, followers, requests and a controller with its jobs: no cause has a line more than once a minute."""
    if not is_patient:
        monkeypatch.setitem(connections.PINNED, "socket_timeout", 0.2)
        monkeypatch.setattr(store_node, "PATIENCE_SECONDS", 0.3)
        monkeypatch.setattr(hub, "WATCH_SECONDS", 0.1)
        monkeypatch.setattr(job_stream, "AWAY_SECONDS", 0.1)
    async with RedisJobRepository.from_url(own.url) as repository:
        account = await create_account(repository, "ada")
        await repository.create_job(Job(id="j", user_id="ada", status="running"))
        for number in range(JOBS):
            await repository.create_job(Job(id=f"j{number}", user_id="ada", status="queued"))
        ending, texts = asyncio.Event(), list[str]()
        app = create_app(repository, settings=WebSettings(heartbeat_seconds=0.3))
        async with (
            serve_as_cli(app) as served,
            served.client(account, limits=httpx.Limits(max_connections=STREAMS)) as client,
            Controller(repository, settings=SETTINGS) as controller,
            asyncio.TaskGroup() as group,
        ):
            reading = [asyncio.create_task(read_lines(client, "/jobs/j/stream")) for _ in range(STREAMS)]
            running = group.create_task(controller.run(lambda job: run_handler(job, ending)))
            background = [group.create_task(follow_on(repository, texts)), group.create_task(ask_on(served, account))]
            await wait_until(lambda: served.open_streams == STREAMS)
            await repository.add_event("j", JobEvent("log", "before"))
            await wait_until(lambda: texts == ["before"])
            own.kill()
            await asyncio.sleep(seconds / 2)
            ending.set()
            await asyncio.sleep(seconds / 2)
            own.start()
            await repository.add_event("j", JobEvent("log", "after"))
            await repository.add_event("j", JobEvent("complete", success=True))
            assert [len(events) for events in await asyncio.gather(*reading)] == [3] * STREAMS
            await wait_until(lambda: texts[:2] == ["before", "after"])
            for number in range(JOBS):
                async with asyncio.timeout(30):
                    async for _ in repository.follow_events(f"j{number}", 0):
                        pass
            controller.stop()
            await running
            for task in background:
                task.cancel()
        assert await repository.verify() == []
    said = Counter((record.name, record.msg) for record in caplog.records if record.levelno >= logging.WARNING)
    assert ("ci_eventstore.web", "streams wait for the store: %s") in said
    assert {line: count for line, count in said.items() if count > math.ceil(seconds / 60)} == {}
    assert not any(record.exc_info for record in caplog.records)
