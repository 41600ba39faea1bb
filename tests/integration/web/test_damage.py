"""Damage of one job over HTTP: its own requests are answered with an error in the usual shape, all others as ever."""

from contextlib import suppress

import httpx
import pytest

from ci_common.models import Job, JobEvent
from ci_eventstore.connection.nodes import Nodes
from ci_eventstore.repository import RedisJobRepository

ROUTES = (
    "",
    "/log",
    "/log?tail=3",
    "/events",
    "/events?after=1",
    "/stream?from_beginning=true",
    "/stream",
    "/lines",
    "/lines/2",
    "/search?q=a",
    "/outline",
)
DAMAGE = [
    ("HSET", "{ci:0}:job:bad", "created_at", "garbage"),
    ("HSET", "{ci:0}:job:bad", "position", b"\xff"),
    ("XADD", "{ci:0}:events:bad", "3-0", "e", "garbage"),
]


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda words: " ".join(map(str, words[2:])))
async def test_a_damaged_job_is_answered_with_an_error_of_its_own(
    client: httpx.AsyncClient, repository: RedisJobRepository, server: Nodes, damage: tuple[str | bytes, ...]
) -> None:
    """Each route answers in time; lists, metrics and the other job's routes aren't touched."""
    for job_id in ("bad", "good"):
        events = [JobEvent("log", "a\n"), JobEvent("log", "b\n")]
        await repository.create_job(Job(id=job_id, status="running", user_id="ada", events=events))
    await server.read(*damage)
    if damage[0] == "XADD":
        await server.read("HSET", "{ci:0}:job:bad", "position", "3")
    answers = {route: await ask(client, f"/jobs/bad{route}") for route in ROUTES}
    refused = {route: status for route, (status, _) in answers.items() if status != 200}
    assert set(refused.values()) <= {500, 503}
    for route in refused:
        assert answers[route][1].startswith('{"error":{"code":'), route
    listed = await client.get("/jobs")
    assert listed.status_code == 200
    assert "good" in {job["job_id"] for job in listed.json()}
    assert (await client.get("/metrics")).status_code == 200
    assert (await client.get("/jobs/good/log")).text == "a\nb\n"
    await repository.rebuild()
    if damage[0] == "HSET":
        assert (await client.get("/jobs/bad")).status_code == 200
    else:
        await server.read("FLUSHALL")


async def ask(client: httpx.AsyncClient, path: str) -> tuple[int, str]:
    """Return status and beginning of a response; a stream that goes on is left after that."""
    text = ""
    with suppress(httpx.ReadTimeout, httpx.RemoteProtocolError):
        async with client.stream("GET", path, timeout=2.0) as response:
            async for chunk in response.aiter_text():
                text += chunk
    return response.status_code, text
