"""`stream?detail=1`: times, line numbers, and the job's state at each change."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from httpx_sse import ServerSentEvent, aconnect_sse

from ci_common.models import Job, JobEvent, utc_now
from ci_eventstore.following.records import Page
from ci_eventstore.repository import RedisJobRepository
from ci_eventstore.web.jobs import stream as job_stream
from tests.examples import slow
from tests.integration.web.serving import create_ended_job
from tests.waiting import wait_until

TEXTS = ["a\nb", "", "c\n", "\n\n", "d\udcff", "\r\ne\n"]
#: On which line each of them begins.
LINES = [1, 2, 2, 3, 5, 5]


@asynccontextmanager
async def opened(client: httpx.AsyncClient, path: str) -> AsyncIterator[AsyncIterator[ServerSentEvent]]:
    """Yield a stream's messages."""
    async with aconnect_sse(client, "GET", path) as source:
        assert source.response.status_code == 200
        yield source.aiter_sse()


async def read_all(client: httpx.AsyncClient, path: str) -> list[dict[str, Any]]:
    """Read a stream to its end; each message with its id."""
    async with opened(client, path) as messages:
        return [{**json.loads(message.data), "id": message.id} async for message in messages]


@pytest.mark.parametrize("is_running", [True, False])
@pytest.mark.parametrize(
    "after",
    [0, 3, *(slow(after) for after in range(len(TEXTS)) if after not in (0, 3))],
)
async def test_each_event_says_when_it_came_and_where(
    client: httpx.AsyncClient, repository: RedisJobRepository, after: int, is_running: bool
) -> None:
    """From wherever a client begins, each log event has its time, and the number of the line that it begins on."""
    await repository.create_job(Job(id="j", user_id="ada", status="running"))
    await repository.add_events("j", [JobEvent("log", text) for text in TEXTS])
    if not is_running:
        await repository.complete_job("j", True, utc_now())
    query = f"last_event_id={after}" if after else "from_beginning=true"
    async with opened(client, f"/jobs/j/stream?{query}&detail=1") as messages:
        if is_running:
            await repository.add_event("j", JobEvent("log", "live\n"))
            await repository.complete_job("j", True, utc_now())
        seen = [json.loads(message.data) async for message in messages]
    logs = [event for event in seen if event["type"] == "log"]
    expected = [*LINES, 7] if is_running else LINES
    assert [event["line"] for event in logs] == expected[after:]
    stored = [event for event in await repository.get_events_since("j", after) if event.type == "log"]
    assert [event["time"] for event in logs] == [str(event.timestamp).replace(" ", "T")[:-6] + "Z" for event in stored]
    assert logs[-1]["data"] == ("live\n" if is_running else "\r\ne\n")
    assert {"type", "success", "time"} <= set(seen[-1])


async def test_the_state_comes_again_at_each_change(client: httpx.AsyncClient, repository: RedisJobRepository) -> None:
    """It has the job's fields as they are then, and the id that the client had come to; the last one has the end."""
    await repository.create_job(Job(id="j", user_id="ada", status="queued", command=["make"]))
    async with opened(client, "/jobs/j/stream?detail=1") as messages:
        first = json.loads((await anext(messages)).data)
        assert (first["status"], first["command"], first["totals"]["lines"]) == ("queued", ["make"], 0)
        await repository.update_job_status("j", "running", utc_now())
        again = await anext(messages)
        assert (again.event, again.id, json.loads(again.data)["status"]) == ("state", "0", "running")
        assert (await anext(messages)).event == "started"
        await repository.add_event("j", JobEvent("log", "open"))
        assert json.loads((await anext(messages)).data)["line"] == 1
        await repository.complete_job("j", False, utc_now())
        rest = [message async for message in messages]
    assert [(message.event, message.id) for message in rest] == [("state", "1"), ("message", "2")]
    last = json.loads(rest[0].data)
    assert (last["status"], last["success"], last["position"]) == ("completed", False, 1)
    assert last["end_time"] is not None
    assert last["totals"] == {"lines": 1, "bytes": 4, "is_open": True, "position": 2}


async def test_nothing_old_comes_again(client: httpx.AsyncClient, repository: RedisJobRepository) -> None:
    """What had happened before a client came is in its first `state`; who didn't ask for detail gets one `state`."""
    await repository.create_job(Job(id="j", user_id="ada", status="queued"))
    await repository.update_job_status("j", "running", utc_now())
    await repository.add_event("j", JobEvent("log", "a\n"))
    await repository.complete_job("j", True, utc_now())
    seen = await read_all(client, "/jobs/j/stream?detail=1&from_beginning=true")
    assert [message["type"] for message in seen] == ["state", "started", "log", "complete"]
    plain = await read_all(client, "/jobs/j/stream?from_beginning=true")
    assert plain[2:] == [
        {"type": "log", "data": "a\n", "id": "1"},
        {"type": "complete", "success": True, "id": "2"},
    ]
    assert set(plain[0]) == {"type", "id", "position", "incarnation", "job_id", "status", *TIMES}


TIMES = ("success", "start_time", "end_time")


@pytest.mark.parametrize("query", ["detail=1&from_beginning=true", "detail=1&last_event_id=1"])
async def test_a_job_that_was_created_ended(
    client: httpx.AsyncClient, repository: RedisJobRepository, query: str
) -> None:
    """Its added end moves later events by one, whose lines go on; its position is that of the last one."""
    await repository.create_job(
        Job(id="j", user_id="ada", status="completed", success=True, events=[JobEvent("log", "a\nb\n")])
    )
    await repository.add_event("j", JobEvent("log", "late\n"))
    seen = await read_all(client, f"/jobs/j/stream?{query}")
    assert [(message["id"], message.get("line")) for message in seen if message["type"] in ("log", "complete")] == [
        *([("1", 1)] if "beginning" in query else []),
        ("2", None),
        ("3", 3),
    ]
    assert (await client.get("/jobs/j")).json()["position"] == 3


async def test_a_client_that_has_read_another_log_counts_from_its_beginning(
    client: httpx.AsyncClient, repository: RedisJobRepository
) -> None:
    """After a reset, lines are those of the log that follows."""
    await create_ended_job(repository, "j", 2)
    seen = await read_all(client, "/jobs/j/stream?detail=1&last_event_id=2&incarnation=another")
    assert [(message["type"], message.get("line")) for message in seen] == [
        ("state", None),
        ("reset", None),
        ("log", 1),
        ("log", 2),
        ("complete", None),
    ]


async def test_late_output_after_the_log_was_deleted(client: httpx.AsyncClient, repository: RedisJobRepository) -> None:
    """Its lines are counted on from those that are gone, also by a server that knew the log before."""
    await create_ended_job(repository, "j", 4)
    assert len((await client.get("/jobs/j/events?after=2")).json()["events"]) == 3
    await repository.delete_log("j")
    for text in ("x\n", "y\n"):
        await repository.add_event("j", JobEvent("log", text))
    for after, lines in ((5, [5, 6]), (6, [6])):
        seen = await read_all(client, f"/jobs/j/stream?detail=1&last_event_id={after}")
        assert [message["line"] for message in seen if message["type"] == "log"] == lines
        events = (await client.get(f"/jobs/j/events?after={after}")).json()["events"]
        assert [event["line"] for event in events] == lines


async def test_detailed_frames_are_made_once(
    client: httpx.AsyncClient, repository: RedisJobRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many clients follow a job, each page is written once with details, and once without."""
    written: list[int | None] = []
    write = job_stream._detailed

    def note_and_write(page: Page, lines: int | None) -> tuple[bytes, int | None]:
        written.append(lines)
        return write(page, lines)

    monkeypatch.setattr(job_stream, "_detailed", note_and_write)
    await repository.create_job(Job(id="j", user_id="ada", status="running"))
    await repository.add_event("j", JobEvent("log", "old\n"))
    found: list[list[Any]] = [[] for _ in range(6)]

    async def read(place: int) -> None:
        async with opened(client, f"/jobs/j/stream?detail={int(place < 4)}") as messages:
            async for message in messages:
                found[place].append((message.event, json.loads(message.data).get("line")))

    reading = [asyncio.create_task(read(place)) for place in range(6)]
    await wait_until(lambda: repository.following_stats().followers == 6)
    await repository.add_event("j", JobEvent("log", "a\nb"))
    await wait_until(lambda: all(len(its) == 2 for its in found))
    await repository.complete_job("j", True, utc_now())
    await asyncio.gather(*reading)
    assert found[:4] == [[("state", None), ("message", 2), ("state", None), ("message", None)]] * 4
    assert found[4:] == [[("state", None), ("message", None), ("message", None)]] * 2
    assert written == [1, 2]
