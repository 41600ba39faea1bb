"""When lines were printed is kept, however late the store gets them, and times of a log are in order."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest

from ci_common.models import Job, JobEvent
from ci_eventstore.controllers.claimed_job import ClaimedJob
from ci_eventstore.repository import RedisJobRepository
from ci_eventstore.writer.chunks import CHUNK_SECONDS
from ci_eventstore.writer.log_writer import WriterSettings
from tests import claims
from tests.servers import RealServer


@pytest.fixture
async def away(own: RealServer) -> AsyncIterator[RedisJobRepository]:
    """A repository on a server that a test may suspend; projections agree with streams in the end."""
    async with RedisJobRepository.from_url(own.url) as repository:
        yield repository
        assert await repository.verify() == []


async def events_of(repository: RedisJobRepository) -> list[JobEvent]:
    events = await repository.get_events_since("j", 0)
    times = [event.timestamp for event in events]
    assert times == sorted(time for time in times if time is not None)
    return events


async def test_lines_keep_their_times_while_the_store_is_away(own: RealServer, away: RedisJobRepository) -> None:
    """Each line's event came when the line did, or at most a quarter of a second before."""
    await away.create_job(Job(id="j", status="running"))
    printed = dict[str, tuple[datetime, datetime]]()
    async with away.log_writer("j") as writer:
        await writer.write("before\n")
        await writer.flush()
        own.suspend()
        try:
            for number in range(4):
                began = datetime.now(UTC)
                await writer.write(f"{number}\n")
                printed[f"{number}\n"] = (began, datetime.now(UTC))
                await asyncio.sleep(0.3)
            back = datetime.now(UTC)
        finally:
            own.resume()
    found = {line: event for event in await events_of(away) for line in (event.data or "").splitlines(keepends=True)}
    for line, (began, ended) in printed.items():
        time = found[line].timestamp
        assert time is not None
        assert began - timedelta(seconds=CHUNK_SECONDS, milliseconds=1) <= time <= ended < back


async def test_a_job_ended_when_its_log_did(own: RealServer, away: RedisJobRepository) -> None:
    """Not when the store is back."""
    await away.create_job(Job(id="j", status="queued"))
    [claimed] = await claims.claim(away, "default", "c1", 1, 30.0)
    async with ClaimedJob(away, claimed) as job:
        await job.write("line\n")
        await job.log.flush()
        own.suspend()
        ending = asyncio.create_task(job.complete())
        await asyncio.sleep(0.5)
        own.resume()
        back = datetime.now(UTC)
        await ending
    stored = await away.get_job("j")
    assert stored is not None
    assert stored.end_time is not None
    assert stored.end_time < back - timedelta(seconds=0.3)
    await events_of(away)


async def test_what_others_write_meanwhile_is_in_order(repository: RedisJobRepository) -> None:
    """Text that waited for company while another event was stored isn't older than that."""
    await repository.create_job(Job(id="j", status="running"))
    async with repository.log_writer("j", settings=WriterSettings(pause_seconds=3600)) as writer:
        await writer.write("one\n")
        await writer.flush()
        await writer.write("three\n")
        await asyncio.sleep(0.01)
        await repository.add_event("j", JobEvent("log", "two\n"))
        await writer.flush()
        await writer.write("five\n")
        await asyncio.sleep(0.01)
        await repository.complete_job("j", True, datetime.now(UTC))
    events = await events_of(repository)
    assert [event.data for event in events if event.type == "log"] == ["one\n", "two\n", "three\n", "five\n"]
