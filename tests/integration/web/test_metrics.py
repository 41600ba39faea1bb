"""Metrics: there while the store is away, few round trips for many queues, and no queue kept for ever."""

import asyncio
import time
from collections.abc import Callable

import httpx
import pytest

from ci_common.models import Job, utc_now
from ci_eventstore.connection.nodes import Nodes
from ci_eventstore.queues import overview
from ci_eventstore.queues.overview import UsedQueues
from ci_eventstore.repository import RedisJobRepository
from ci_eventstore.web import WebSettings, create_app, monitoring
from tests import claims
from tests.integration.store.conftest import find_server, own
from tests.integration.web.serving import Account, Served, create_account, serve
from tests.servers import RealServer

__all__ = ["find_server", "own"]


@pytest.fixture
def settings() -> WebSettings:
    return WebSettings(queues=frozenset({"default", "build"}))


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """Queues are read for each request."""
    monkeypatch.setattr(monitoring, "QUEUES_SECONDS", -1.0)


async def scraped(client: httpx.AsyncClient) -> dict[str, float]:
    """Return all metrics by name and labels; the answer took less than a second more than a trivial one."""
    (response, seconds), (_, busy_seconds) = await asyncio.gather(timed(client, "/metrics"), timed(client, "/health"))
    assert response.status_code == 200
    assert seconds - busy_seconds < 1.0
    lines = [line.rsplit(" ", 1) for line in response.text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, value in lines}


async def timed(client: httpx.AsyncClient, path: str) -> tuple[httpx.Response, float]:
    began = time.monotonic()
    response = await client.get(path)
    return response, time.monotonic() - began


async def up_within(client: httpx.AsyncClient, value: float, seconds: float) -> dict[str, float]:
    """Wait until the store is said to be up, or away."""
    async with asyncio.timeout(seconds):
        while (found := await scraped(client))["ci_eventstore_store_up"] != value:  # noqa: ASYNC110 - as `wait_until`
            await asyncio.sleep(0.2)
    return found


@pytest.mark.slow  # Outages of seconds.
@pytest.mark.parametrize("leave", [RealServer.kill, RealServer.suspend])
async def test_metrics_are_there_while_the_store_is_away(own: RealServer, leave: Callable[[RealServer], None]) -> None:
    """Within a second, whether it is gone or hangs, from many at once, beside requests that wait for the store."""
    await outlast(own, leave, 4.0)


@pytest.mark.slow  # An outage of a minute.
async def test_metrics_are_there_throughout_a_minute(own: RealServer) -> None:
    """It is gone for the first half, and hangs for the second."""
    await outlast(own, RealServer.kill, 30.0)
    await outlast(own, RealServer.suspend, 30.0)


async def outlast(server: RealServer, leave: Callable[[RealServer], None], seconds: float) -> None:
    async with RedisJobRepository.from_url(server.url) as repository:
        name = f"u{time.monotonic_ns()}"
        account = await create_account(repository, name)
        await repository.create_job(Job(id=name, user_id=name, status="queued"))
        async with serve(create_app(repository)) as served, served.client(account) as client:
            found = await up_within(client, 1.0, 30)
            assert found['ci_eventstore_queue_waiting_jobs{queue="default"}'] >= 1
            leave(server)
            waiting = [asyncio.create_task(client.get(f"/jobs/{name}")) for _ in range(3)]
            found = await up_within(client, 0.0, 10)
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                for found in await asyncio.gather(*(scraped(client) for _ in range(3))):
                    assert found["ci_eventstore_store_up"] == 0
                    assert found["ci_eventstore_appended_records_total"] >= 1
                    assert not any(name.startswith("ci_eventstore_queue") for name in found)
                await asyncio.sleep(0.3)
            if leave is RealServer.kill:
                server.start()
            else:
                server.resume()
            await up_within(client, 1.0, 30)
            await asyncio.gather(*waiting)


async def test_metrics_of_a_server_that_has_never_reached_its_store(own: RealServer) -> None:
    """It counts what it has answered with errors."""
    own.kill()
    repository = RedisJobRepository.from_url(own.url)
    async with serve(create_app(repository)) as served, served.client() as client:
        found = await scraped(client)
    assert found["ci_eventstore_store_up"] == 0
    assert found["ci_eventstore_appended_records_total"] == 0
    await repository.close()


@pytest.mark.usefixtures("fresh")
async def test_an_unused_queue_is_forgotten(
    client: httpx.AsyncClient, repository: RedisJobRepository, server: Nodes
) -> None:
    """It goes when its last job does; what a setting names stays, and what gets a job comes back."""
    waiting = 'ci_eventstore_queue_waiting_jobs{queue="odd"}'
    for name in ("j1", "j2"):
        await repository.create_job(Job(id=name, status="queued", queue="odd"))
        assert (await scraped(client))[waiting] == 1
        await repository.cancel_job(name)
        found = await scraped(client)
        assert waiting not in found
        assert found['ci_eventstore_queue_waiting_jobs{queue="build"}'] == 0
        assert await server.read("SMEMBERS", "{ci:0}:queues") == []


@pytest.mark.usefixtures("fresh")
async def test_a_queue_with_a_job_or_a_controller_stays(
    client: httpx.AsyncClient, repository: RedisJobRepository
) -> None:
    """Whether the job waits or runs, and as long as a controller looks for jobs there."""
    leased = 'ci_eventstore_queue_leased_jobs{queue="odd"}'
    await repository.create_job(Job(id="j", status="queued", queue="odd"))
    [claimed] = await claims.claim(repository, "odd", "c", 1, 30.0)
    assert (await scraped(client))[leased] == 1
    await repository.writer("j", claimed.claim).complete(True, utc_now())
    assert (await scraped(client))[leased] == 0
    await claims.sign_off(repository, "odd", "c")
    assert leased not in await scraped(client)


@pytest.mark.usefixtures("fresh")
async def test_a_job_that_comes_back_to_its_queue_brings_the_name_back(
    client: httpx.AsyncClient, repository: RedisJobRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Long after the name was forgotten, too."""
    await repository.create_job(Job(id="j", status="running", queue="odd"))
    monkeypatch.setattr(overview, "WATCH_SECONDS", 0.0)
    monkeypatch.setattr("ci_eventstore.jobs.store.NOTE_QUEUE_SECONDS", 0.0)
    waiting = 'ci_eventstore_queue_waiting_jobs{queue="odd"}'
    assert waiting not in await scraped(client)
    await repository.update_job_status("j", "queued")
    assert (await scraped(client))[waiting] == 1


@pytest.mark.usefixtures("fresh")
async def test_who_may_not_forget_a_queue_leaves_it(
    client: httpx.AsyncClient, repository: RedisJobRepository, server: Nodes
) -> None:
    """Its name stays, it isn't shown, and the store is up."""
    await repository.create_job(Job(id="j", status="queued", queue="odd"))
    await repository.cancel_job("j")
    await server.read("ACL", "SETUSER", "default", "-srem")
    try:
        for _ in range(2):
            found = await scraped(client)
            assert found["ci_eventstore_store_up"] == 1
            assert 'ci_eventstore_queue_waiting_jobs{queue="odd"}' not in found
        assert await server.read("SMEMBERS", "{ci:0}:queues") == [b"odd"]
    finally:
        await server.read("ACL", "SETUSER", "default", "+srem")


async def test_many_queues_take_no_more_round_trips(
    repository: RedisJobRepository, server: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is asked about together with all others."""
    trips = 0

    async def counted(self: Nodes, commands: list[tuple[str, ...]]) -> list[object]:
        nonlocal trips
        trips += bool(commands)
        return await read_many(self, commands)

    read_many = Nodes.read_many
    monkeypatch.setattr(Nodes, "read_many", counted)
    found = []
    for count in (3, 200):
        for number in range(count):
            await repository.create_job(Job(id=f"{count}-{number}", status="queued", queue=f"q{number}"))
        await claims.claim(repository, "q0", "c", 1, 30.0)
        trips = 0
        found_queues = await UsedQueues(server, repository.engine.keys).read()
        assert len(found_queues.queues) == count
        found.append(trips)
    assert found[0] == found[1] <= 3


async def test_users_choose_among_the_servers_queues(web: Served, ada: Account) -> None:
    """Another one is refused, with those that there are."""
    async with web.client(ada) as client:
        for queue in ("default", "build"):
            assert (await client.post("/jobs", json={"command": "a", "queue": queue})).status_code == 201
        refused = await client.post("/jobs", json={"command": "a", "queue": "odd"})
        form = await client.post("/jobs", data={"command": "a", "queue": "odd"}, files={"p": b""})
    for response in (refused, form):
        assert (response.status_code, response.json()["error"]["code"]) == (400, "invalid")
        assert "build, default" in response.json()["error"]["message"]
