"""Searches of a whole log, and its outline."""

import asyncio
import json
from collections.abc import AsyncGenerator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from ci_common.models import Job, JobEvent, utc_now
from ci_eventstore.history.seal import Sealed
from ci_eventstore.history.sealer import Sealer
from ci_eventstore.lines import passages
from ci_eventstore.lines.search import Progress
from ci_eventstore.repository import RedisJobRepository
from ci_eventstore.web import limits
from ci_eventstore.web.logs import search as search_routes
from tests.integration.store.sealing import archive_sealed, seal_job
from tests.integration.web.serving import Account, Served
from tests.waiting import wait_until

START = utc_now().replace(microsecond=0)
#: Lines across events, a long one, escapes, bytes that aren't UTF-8, and no newline at the end.
TEXTS = [
    "one\ntw",
    "o\n",
    "",
    "\x1b[31mth",
    "ree\x1b[0m\n\n",
    "10 %\rfive\n",
    "é" * 20_000 + "\n",
    "::group::g\n",
    "\udcff end",
]
LINES = "".join(TEXTS).split("\n")


async def create(repository: RedisJobRepository, texts: Sequence[str] = TEXTS) -> None:
    """Create a job of Ada's that prints a text each second."""
    await repository.create_job(Job(id="j", user_id="ada", status="running"))
    events = [JobEvent("log", text, timestamp=START + timedelta(seconds=place)) for place, text in enumerate(texts)]
    for event in events:
        await repository.add_event("j", event)


async def ask(client: httpx.AsyncClient, path: str, status: int = 200) -> Any:
    answer = await client.get(f"/jobs/j/{path}")
    assert answer.status_code == status, answer.text
    return answer.json()


async def search(client: httpx.AsyncClient, query: str) -> tuple[list[tuple[int, str, Any]], dict[str, Any]]:
    answer = await client.get(f"/jobs/j/search?{query}")
    assert answer.status_code == 200, answer.text
    *found, end = map(json.loads, answer.text.splitlines())
    return [(hit["n"], hit["text"], hit["at"]) for hit in found if "n" in hit], end


@pytest.mark.parametrize("is_sealed", [False, True], ids=["live", "sealed"])
async def test_searches(
    web: Served, repository: RedisJobRepository, ada: Account, is_sealed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On what a terminal shows, in all lines or some, with an end that says where to go on."""
    if is_sealed:
        # Parts of passages are small.
        monkeypatch.setattr(passages, "PART_CHARACTERS", 5)
    await create(repository)
    if is_sealed:
        await repository.complete_job("j", True, utc_now())
        engine = repository.engine
        await Sealer(engine.nodes, engine.reader.source, engine.keys).sweep(0)
        assert not await engine.nodes.read("EXISTS", engine.keys.job("j").stream)
    async with web.client(ada) as client:
        assert (await search(client, "q=THREE"))[0] == [(3, "three", [[0, 5]])]
        assert (await search(client, "q=THREE&case=true"))[0] == []
        assert (await search(client, "q=10"))[0] == []
        found, end = await search(client, "q=e&limit=2")
        assert ([hit[0] for hit in found], end["done"], end["next"]) == ([1, 3], False, 4)
        found, end = await search(client, "q=e&from=4")
        assert ([hit[0] for hit in found], end["done"], end["next"], end["scanned"]) == (
            [5, 8],
            True,
            None,
            4 + is_sealed,
        )
        found, end = await search(client, "q=e&reverse=true&limit=2")
        assert ([hit[0] for hit in found], end["next"], end["scanned"]) == ([8, 5], 4, 4)
        found, end = await search(client, "q=e&reverse=true&to=4")
        assert ([hit[0] for hit in found], end["done"], end["next"]) == ([3, 1], True, None)
        around = (await client.get("/jobs/j/search?q=five&context=1")).text.splitlines()
        assert [(hit["n"], "at" in hit) for hit in map(json.loads, around[:-1])] == [(4, False), (5, True), (6, False)]
        assert [hit[0] for hit in (await search(client, "q=e&from=3&to=7"))[0]] == [3, 5]
        assert (await search(client, "q=^t&mode=regex"))[0] == [(2, "two", [[0, 1]]), (3, "three", [[0, 1]])]
        assert (await ask(client, "search?q=(&mode=regex", 400))["error"]["code"] == "invalid"
        long, _ = await search(client, "q=éé")
        assert (long[0][0], len(long[0][1]), len(long[0][2])) == (6, 2000, 100)


async def test_an_outline_grows(web: Served, repository: RedisJobRepository, ada: Account) -> None:
    """What is asked for again is what has changed since."""
    await create(repository)
    async with web.client(ada) as client:
        first = await ask(client, "outline")
        assert [(group["line"], group["title"], group["is_open"]) for group in first["groups"]] == [(7, "g", True)]
        assert first["is_whole"]
        assert (await ask(client, f"outline?after={first['position']}"))["groups"] == []
        await repository.add_event("j", JobEvent("log", "\n::error::no\n::endgroup::\n"))
        later = await ask(client, f"outline?after={first['position']}")
        assert [(group["line"], group["end"]) for group in later["groups"]] == [(7, 10)]
        assert later["marks"] == [{"line": 9, "kind": "error", "text": "no"}]


async def test_a_deleted_log_is_not_searched(web: Served, repository: RedisJobRepository, ada: Account) -> None:
    """It is gone; and nobody is answered who has no key."""
    await create(repository)
    await repository.complete_job("j", True, utc_now())
    async with web.client(ada) as client, web.client() as nobody:
        await repository.delete_log("j")
        for path in ("outline", "search?q=a"):
            assert (await ask(client, path, 410))["error"]["code"] == "log_deleted"
            assert (await nobody.get(f"/jobs/j/{path}")).status_code == 401


async def test_a_user_searches_within_limits(
    web: Served, repository: RedisJobRepository, ada: Account, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Too many searches at a time, and too much of archived logs within a minute, are answered 429."""
    await create(repository)
    await repository.complete_job("j", True, utc_now())
    assert await seal_job(repository) is Sealed.SEALED
    async with web.client(ada) as client:
        monkeypatch.setattr(limits, "ARCHIVED_CHARACTERS", 100)
        for _ in range(2):
            assert (await search(client, "q=three"))[1]["done"]
        await archive_sealed(repository, tmp_path)
        assert [hit[0] for hit in (await search(client, "q=three"))[0]] == [3]
        answer = await client.get("/jobs/j/search?q=three")
        assert (answer.status_code, answer.json()["error"]["code"]) == (429, "too_much_archived")
        assert 1 <= int(answer.headers["Retry-After"]) <= 60
        assert (await ask(client, "outline", 429))["error"]["code"] == "too_much_archived"
        # What the search has read leaves room for an outline, but not for a search after it; the outline is kept.
        monkeypatch.setattr(limits, "ARCHIVED_CHARACTERS", len("".join(TEXTS)) * 3 // 2)
        assert (await ask(client, "outline"))["is_whole"]
        assert (await ask(client, "search?q=three", 429))["error"]["code"] == "too_much_archived"
        assert (await ask(client, "outline"))["is_whole"]
        monkeypatch.setattr(limits, "ARCHIVED_CHARACTERS", 2**40)
        monkeypatch.setattr(limits, "MOST_SEARCHES", 0)
        assert (await ask(client, "search?q=three", 429))["error"]["code"] == "too_many_searches"


async def test_a_search_ends_with_its_client(
    web: Served, repository: RedisJobRepository, ada: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that nobody reads any more counts no longer."""
    await create(repository)

    ended = list[bool]()

    async def endless(*args: object) -> AsyncGenerator[Progress]:
        try:
            while True:
                yield Progress(0, 0)
                await asyncio.sleep(0.01)
        finally:
            ended.append(True)

    monkeypatch.setattr(limits, "MOST_SEARCHES", 1)
    async with web.client(ada) as client:
        with monkeypatch.context() as patched:
            patched.setattr(search_routes, "search", endless)
            async with client.stream("GET", "/jobs/j/search?q=a") as running:
                # Lines that nobody holds would close the response, at whatever moment.
                lines = running.aiter_lines()
                assert await anext(lines) == '{"progress": {"scanned": 0}}'
                assert (await client.get("/jobs/j/search?q=a")).status_code == 429

        await wait_until(lambda: bool(ended))
        assert (await client.get("/jobs/j/search?q=a")).status_code == 200
