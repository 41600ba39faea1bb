"""However a log looks, and wherever a page of it begins, few commands are needed to read it."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from io import BytesIO

import httpx
import pytest

from ci_common.models import Job, JobEvent
from ci_eventstore.repository import RedisJobRepository
from tests.integration.web.serving import scattered_texts
from tests.integration.web.test_logs import event_of_line

#: Of any one page: a few to look up who asks and what, and a few reads; one of the sparse index asks where the log
#: lies, too.
MOST = 25

SHAPES: dict[str, list[str]] = {
    "lines": [f"line {number}\n" for number in range(3500)],
    "one line": ["x"] * 3500,
    "nothing": [""] * 20_000,
    "nothing at the end": ["a\n", "b", *[""] * 20_000],
    "nothing in between": ["a\n", *[""] * 20_000, "b\n", "c"],
    "big ones first": [*["x" * 999_999 + "\n"] * 30, *[f"line {number}\n" for number in range(3500)]],
    "anything": scattered_texts(3500),
}


#: Those that take less than others, and show as much.
QUICK = ("lines", "nothing at the end")


@pytest.fixture(params=[pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in SHAPES])
async def texts(request: pytest.FixtureRequest, repository: RedisJobRepository) -> list[str]:
    texts = SHAPES[request.param]
    await repository.create_job(Job(id="j", user_id="ada", status="running"))
    for start in range(0, len(texts), 250):
        await repository.add_events("j", [JobEvent("log", text) for text in texts[start : start + 250]])
    return texts


@asynccontextmanager
async def counted(repository: RedisJobRepository) -> AsyncIterator[Callable[[], int]]:
    """Count the commands that the server is sent until this is left."""

    async def read() -> int:
        return int((await repository.engine.nodes.all[0].info())["total_commands_processed"])

    before = await read()
    found = -1
    yield lambda: found
    found = await read() - before - 1


@pytest.mark.slow  # It takes over a second of a CPU.
async def test_pages_of_events_take_few_commands(
    client: httpx.AsyncClient, repository: RedisJobRepository, texts: list[str]
) -> None:
    """A page of one event, or of many, after any position, as well as one that begins with a line."""
    count = len(texts)
    lines = "".join(texts).count("\n")
    for after in (0, 1, 15, 998, 999, 1000, 1998, count // 2, count - 1, count, count + 9):
        for limit in (1, 7, 1000):
            async with counted(repository) as commands:
                page = (await client.get(f"/jobs/j/events?after={after}&limit={limit}")).json()
            assert commands() <= MOST, (after, limit, commands())
            assert [event["id"] for event in page["events"]] == list(range(after + 1, min(after + limit, count) + 1)), (
                after,
                limit,
            )
    for line in {1, 2, 3, lines // 2 + 1, lines, lines + 1, lines + 2}:
        async with counted(repository) as commands:
            page = (await client.get(f"/jobs/j/events?line={max(line, 1)}&limit=1")).json()
        assert commands() <= MOST, (line, commands())
        assert [event["id"] for event in page["events"]] == [event_of_line(texts, max(line, 1))][: len(page["events"])]


async def test_parts_of_a_log_take_few_commands(
    client: httpx.AsyncClient, repository: RedisJobRepository, texts: list[str]
) -> None:
    """Its last lines, and any range of its bytes."""
    log = "".join(texts).encode("utf-8", "surrogateescape")
    for count in (0, 1, 3, 1000):
        async with counted(repository) as commands:
            response = await client.get(f"/jobs/j/log?tail={count}")
        assert response.content == b"".join(BytesIO(log).readlines()[-count:] if count else [])
        assert commands() <= MOST, (count, commands())
    for first in {0, len(log) // 2, len(log) - 1} if log else ():
        async with counted(repository) as commands:
            response = await client.get("/jobs/j/log", headers={"Range": f"bytes={first}-{first}"})
        assert response.content == log[first : first + 1]
        assert commands() <= MOST, (first, commands())


async def test_lists_of_jobs_take_few_commands(client: httpx.AsyncClient, repository: RedisJobRepository) -> None:
    """One for each job that is listed, and a few; however many others there are."""
    for number in range(60):
        await repository.create_job(Job(id=f"j{number}", user_id="ada", status="queued" if number % 3 else "running"))
    for query in ("", "&status=running", "&status=failed", "&before=j30", "&status=running&before=j30"):
        for limit in (1, 10, 1000):
            async with counted(repository) as commands:
                listed = (await client.get(f"/jobs?limit={limit}{query}")).json()
            # Of each job listed: its hash, and its incarnation.
            assert commands() <= MOST + 2 * len(listed), (query, limit)
