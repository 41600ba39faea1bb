"""A log that isn't in a stream any more reads as before, once `LogSource` knows where it is."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from ci_common.models import Job, JobEvent, utc_now
from ci_eventstore.cli import tail
from ci_eventstore.connection.nodes import Nodes
from ci_eventstore.events.log_source import LogSource, at_places
from ci_eventstore.events.records import Place
from ci_eventstore.events.sealed_log import StoredEntry
from ci_eventstore.keys import JobKeys, Keys
from ci_eventstore.repository import RedisJobRepository

EVENTS = 2500
PATHS = [
    "/jobs/j/log",
    "/jobs/j/log?tail=3&timestamps=true",
    "/jobs/j/events?after=1100&limit=7",
    "/jobs/j/events?line=2000&limit=7",
    "/jobs/j/stream?from_beginning=true",
    "/jobs/j/stream",
]


async def seen(repository: RedisJobRepository, client: httpx.AsyncClient) -> list[Any]:
    """Return what each kind of reader gets of the job: the contract, followers, HTTP, the command line."""
    pages = tail._read(repository, "j", 5, None, follow=False)
    return [
        await repository.get_job("j"),
        await repository.get_events_since("j", 0),
        await repository.read_events("j", 1500, 20),
        [event async for event in repository.follow_events("j")],
        [record async for record in repository.follow_records("j", 2000)],
        [record async for page in pages for record in page],
        *[(await client.get(path)).content for path in PATHS],
        (await client.get("/jobs/j/log", headers={"Range": "bytes=9000-9100"})).content,
    ]


@asynccontextmanager
async def moved(nodes: Nodes, keys: JobKeys, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    """Take a job's log out of its stream, and have it read from memory; put it back in the end."""
    source, found = LogSource(nodes), list[StoredEntry]()
    async for page in source.pages(keys, Place(0), Place(10**9)):
        found += [(str(place).encode(), payload) for place, payload in page]

    async def read_range(
        self: LogSource, _: JobKeys, first: Place, until: Place | None = None, limit: int = 1000, **__: Any
    ) -> list[StoredEntry]:
        places = zip(at_places(found), found, strict=True)
        wanted = [entry for (place, _), entry in places if first <= place and (until is None or place <= until)]
        return wanted[:limit]

    async def read_last(self: LogSource, _: JobKeys, limit: int = 1, **__: Any) -> list[StoredEntry]:
        return found[::-1][:limit]

    dump = await nodes.read("DUMP", keys.stream)
    await nodes.read("DEL", keys.stream)
    with monkeypatch.context() as patch:
        patch.setattr(LogSource, "range", read_range)
        patch.setattr(LogSource, "last", read_last)
        yield
    await nodes.read("RESTORE", keys.stream, 0, dump)


async def test_every_reader_asks_the_source(
    client: httpx.AsyncClient, repository: RedisJobRepository, server: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With its stream gone, everyone reads an ended job as before, and it is still the one that has its id."""
    await repository.create_job(Job(id="j", user_id="ada", status="running"))
    for start in range(0, EVENTS, 500):
        await repository.add_events("j", [JobEvent("log", f"line {start + one}\n") for one in range(500)])
    await repository.complete_job("j", True, utc_now())
    before = await seen(repository, client)
    assert all(before)
    async with moved(server, Keys("ci").job("j"), monkeypatch):
        assert await seen(repository, client) == before
        assert (await repository.page_jobs())[0].id == "j"
