"""Many writers, long logs, lost servers."""

import asyncio
import functools
import logging

import pytest

from ci_common.models import Job, JobEvent, utc_now
from ci_eventstore.connection.nodes import Nodes
from ci_eventstore.repository import RedisJobRepository
from tests.examples import slow
from tests.servers import RealServer, find_valkey
from tests.waiting import wait_until


async def test_a_completion_isnt_starved_by_writers(
    valkey: RealServer, server: Nodes, caplog: pytest.LogCaptureFixture
) -> None:
    """Beside 16 busy writers, each with a repository of its own, it decides at most twice."""
    caplog.set_level(logging.DEBUG, "ci_eventstore.jobs")
    stop = asyncio.Event()
    acknowledged = 0

    async def write() -> None:
        nonlocal acknowledged
        async with RedisJobRepository.from_url(valkey.url) as own:
            while not stop.is_set():
                await own.add_event("j", JobEvent("log", "x\n"))
                acknowledged += 1

    async with RedisJobRepository.from_url(valkey.url) as repository:
        await repository.create_job(Job(id="j", status="running"))
        writers = [asyncio.create_task(write()) for _ in range(16)]
        await wait_until(lambda: acknowledged >= 500)
        await repository.complete_job("j", True, utc_now())
        at_completion = acknowledged
        await wait_until(lambda: acknowledged >= at_completion + 100)
        stop.set()
        await asyncio.gather(*writers)
        again = [record for record in caplog.records if record.message == "decided again"]
        assert len(again) <= 1
        events = await repository.get_events_since("j", 0)
        assert len(events) == acknowledged + 1
        assert [event.id for event in events] == list(range(1, len(events) + 1))
        assert await repository.verify() == []


@pytest.mark.timeout(300)
@pytest.mark.parametrize("count", [20_000, slow(300_000)])
async def test_a_job_of_very_many_events(repository: RedisJobRepository, count: int) -> None:
    """They come back in order, each as it was, at once, in pages, and behind any position; lines are found."""
    await repository.create_job(Job(id="j", status="running"))
    for start in range(0, count, 10_000):
        await repository.add_events("j", [JobEvent("log", f"{number}\n") for number in range(start, start + 10_000)])
    events = await repository.get_events_since("j", 0)
    assert len(events) == count
    assert all(event.data == f"{number}\n" and event.id == number + 1 for number, event in enumerate(events))
    assert [event.id for event in await repository.get_events_since("j", count - 2)] == [count - 1, count]
    half = count // 2
    assert [event.id for event in await repository.read_events("j", half, 3)] == [half + 1, half + 2, half + 3]
    for line in (1, 2, count // 9, count - 1):
        before = await repository.position_of_line("j", line)
        assert line - 1000 <= before < line


def has_reached(acknowledged: list[list[str]], goal: int) -> bool:
    return sum(map(len, acknowledged)) >= goal


async def test_a_killed_server_loses_nothing_acknowledged() -> None:
    """Appenders go on by themselves when the server is back, and every acknowledged line is there once, in order."""
    with RealServer(find_valkey(), "appendfsync always") as server:
        async with RedisJobRepository.from_url(server.url) as repository:
            await repository.create_job(Job(id="j", status="running"))
            acknowledged: list[list[str]] = [[] for _ in range(8)]
            stop = asyncio.Event()

            async def write(writer: int) -> None:
                while not stop.is_set():
                    line = f"{writer} {len(acknowledged[writer])}\n"
                    await repository.add_event("j", JobEvent("log", line))
                    acknowledged[writer].append(line)

            writers = [asyncio.create_task(write(writer)) for writer in range(8)]
            for _ in range(3):
                goal = sum(map(len, acknowledged)) + 200
                await wait_until(functools.partial(has_reached, acknowledged, goal))
                server.kill()
                await asyncio.to_thread(server.start)
            stop.set()
            await asyncio.gather(*writers)
            found = [event.data or "" for event in await repository.get_events_since("j", 0)]
            for writer, lines in enumerate(acknowledged):
                assert [line for line in found if line.startswith(f"{writer} ")] == lines
            assert await repository.verify() == []
