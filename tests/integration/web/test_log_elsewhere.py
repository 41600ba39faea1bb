"""A log that isn't in a stream any more reads as before, by every reader."""

from typing import Any

import httpx

from ci_common.models import Job, JobEvent, utc_now
from ci_eventstore.cli import tail
from ci_eventstore.connection.nodes import Nodes
from ci_eventstore.history.seal import Sealed, seal
from ci_eventstore.keys import Keys
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


async def test_every_reader_reads_a_sealed_job_as_before(
    client: httpx.AsyncClient, repository: RedisJobRepository, server: Nodes
) -> None:
    """With its stream gone, everyone reads an ended job as before, and so it is with late output, sealed or not."""
    await repository.create_job(Job(id="j", user_id="ada", status="running"))
    for start in range(0, EVENTS, 500):
        await repository.add_events("j", [JobEvent("log", f"line {start + one}\n") for one in range(500)])
    await repository.complete_job("j", True, utc_now())
    engine, stream = repository.engine, Keys("ci").job("j").stream
    for _ in range(3):
        before = await seen(repository, client)
        assert all(before)
        assert await seal(engine.nodes, engine.reader.source, engine.keys, "j") is Sealed.SEALED
        assert not await server.read("EXISTS", stream)
        assert await seen(repository, client) == before
        assert (await repository.page_jobs())[0].id == "j"
        assert await repository.verify("j", deep=True) == []
        await repository.add_event("j", JobEvent("log", "more\n"))
        assert await server.read("XLEN", stream) == 1


async def test_a_missing_segment_is_an_error_of_every_route(
    client: httpx.AsyncClient, repository: RedisJobRepository, server: Nodes
) -> None:
    """No client takes a log for empty or whole whose segment is gone."""
    await repository.create_job(Job(id="j", user_id="ada", status="running"))
    await repository.add_events("j", [JobEvent("log", f"line {one}\n") for one in range(500)])
    await repository.complete_job("j", True, utc_now())
    engine = repository.engine
    assert await seal(engine.nodes, engine.reader.source, engine.keys, "j") is Sealed.SEALED
    [segment] = await server.read("KEYS", "{ci:0}:segment:*")
    await server.read("RENAME", segment, "aside")
    engine.reader.source.sealed.forget()
    for path in (*PATHS, "/jobs/j/events"):
        try:
            answer = await client.get(path)
        except httpx.TransportError:
            # It had begun, and was broken off.
            continue
        assert answer.status_code >= 500 or b"event: error" in answer.content, (path, answer.content)
    await server.read("RENAME", "aside", segment)
