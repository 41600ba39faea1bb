"""Streams over time: heartbeats, ends, servers that stop, and stores that go away."""

import asyncio
import json
from collections.abc import AsyncIterator

import httpx
import pytest
from fastapi import FastAPI
from httpx_sse import aconnect_sse

from ci_common.models import Job, JobEvent, utc_now
from ci_eventstore.following import hub
from ci_eventstore.repository import RedisJobRepository
from ci_eventstore.web import WebSettings, create_app, create_router, monitoring
from ci_eventstore.web.jobs import stream as job_stream
from ci_eventstore.web.streams import sse
from tests.integration.store.conftest import find_server, own
from tests.integration.web.serving import Account, Served, create_account, read_lines, serve
from tests.servers import RealServer
from tests.waiting import wait_until

__all__ = ["find_server", "own"]


@pytest.fixture
def settings() -> WebSettings:
    return WebSettings(heartbeat_seconds=0.1)


@pytest.fixture
async def running(repository: RedisJobRepository, ada: Account) -> str:
    await repository.create_job(Job(id="j", user_id="ada", status="running"))
    return "/jobs/j/stream?from_beginning=true"


async def test_a_silent_stream_has_a_heartbeat(
    client: httpx.AsyncClient, repository: RedisJobRepository, running: str
) -> None:
    """A comment, which no client takes for an event, neither before nor after the first one."""
    seen = []
    async with aconnect_sse(client, "GET", running) as source:
        lines = source.response.aiter_lines()
        while [line async for line in _first(lines, 3, ": ")] == []:
            pass
        await repository.add_event("j", JobEvent("log", "a"))
        async for line in lines:
            seen.append(line)
            if seen.count(": ") == 3:
                break
    assert [line for line in seen if line not in ("", ": ")] == ["id: 1", 'data: {"type": "log", "data": "a"}']


async def _first(lines: AsyncIterator[str], count: int, wanted: str) -> AsyncIterator[str]:
    """Yield the first lines of a kind."""
    async for line in lines:
        if line == wanted:
            count -= 1
            yield line
        if not count:
            return


async def test_a_heartbeat_is_no_event(client: httpx.AsyncClient, repository: RedisJobRepository, running: str) -> None:
    """A client made for server-sent events sees the job's events alone."""
    events = []
    async with aconnect_sse(client, "GET", running) as source:
        async for event in source.aiter_sse():
            events.append((event.event, json.loads(event.data)["type"]))
            if len(events) < 4:
                await asyncio.sleep(0.25)
                await repository.add_event("j", JobEvent("log", "a"))
            elif len(events) == 4:
                await repository.complete_job("j", True, utc_now())
    assert events == [("state", "state"), *[("message", "log")] * 3, ("message", "complete")]


async def test_streams_end_when_the_router_is_stopped(
    web: Served, client: httpx.AsyncClient, repository: RedisJobRepository, running: str
) -> None:
    """Cleanly, those that wait as well as those that come later: each response is whole, its client comes back."""
    async with client.stream("GET", running) as response:
        text = response.aiter_text()
        await anext(text)
        await wait_until(lambda: web.open_streams == 1)
        web.app.state.router.stop()
        assert "".join([piece async for piece in text]) == ""
    assert (await client.get(running)).status_code == 200
    assert (await client.get("/jobs/j")).status_code == 200


async def test_a_slow_client_gets_everything(
    client: httpx.AsyncClient, repository: RedisJobRepository, running: str
) -> None:
    """While it doesn't read, what it is to be sent waits in the store; then it is sent in order."""
    text = "x" * 10_000
    async with client.stream("GET", running) as response:
        for number in range(60):
            await repository.add_events("j", [JobEvent("log", f"{number} {text}") for _ in range(10)])
        await repository.complete_job("j", True, utc_now())
        lines = [line async for line in response.aiter_lines() if line.startswith("id: ")]
    assert lines == [f"id: {position}" for position in range(602)]


async def test_a_router_is_included_under_a_prefix(repository: RedisJobRepository, ada: Account, running: str) -> None:
    """Its errors have the same shape, whatever the application does with its own; streams need no lifespan."""
    app = FastAPI()
    app.include_router(create_router(repository), prefix="/ci")
    async with serve(app, "/ci") as served, served.client(ada) as client:
        missing = await client.get("/jobs/none")
        assert (missing.status_code, missing.json()["error"]["code"]) == (404, "not_found")
        assert (await client.get("/jobs?limit=x")).json()["error"]["code"] == "invalid"
        created = await client.post("/jobs", json={"command": "a"})
        assert created.headers["location"].startswith("/ci/jobs/")
        await repository.complete_job("j", True, utc_now())
        assert await read_lines(client, running) == [{"type": "complete", "success": True}]


async def test_an_app_is_mounted_under_a_prefix(repository: RedisJobRepository, ada: Account, running: str) -> None:
    """A mounted application's lifespan isn't run, and its cookie is for its own paths."""
    app = FastAPI()
    app.mount("/ci", create_app(repository))
    async with serve(app, "/ci") as served, served.client() as browser:
        response = await browser.post("/login", json={"key": ada.key})
        assert "Path=/ci;" in response.headers["set-cookie"]
        assert [job["job_id"] for job in (await browser.get("/jobs")).json()] == ["j"]
        created = await browser.post("/jobs", json={"command": "a"}, headers={"Origin": served.url[: -len("/ci")]})
        assert created.headers["location"].startswith("/ci/jobs/")
        await repository.complete_job("j", True, utc_now())
        assert await read_lines(browser, running) == [{"type": "complete", "success": True}]


async def test_a_repository_is_opened_by_the_first_request(repository: RedisJobRepository, valkey: RealServer) -> None:
    """An application needn't open it."""
    account = await create_account(repository, "eve")
    closed = RedisJobRepository.from_url(valkey.url)
    async with serve(create_app(closed)) as served, served.client(account) as client:
        assert (await client.get("/jobs")).json() == []
    await closed.close()


@pytest.mark.usefixtures("impatient")
@pytest.mark.slow
async def test_without_its_store_a_server_says_so(own: RealServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """It lives, it isn't ready, and it asks for patience; it tells nothing of the store's address."""
    monkeypatch.setattr(monitoring, "TRUST_SECONDS", 0.0)
    async with RedisJobRepository.from_url(own.url) as repository:
        account = await create_account(repository, "ada")
        await repository.create_job(Job(id="j", user_id="ada", status="running"))
        async with serve(create_app(repository)) as served, served.client(account) as client:
            assert (await client.get("/ready")).status_code == 200
            own.kill()
            for path in ("/jobs", "/jobs/j", "/jobs/j/stream", "/jobs/j/log", "/jobs/j/events"):
                response = await client.get(path)
                assert (response.status_code, response.headers["retry-after"]) == (503, "2")
                assert str(own.socket_path) not in response.text
            assert (await client.get("/health")).status_code == 200
            assert (await client.get("/ready")).status_code == 503
            own.start()
            assert (await client.get("/jobs/j")).status_code == 200


@pytest.mark.usefixtures("impatient")
@pytest.mark.slow
async def test_a_stream_waits_for_its_store(own: RealServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long it is away, the client stays connected, sees heartbeats, then what it lacks."""
    monkeypatch.setattr(hub, "WATCH_SECONDS", 0.05)
    monkeypatch.setattr(job_stream, "AWAY_SECONDS", 0.05)
    async with RedisJobRepository.from_url(own.url) as repository:
        account = await create_account(repository, "ada")
        await repository.create_job(Job(id="j", user_id="ada", status="running"))
        await repository.add_event("j", JobEvent("log", "a"))
        app = create_app(repository, settings=WebSettings(heartbeat_seconds=0.1))
        async with (
            serve(app) as served,
            served.client(account) as client,
            client.stream("GET", "/jobs/j/stream?from_beginning=true") as response,
        ):
            lines = response.aiter_lines()
            assert await _next_id(lines) == "id: 0"
            assert await _next_id(lines) == "id: 1"
            own.kill()
            await wait_until(lambda: repository.following_stats().followers == 0)
            async for line in _first(lines, 5, sse.HEARTBEAT.decode().rstrip("\n")):
                assert line
            own.start()
            await repository.add_event("j", JobEvent("log", "b"))
            assert await _next_id(lines) == "id: 2"
            await repository.complete_job("j", True, utc_now())
            assert await _next_id(lines) == "id: 3"


async def _next_id(lines: AsyncIterator[str]) -> str:
    """Return the next line with an event's id."""
    async for line in lines:
        if line.startswith("id: "):
            return line
    raise AssertionError("the stream has ended")


@pytest.mark.usefixtures("impatient")
async def test_a_browser_that_comes_back_to_a_store_that_is_away(own: RealServer) -> None:
    """`EventSource` gives up at an error, so it is told to come back again, and nothing else."""
    async with RedisJobRepository.from_url(own.url) as repository:
        account = await create_account(repository, "ada")
        await repository.create_job(Job(id="j", user_id="ada", status="running"))
        async with serve(create_app(repository)) as served, served.client(account) as client:
            own.kill()
            response = await client.get("/jobs/j/stream", headers={"Accept": "text/event-stream"})
            assert (response.status_code, response.content) == (200, sse.RETRY + sse.HEARTBEAT)
            assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
            own.start()


async def test_a_client_that_is_ahead_of_the_store_is_told(
    client: httpx.AsyncClient, repository: RedisJobRepository, running: str
) -> None:
    """After a failover that lost events it gets a `reset`, then the log from its beginning."""
    await repository.add_event("j", JobEvent("log", "a"))
    await repository.complete_job("j", True, utc_now())
    text = (await client.get(running, headers={"Last-Event-ID": "7"})).text
    assert [line for line in text.splitlines() if line.startswith(("event", "id"))] == [
        "event: state",
        "id: 7",
        "event: reset",
        "id: 0",
        "id: 1",
        "id: 2",
    ]
