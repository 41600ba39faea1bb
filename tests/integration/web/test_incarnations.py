"""Clients that come back to another history: incarnations in streams, pages and logs."""

import json
from typing import Any

import httpx
import pytest
from httpx_sse import aconnect_sse

from ci_common.models import Job, JobEvent, utc_now
from ci_eventstore.repository import RedisJobRepository
from tests.integration.web.serving import create_account


async def read_stream(client: httpx.AsyncClient, query: str, **headers: str) -> list[tuple[str, Any]]:
    """Read a stream to its end: names of events, and their data."""
    async with aconnect_sse(client, "GET", f"/jobs/j/stream?{query}", headers=headers) as source:
        return [(event.event, json.loads(event.data)) async for event in source.aiter_sse()]


def in_short(stream: list[tuple[str, Any]]) -> list[str]:
    return [data.get("data") or data["type"] for _, data in stream]


async def create(repository: RedisJobRepository, *texts: str, ends: bool = True, user_id: str = "ada") -> None:
    events = [JobEvent("log", text) for text in texts]
    await repository.create_job(Job(id="j", user_id=user_id, status="running", events=events))
    if ends:
        await repository.complete_job("j", True, utc_now())


async def test_a_job_says_which_one_it_is(client: httpx.AsyncClient, repository: RedisJobRepository) -> None:
    """In lists, by itself, as it was submitted, and at the beginning of a stream: the same text."""
    created = await client.post("/jobs", json={"command": ["true"]})
    shown = created.json()
    # Which by itself has more.
    assert (await client.get(f"/jobs/{shown['job_id']}")).json().items() >= shown.items()
    assert (await client.get("/jobs")).json() == [shown]
    assert shown["incarnation"] == await repository.incarnation(shown["job_id"])
    await create(repository, "a")
    [(name, state), *_] = await read_stream(client, "")
    assert (name, state["incarnation"]) == ("state", await repository.incarnation("j"))


@pytest.mark.parametrize("ends", [True, False])
@pytest.mark.parametrize("position", [1, 3, 4])
async def test_who_comes_with_another_incarnation_begins_again(
    client: httpx.AsyncClient, repository: RedisJobRepository, ends: bool, position: int
) -> None:
    """A job that was created again, longer than it was: the log follows from its beginning, once."""
    await create(repository, "old", "old")
    before = await repository.incarnation("j")
    await repository.engine.nodes.read("FLUSHDB")
    await repository.engine.incarnation.renew()
    await create(repository, "a", "b", "c", ends=ends, user_id="ada")
    client.headers["Authorization"] = await new_key(repository)
    query = f"last_event_id={position}&incarnation={before}"
    expected = ["state", "reset", "a", "b", "c", "complete"]
    if not ends:
        async with aconnect_sse(client, "GET", f"/jobs/j/stream?{query}") as source:
            events = source.aiter_sse()
            found = [("", json.loads((await anext(events)).data)) for _ in range(5)]
            await repository.complete_job("j", True, utc_now())
            found += [("", json.loads(event.data)) async for event in events]
    else:
        found = await read_stream(client, query)
    assert in_short(found) == expected
    after = await repository.incarnation("j")
    assert found[1][1] == {"type": "reset", "position": 0, "incarnation": after}
    assert found[0][1]["incarnation"] == after
    resumed = await read_stream(client, f"incarnation={after}", **{"Last-Event-ID": "2"})
    assert in_short(resumed) == ["state", "c", "complete"]
    response = await client.get(f"/jobs/j/stream?last_event_id=4&incarnation={after}")
    assert response.status_code == 204


async def new_key(repository: RedisJobRepository) -> str:

    return (await create_account(repository, "ada")).headers["Authorization"]


@pytest.mark.parametrize("path", ["events?after=1&", "events?line=2&", "log?", "log?tail=1&"])
async def test_pages_and_logs_of_another_incarnation_are_refused(
    client: httpx.AsyncClient, repository: RedisJobRepository, path: str
) -> None:
    """409 says that the client has to begin again; without an incarnation, or with the right one, all is as ever."""
    await create(repository, "a\n", "b\n")
    before = await repository.incarnation("j")
    expected = (await client.get(f"/jobs/j/{path}")).content
    assert (await client.get(f"/jobs/j/{path}incarnation={before}")).content == expected
    await repository.restored()
    response = await client.get(f"/jobs/j/{path}incarnation={before}")
    assert (response.status_code, response.json()["error"]["code"]) == (409, "reset")
    after = await repository.incarnation("j")
    assert (await client.get(f"/jobs/j/{path}incarnation={after}")).content == expected


async def test_a_restore_is_noticed_by_a_process_that_goes_on(
    client: httpx.AsyncClient, repository: RedisJobRepository
) -> None:
    """The next request knows of it; a client without an incarnation isn't told."""
    await create(repository, "a", "b")
    before = await repository.incarnation("j")
    assert in_short(await read_stream(client, f"last_event_id=1&incarnation={before}")) == ["state", "b", "complete"]
    await repository.engine.nodes.read("HSET", repository.engine.keys.store, "incarnation", "restored")
    assert in_short(await read_stream(client, f"last_event_id=1&incarnation={before}"))[:3] == ["state", "reset", "a"]
    assert in_short(await read_stream(client, "last_event_id=1")) == ["state", "b", "complete"]


@pytest.mark.parametrize("query", ["last_event_id=1&incarnation=another", "last_event_id=9"])
async def test_the_new_incarnation_comes_with_the_reset(
    client: httpx.AsyncClient, repository: RedisJobRepository, query: str
) -> None:
    """In one piece: a client can't have learned the new one, lose its connection, and come back untold."""
    await create(repository, "a", ends=False)
    async with client.stream("GET", f"/jobs/j/stream?{query}") as response:
        first = await anext(response.aiter_raw())
    assert [line for line in first.decode().splitlines() if line.startswith("event")] == [
        "event: state",
        "event: reset",
    ]
