"""A running job whose log has outgrown its budget: every reader is told, and its end so far can be read."""

import json
import secrets
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from ci_common.models import Job, JobEvent, utc_now
from ci_eventstore.connection.nodes import Nodes
from ci_eventstore.events import reader
from ci_eventstore.events.reader import Ring, read_ring
from ci_eventstore.keys import JobKeys
from ci_eventstore.repository import RedisJobRepository
from tests.servers import RealServer

TIME = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)
HEAD = ["one\n", "two\n", "three"]
#: The first of these doesn't fit.
RING = ["four\n", "\udcff", "five\nsix\n", "sev", "en"]
MARK = b"\n[provisional from here on, until the job ends]\n"
WHOLE = "".join(HEAD).encode() + MARK + "".join(RING).encode("utf-8", "surrogateescape")


def logs(texts: list[str]) -> list[JobEvent]:
    return [JobEvent("log", text, timestamp=TIME + timedelta(seconds=place)) for place, text in enumerate(texts)]


@pytest.fixture
async def small(valkey: RealServer, repository: RedisJobRepository) -> AsyncIterator[RedisJobRepository]:
    """A repository whose logs have little room; with a job whose log has outgrown it."""
    async with RedisJobRepository.from_url(valkey.url, max_head_bytes=sum(map(len, HEAD))) as opened:
        await opened.create_job(Job(id="j", user_id="ada", status="running"))
        for event in logs([*HEAD, *RING]):
            await opened.add_event("j", event)
        yield opened


@pytest.mark.usefixtures("small")
async def test_every_answer_says_that_it_is_the_beginning(client: httpx.AsyncClient) -> None:
    """Jobs, lists, pages of events, streams and the log."""
    assert (await client.get("/jobs/j")).json()["log_truncated"]
    assert [job["log_truncated"] for job in (await client.get("/jobs")).json()] == [True]
    page = (await client.get("/jobs/j/events")).json()
    assert (len(page["events"]), page["next"], page["log_truncated"]) == (3, 3, True)
    assert (await client.get("/jobs/j/events?line=2")).json()["log_truncated"]
    assert (await client.get("/jobs/j/log")).headers["log-truncated"] == "true"
    assert (await client.head("/jobs/j/log")).headers["log-truncated"] == "true"
    async with client.stream("GET", "/jobs/j/stream") as stream:
        async for line in stream.aiter_lines():
            if line.startswith("data: "):
                assert '"log_truncated": true' in line
                break


@pytest.mark.usefixtures("small")
async def test_the_end_so_far_follows_a_mark(client: httpx.AsyncClient) -> None:
    """In the whole log, in its last lines and with times; its length isn't known beforehand."""
    whole = await client.get("/jobs/j/log")
    assert whole.content == WHOLE
    assert (whole.headers["accept-ranges"], "content-length" in whole.headers) == ("none", False)
    assert (await client.get("/jobs/j/log", headers={"Range": "bytes=0-3", "If-Range": '"x"'})).content == WHOLE
    lines = WHOLE.splitlines(keepends=True)
    for count in range(len(lines) + 2):
        assert (await client.get(f"/jobs/j/log?tail={count}")).content == b"".join(lines[max(len(lines) - count, 0) :])
    times = (await client.get("/jobs/j/log?timestamps=1&tail=3")).text.splitlines()
    assert times == [
        "2030-01-02T03:04:09.000Z \ufffdfive",
        "2030-01-02T03:04:10.000Z six",
        "2030-01-02T03:04:11.000Z seven",
    ]


@pytest.mark.usefixtures("small")
async def test_ranges_are_of_the_beginning(client: httpx.AsyncClient) -> None:
    """Bytes that may change have no place; without them the log is as it was."""
    head = "".join(HEAD).encode()
    part = await client.get("/jobs/j/log", headers={"Range": "bytes=4-"})
    assert (part.status_code, part.content, part.headers["content-range"]) == (206, head[4:], "bytes 4-12/13")
    assert part.headers["log-truncated"] == "true"
    beginning = await client.get("/jobs/j/log?provisional=0", headers={"Accept-Encoding": "identity"})
    assert (beginning.content, beginning.headers["content-length"]) == (head, "13")
    assert (beginning.headers["accept-ranges"], beginning.headers["log-truncated"]) == ("bytes", "true")
    assert (await client.get("/jobs/j/log?provisional=0&tail=1")).content == b"three"


async def test_what_was_left_out_is_said(client: httpx.AsyncClient, small: RedisJobRepository) -> None:
    """The mark has its size, as the line of an ended log has."""
    noise = [secrets.token_hex(100_000) + "\n" for _ in range(20)]
    for event in logs(noise):
        await small.add_event("j", event)
    head, _, end = (await client.get("/jobs/j/log")).text.partition("\n[provisional from here on, until the job ends; ")
    what, _, kept = end.partition(" are left out so far]\n")
    lost_bytes, _, _, lost_lines, _ = what.split()
    left_out = "".join([*RING, *noise]).removesuffix(kept).encode("utf-8", "surrogateescape")
    assert head == "".join(HEAD)
    assert (len(left_out), left_out.count(b"\n")) == (int(lost_bytes), int(lost_lines))
    await small.complete_job("j", True, utc_now())
    ended = await client.get("/jobs/j/log")
    assert ended.text == head + f"\n[{lost_bytes} bytes in {lost_lines} lines are left out here]\n" + kept


async def test_an_ended_log_is_whole(client: httpx.AsyncClient, small: RedisJobRepository) -> None:
    """Nothing of it is provisional any more; that it was too long is still known."""
    await small.complete_job("j", True, utc_now())
    response = await client.get("/jobs/j/log")
    assert response.content == WHOLE.replace(MARK, b"")
    assert (response.headers["accept-ranges"], "log-truncated" in response.headers) == ("bytes", False)
    assert (await client.get("/jobs/j")).json()["log_truncated"]
    assert "log_truncated" not in (await client.get("/jobs/j/events")).json()


@pytest.mark.parametrize("is_before", [True, False])
async def test_a_job_that_ends_meanwhile(
    client: httpx.AsyncClient, small: RedisJobRepository, monkeypatch: pytest.MonkeyPatch, is_before: bool
) -> None:
    """Between any two looks at it, it loses and doubles nothing."""

    async def ring(nodes: Nodes, keys: JobKeys) -> Ring | None:
        found = None if is_before else await read_ring(nodes, keys)
        await small.complete_job("j", True, utc_now())
        return await read_ring(nodes, keys) if is_before else found

    monkeypatch.setattr(reader, "read_ring", ring)
    response = await client.get("/jobs/j/log")
    assert (response.content, "log-truncated" in response.headers) == (WHOLE.replace(MARK, b""), False)


async def test_a_log_within_its_budget_says_nothing(client: httpx.AsyncClient, repository: RedisJobRepository) -> None:
    """Nothing is there but what every job has."""
    await repository.create_job(Job(id="j", user_id="ada", status="running", events=logs(HEAD)))
    assert (await client.get("/jobs/j")).json()["log_truncated"] is False
    assert "log_truncated" not in (await client.get("/jobs/j/events")).json()
    response = await client.get("/jobs/j/log")
    assert (response.headers["accept-ranges"], "log-truncated" in response.headers) == ("bytes", False)


async def test_the_end_so_far_is_searched(client: httpx.AsyncClient, small: RedisJobRepository) -> None:
    """After the lines that have numbers, or before them from the end; not where the search ends at a line."""

    async def search(query: str) -> list[dict[str, Any]]:
        answer = await client.get(f"/jobs/j/search?{query}")
        return [json.loads(line) for line in answer.text.splitlines()]

    two, *ends, done = await search("q=[ox]&mode=regex&from=2&context=1")
    assert (two["n"], two["text"]) == (2, "two")
    shown = [end["provisional"] for end in ends if "provisional" in end]
    assert [(one["text"], one.get("at")) for one in shown] == [
        ("four", [[1, 2]]),
        ("\ufffdfive", None),
        ("six", [[2, 3]]),
        ("seven", None),
    ]
    assert (done["done"], done["hits"], done["log_truncated"]) == (True, 1, True)
    first, second, *rest = await search("q=e&reverse=true")
    assert [one["provisional"]["text"] for one in (first, second)] == ["seven", "\ufffdfive"]
    assert [one.get("n") for one in rest] == [3, 1, None]
    for query in ("q=four&to=9", "q=four&to=9&reverse=true"):
        assert [one["done"] for one in await search(query)] == [True]
    limited = await search("q=e&limit=1")
    assert (limited[0]["n"], limited[1]["done"], limited[1]["next"]) == (1, False, 2)
    await small.add_event("j", JobEvent("log", "\n::error::it broke\n"))
    assert (await client.get("/jobs/j/outline")).json()["provisional"] == [{"kind": "error", "text": "it broke"}]
    await small.complete_job("j", True, utc_now())
    assert [one.get("n") for one in await search("q=four")] == [3, None]
    assert "provisional" not in (await client.get("/jobs/j/outline")).json()
