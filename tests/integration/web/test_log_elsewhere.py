"""A log that isn't in a stream any more reads as before, by every reader."""

import asyncio
import re
from pathlib import Path
from typing import Any

import httpx
import pytest

from ci_common.models import Job, JobEvent, utc_now
from ci_eventstore.archive import MARK
from ci_eventstore.cli import tail
from ci_eventstore.connection.nodes import Nodes
from ci_eventstore.history.seal import Sealed
from ci_eventstore.keys import Keys
from ci_eventstore.repository import RedisJobRepository
from tests.integration.store.sealing import archive_sealed, seal_job
from tests.integration.web.serving import Account, Served

EVENTS = 2500
PATHS = [
    "/jobs/j/log",
    "/jobs/j/log?tail=3&timestamps=true",
    "/jobs/j/events?after=1100&limit=7",
    "/jobs/j/events?line=2000&limit=7",
    "/jobs/j/lines?from=1500&count=7",
    "/jobs/j/lines?tail=7",
    "/jobs/j/lines/2000",
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


@pytest.mark.slow  # It takes over a second of a CPU.
async def test_every_reader_reads_a_sealed_job_as_before(
    client: httpx.AsyncClient, repository: RedisJobRepository, server: Nodes
) -> None:
    """With its stream gone, everyone reads an ended job as before, and so it is with late output, sealed or not."""
    await repository.create_job(Job(id="j", user_id="ada", status="running"))
    for start in range(0, EVENTS, 500):
        await repository.add_events("j", [JobEvent("log", f"line {start + one}\n") for one in range(500)])
    await repository.complete_job("j", True, utc_now())
    stream = Keys("ci").job("j").stream
    for _ in range(3):
        before = await seen(repository, client)
        assert all(before)
        assert await seal_job(repository) is Sealed.SEALED
        assert not await server.read("EXISTS", stream)
        assert await seen(repository, client) == before
        assert (await repository.page_jobs())[0].id == "j"
        assert await repository.verify("j", deep=True) == []
        await repository.add_event("j", JobEvent("log", "more\n"))
        assert await server.read("XLEN", stream) == 1


async def sealed_job(repository: RedisJobRepository, lines: int) -> None:
    """Have a sealed job of ada's, with so many lines."""
    await repository.create_job(Job(id="j", user_id="ada", status="running"))
    await repository.add_events("j", [JobEvent("log", f"line {one}\n") for one in range(lines)])
    await repository.complete_job("j", True, utc_now())
    assert await seal_job(repository) is Sealed.SEALED


async def test_a_missing_segment_is_an_error_of_every_route(
    client: httpx.AsyncClient, repository: RedisJobRepository, server: Nodes
) -> None:
    """No client takes a log for empty or whole whose segment is gone."""
    await sealed_job(repository, 500)
    [segment] = await server.read("KEYS", "{ci:0}:segment:*")
    await server.read("RENAME", segment, "aside")
    repository.engine.reader.source.sealed.forget()
    for path in (*PATHS, "/jobs/j/events"):
        try:
            answer = await client.get(path)
        except httpx.TransportError:
            # It had begun, and was broken off.
            continue
        assert answer.status_code >= 500 or b"event: error" in answer.content, (path, answer.content)
    await server.read("RENAME", "aside", segment)


@pytest.mark.slow  # a log of 2,500 lines is read by each route, three times
async def test_an_archived_log_reads_as_before_or_is_unavailable(
    client: httpx.AsyncClient, repository: RedisJobRepository, server: Nodes, tmp_path: Path
) -> None:
    """From an archive every route answers the same; if that is away, 503 under a name of its own, or breaks off.

    What followers had a moment ago may still be kept for the next one, in whole or in part. A stream that ends
    before `complete` makes its client come back, and that gets the error.
    """
    await repository.create_job(Job(id="j", user_id="ada", status="running"))
    for start in range(0, EVENTS, 500):
        await repository.add_events("j", [JobEvent("log", f"line {start + one}\n") for one in range(500)])
    await repository.complete_job("j", True, utc_now())
    before, engine = await seen(repository, client), repository.engine
    assert await seal_job(repository) is Sealed.SEALED
    [name] = await archive_sealed(repository, tmp_path)
    assert await seen(repository, client) == before
    whole = {path: (await client.get(path)).content for path in (*PATHS, "/jobs/j/events")}
    data = (tmp_path / name).read_bytes()
    (tmp_path / name).unlink()
    (tmp_path / MARK).unlink()
    statuses = set[int]()
    for path, content in whole.items():
        engine.reader.source.sealed.forget()
        try:
            answer = await client.get(path)
        except httpx.TransportError:
            # It had begun, and was broken off.
            continue
        statuses.add(answer.status_code)
        is_named = answer.status_code == 503 and answer.json()["error"]["code"] == "archive_unavailable"
        is_whole = answer.content == content
        is_cut = content.startswith(answer.content) and b"event: complete" not in answer.content
        is_stream = "stream" in path and (is_whole or is_cut)
        assert (is_named and answer.headers["Retry-After"]) or is_stream, (path, answer.content)
    assert 503 in statuses
    assert (await client.get("/jobs/j")).status_code == (await client.get("/jobs")).status_code == 200
    (tmp_path / name).write_bytes(data)
    (tmp_path / MARK).touch()
    assert await seen(repository, client) == before


async def answers(client: httpx.AsyncClient, paths: list[str], headers: dict[str, str] | None = None) -> list[Any]:
    """Return what a client gets at several paths, which it asks for at once."""
    return await asyncio.gather(*(client.get(path, headers=headers) for path in paths))


@pytest.mark.slow  # thirteen routes, asked seven times
async def test_what_the_owner_has_read_is_nobody_elses(
    web: Served, client: httpx.AsyncClient, bob: Account, repository: RedisJobRepository, server: Nodes, tmp_path: Path
) -> None:
    """With an archived log in memory, each route asks the record again whose it is; nobody else knows of the job."""
    await sealed_job(repository, 100)
    [name] = await archive_sealed(repository, tmp_path)
    paths = [re.sub(r"\d{4}", "50", path) for path in PATHS]
    paths += [f"/jobs/j{path}" for path in ("/events", "/outline", "/search?q=line", "/export?format=jsonl")]
    mine = await answers(client, paths)
    assert {one.status_code for one in mine} == {200}
    data = (tmp_path / name).read_bytes()
    (tmp_path / name).unlink()
    # What caches go by, should somebody have got hold of it.
    known = {"If-None-Match": f"{mine[0].headers['ETag']}, *"}
    async with web.client(bob) as other:
        missing = await answers(other, [path.replace("/jobs/j", "/jobs/none") for path in paths])
        for path, no_job, *theirs in zip(
            paths, missing, await answers(other, paths), await answers(other, paths, known), strict=True
        ):
            told = no_job.text.replace("none", "j")
            assert [(one.status_code, one.text) for one in theirs] == [(404, told), (404, told)], path
        assert [one.content for one in await answers(client, paths)] == [one.content for one in mine]
        await server.read("HSET", Keys("ci").job("j").hash, "user_id", "bob")
        assert {one.status_code for one in await answers(client, paths)} == {404}
        assert [one.content for one in await answers(other, paths)] == [one.content for one in mine]
    await server.read("HSET", Keys("ci").job("j").hash, "user_id", "ada")
    (tmp_path / name).write_bytes(data)


async def test_a_deletion_that_the_archive_cant_be_told_is_unavailable(
    client: httpx.AsyncClient, repository: RedisJobRepository, tmp_path: Path
) -> None:
    """While the archive is away: 503 under its name, and nothing is deleted; later it is."""
    await repository.create_job(Job(id="j", user_id="ada", status="completed", events=[JobEvent("log", "a\n")]))
    assert await seal_job(repository) is Sealed.SEALED
    await archive_sealed(repository, tmp_path)
    mark = (tmp_path / MARK).read_bytes()
    (tmp_path / MARK).unlink()
    for path in ("/jobs/j/log", "/jobs/j"):
        answer = await client.delete(path)
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "archive_unavailable")
        assert len(await repository.get_events_since("j", 0)) == 1
    (tmp_path / MARK).write_bytes(mark)
    for path in ("/jobs/j/log", "/jobs/j"):
        assert (await client.delete(path)).status_code == 204
    assert (await client.get("/jobs/j")).status_code == 410
