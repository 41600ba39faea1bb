"""Live streams: what clients get, from where on, and how often."""

import asyncio
import json
from typing import Any

import httpx
import pytest
from httpx_sse import aconnect_sse

from ci_common.models import Job, JobEvent, utc_now
from ci_eventstore.following.records import Followed
from ci_eventstore.repository import RedisJobRepository
from ci_eventstore.web.streams import sse
from tests import claims
from tests.integration.web.serving import Account, Served, create_ended_job, read_lines
from tests.waiting import wait_until

LINES = 6


async def read_with_ids(client: httpx.AsyncClient, path: str, count: int, last: str | None) -> list[tuple[str, object]]:
    """Read so many visible events as an `EventSource` does; each with its id."""
    headers = {} if last is None else {"Last-Event-ID": last}
    seen: list[tuple[str, object]] = []
    if count == 0:
        return seen
    async with aconnect_sse(client, "GET", path, headers=headers) as source:
        async for event in source.aiter_sse():
            if event.event == "message":
                seen.append((event.id, json.loads(event.data)))
                if len(seen) == count:
                    break
    return seen


@pytest.mark.parametrize("index", range(LINES + 2))
@pytest.mark.parametrize("is_running", [True, False])
async def test_a_resumed_stream_is_exactly_the_rest(
    client: httpx.AsyncClient, repository: RedisJobRepository, index: int, is_running: bool
) -> None:
    """A client that drops off after any event and comes back gets what follows, once, in order."""
    path = "/jobs/j/stream?from_beginning=true"
    await repository.create_job(Job(id="j", user_id="ada", status="running"))
    await repository.add_events("j", [JobEvent("log", f"{number}\n") for number in range(LINES)])
    if not is_running or index > LINES:
        await repository.complete_job("j", True, utc_now())
    first = await read_with_ids(client, path, index, None)
    last = first[-1][0] if first else None
    if index > LINES:
        response = await client.get(path, headers={"Last-Event-ID": last or ""})
        assert (response.status_code, response.content) == (204, b"")
        return
    reading = asyncio.create_task(read_with_ids(client, path, LINES + 1 - index, last))
    if is_running:
        await repository.complete_job("j", True, utc_now())
    everything = first + await reading
    expected = [{"type": "log", "data": f"{number}\n"} for number in range(LINES)]
    assert everything == [
        (str(position), event) for position, event in enumerate([*expected, {"type": "complete", "success": True}], 1)
    ]


@pytest.mark.parametrize("index", range(LINES + 1))
async def test_a_client_that_counts_can_resume(
    client: httpx.AsyncClient, repository: RedisJobRepository, index: int
) -> None:
    """One that only parses `data: ` lines, and asks for what comes after as many events as it saw, misses none."""
    expected = await create_ended_job(repository, "j", LINES)
    first = await read_lines(client, "/jobs/j/stream?from_beginning=true", index)
    assert first + await read_lines(client, f"/jobs/j/stream?last_event_id={index}") == expected


async def test_by_default_only_what_is_new(client: httpx.AsyncClient, repository: RedisJobRepository) -> None:
    """Who joins a running job is sent its state, then what comes from then on."""
    await repository.create_job(Job(id="j", user_id="ada", status="running"))
    await repository.add_event("j", JobEvent("log", "old\n"))
    async with aconnect_sse(client, "GET", "/jobs/j/stream") as source:
        events = source.aiter_sse()
        state = await anext(events)
        assert (state.event, state.id, json.loads(state.data)["position"]) == ("state", "1", 1)
        await repository.add_event("j", JobEvent("log", "new\n"))
        await repository.complete_job("j", False, utc_now())
        assert [(event.id, json.loads(event.data)) async for event in events] == [
            ("2", {"type": "log", "data": "new\n"}),
            ("3", {"type": "complete", "success": False}),
        ]


async def test_a_finished_job_has_its_completion_at_once(
    client: httpx.AsyncClient, repository: RedisJobRepository
) -> None:
    """By default the end alone; with `from_beginning` all of it."""
    expected = await create_ended_job(repository, "j", 3)
    assert await read_lines(client, "/jobs/j/stream") == expected[-1:]
    assert await read_lines(client, "/jobs/j/stream?from_beginning=true") == expected


@pytest.mark.parametrize("position", [0, 1, 5])
async def test_who_has_seen_nothing_but_the_state_misses_nothing(
    client: httpx.AsyncClient, repository: RedisJobRepository, position: int
) -> None:
    """Cut off before the first event, a client that joined from now on comes back with the state's id."""
    await repository.create_job(Job(id="j", user_id="ada", status="running"))
    await repository.add_events("j", [JobEvent("log", f"{number}\n") for number in range(position)])
    async with aconnect_sse(client, "GET", "/jobs/j/stream") as source:
        state = await anext(source.aiter_sse())
    await repository.add_event("j", JobEvent("log", "meanwhile\n"))
    await repository.complete_job("j", True, utc_now())
    assert await read_with_ids(client, "/jobs/j/stream", 2, state.id) == [
        (str(position + 1), {"type": "log", "data": "meanwhile\n"}),
        (str(position + 2), {"type": "complete", "success": True}),
    ]


@pytest.mark.parametrize("path", ["/jobs/j/stream", "/jobs/j/stream?from_beginning=true"])
@pytest.mark.parametrize("late", [0, 2])
@pytest.mark.parametrize("count", [0, 2])
@pytest.mark.parametrize("has_end", [True, False])
async def test_a_job_that_has_ended_cut_off_at_every_message(
    client: httpx.AsyncClient, repository: RedisJobRepository, path: str, late: int, count: int, has_end: bool
) -> None:
    """A client that comes back after each message with the newest id has all of it once, then is told to stop.

    So it is as well if the job was created ended, and its end is no event.
    """
    status = "running" if has_end else "completed"
    events = [JobEvent("log", f"{number}\n") for number in range(count)]
    await repository.create_job(
        Job(id="j", user_id="ada", status=status, success=None if has_end else True, events=events)
    )
    if has_end:
        await repository.complete_job("j", True, utc_now())
    for number in range(late):
        await repository.add_event("j", JobEvent("log", f"late {number}\n"))
    seen, last = [], ""
    while (found := await read_message(client, path, last)) is not None:
        last, event = found
        if event["type"] != "state":
            seen.append((last, event))
    logs: list[dict[str, Any]] = [{"type": "log", "data": f"{number}\n"} for number in range(count)]
    logs += [{"type": "complete", "success": True}, *({"type": "log", "data": f"late {n}\n"} for n in range(late))]
    expected = [(str(position), event) for position, event in enumerate(logs, 1)]
    assert seen == (expected if "?" in path else expected[count:])


async def read_message(client: httpx.AsyncClient, path: str, last: str) -> tuple[str, Any] | None:
    """Read what comes after the newest id, but for what a client has seen: one message; None if there is no more."""
    async with aconnect_sse(client, "GET", path, headers={"Last-Event-ID": last}) as source:
        if source.response.status_code == 204:
            return None
        async for message in source.aiter_sse():
            if message.id != last:
                return message.id, json.loads(message.data)
    raise AssertionError("nothing new came, and no order to stop")


async def test_late_output_is_sent_to_who_comes_back(client: httpx.AsyncClient, repository: RedisJobRepository) -> None:
    """A client that has seen the end gets what came after it, and only then 204."""
    await create_ended_job(repository, "j", 1)
    assert (await client.get("/jobs/j/stream?last_event_id=2")).status_code == 204
    await repository.add_event("j", JobEvent("log", "late\n"))
    assert await read_lines(client, "/jobs/j/stream?last_event_id=2") == [{"type": "log", "data": "late\n"}]
    assert (await client.get("/jobs/j/stream?last_event_id=3")).status_code == 204


@pytest.mark.parametrize("text", ["-1", "x", "1.5", "1 1", "0-1", "99999999999999999999", "٣", "+1"])
async def test_a_position_that_is_none_is_refused(
    client: httpx.AsyncClient, repository: RedisJobRepository, text: str
) -> None:
    """400, in the address or in the header; nothing is replayed instead."""
    await create_ended_job(repository, "j", 1)
    asked = await client.get("/jobs/j/stream", params={"last_event_id": text})
    with_header = await client.get("/jobs/j/stream", headers=[(b"Last-Event-ID", text.encode())])
    paged = await client.get("/jobs/j/events", params={"after": text})
    assert [response.status_code for response in (asked, with_header, paged)] == [400] * 3
    assert asked.json()["error"]["code"] == "invalid"


@pytest.mark.parametrize("blank", ["", "%20", "%09+"])
async def test_a_position_without_a_value_isnt_there(
    client: httpx.AsyncClient, repository: RedisJobRepository, blank: str
) -> None:
    """At an error `EventSource` would stop for good, so whatever is blank is left out; blanks around one are, too."""
    expected = await create_ended_job(repository, "j", 3)
    blank_header = {"Last-Event-ID": ""}
    names = ("last_event_id", "lastEventId", "incarnation")
    for path in ("/jobs/j/stream", *(f"/jobs/j/stream?{name}={blank}" for name in names)):
        assert await read_lines(client, path, headers=blank_header) == expected[-1:], path
    for path in (f"?from_beginning={blank}&last_event_id=2", f"?last_event_id={blank}2{blank}"):
        assert await read_lines(client, f"/jobs/j/stream{path}", headers=blank_header) == expected[2:], path
    path = f"/jobs/j/stream?from_beginning=true&last_event_id={blank}&lastEventId={blank}"
    assert await read_lines(client, path, headers=blank_header) == expected
    assert (await client.get("/jobs/j/stream?last_event_id=4+", headers=blank_header)).status_code == 204


async def test_polyfills_say_where_they_stand_in_the_address(
    client: httpx.AsyncClient, repository: RedisJobRepository
) -> None:
    """They add `lastEventId` to the address that they began with, so it is newer than what stands there."""
    expected = await create_ended_job(repository, "j", 3)
    path = "/jobs/j/stream?from_beginning=true&last_event_id=1&lastEventId=2"
    assert await read_lines(client, path) == expected[2:]
    assert await read_lines(client, path, headers={"Last-Event-ID": "3"}) == expected[3:]
    assert (await client.get("/jobs/j/stream?lastEventId=x")).status_code == 400


async def test_the_header_wins(client: httpx.AsyncClient, repository: RedisJobRepository) -> None:
    """`EventSource` comes back to its first address, with the header for where it stands."""
    expected = await create_ended_job(repository, "j", 3)
    path = "/jobs/j/stream?last_event_id=1&from_beginning=true"
    assert await read_lines(client, path, headers={"Last-Event-ID": "2"}) == expected[2:]
    assert await read_lines(client, path) == expected[1:]


async def test_headers_of_a_stream(client: httpx.AsyncClient, repository: RedisJobRepository) -> None:
    """No proxy keeps it back or packs it."""
    await create_ended_job(repository, "j", 1)
    for path in ("/jobs/j/stream", "/jobs/j/stream?from_beginning=true"):
        response = await client.get(path)
        assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert response.headers["cache-control"] == "no-cache, no-transform"
        assert response.headers["x-accel-buffering"] == "no"
        assert response.text.startswith("retry: 2000\nevent: state\n")


async def test_facts_are_told(client: httpx.AsyncClient, repository: RedisJobRepository) -> None:
    """Beside its events a job's stream says what happens to it, by name; nothing that is a secret."""
    await repository.create_job(Job(id="j", user_id="ada", status="queued"))
    [claimed] = await claims.claim(repository, "default", "c", 1, 30.0)
    await repository.writer("j", claimed.claim).complete(True, utc_now())
    text = (await client.get("/jobs/j/stream?from_beginning=true")).text
    assert "event: claimed\n" in text
    assert claimed.claim.token not in text


async def test_frames_are_made_once(
    web: Served, ada: Account, repository: RedisJobRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many clients follow a job, each event is encoded once, and each client gets it."""
    encoded: list[str] = []
    encode = sse.encode

    def note_and_encode(record: Followed) -> bytes:
        encoded.append(str(record.type))
        return encode(record)

    monkeypatch.setattr(sse, "encode", note_and_encode)
    await repository.create_job(Job(id="j", user_id="ada", status="running"))
    async with web.client(ada) as client:
        reading = [asyncio.create_task(read_lines(client, "/jobs/j/stream")) for _ in range(5)]
        await wait_until(lambda: repository.following_stats().followers == 5)
        await repository.add_event("j", JobEvent("log", "a"))
        await repository.complete_job("j", True, utc_now())
        expected = [{"type": "log", "data": "a"}, {"type": "complete", "success": True}]
        assert await asyncio.gather(*reading) == [expected] * 5
    assert (encoded.count("log"), encoded.count("complete")) == (1, 1)
    await wait_until(lambda: repository.following_stats().followers == 0)


async def test_a_client_that_has_gone_is_noticed(web: Served, ada: Account, repository: RedisJobRepository) -> None:
    """It leaves nothing open, though nothing is written to it."""
    await repository.create_job(Job(id="j", user_id="ada", status="running"))
    async with web.client(ada) as client, client.stream("GET", "/jobs/j/stream") as response:
        await anext(response.aiter_raw())
        await wait_until(lambda: web.open_streams == 1)
    await wait_until(lambda: web.open_streams == 0, 5)
