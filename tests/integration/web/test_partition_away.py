"""What clients of the web server see while one of a store's two servers is away, with its partitions."""

import json
from collections.abc import AsyncIterator
from operator import itemgetter

import httpx
import pytest
from httpx_sse import aconnect_sse

from ci_common.models import Job, JobEvent
from ci_eventstore.repository import RedisJobRepository
from ci_eventstore.web import WebSettings, authentication, create_app, monitoring
from tests.divided import ODD, PARTITIONS, be_hasty, come_back, divided, is_of_accounts, job_ids, opened
from tests.integration.store.conftest import find_server, own
from tests.integration.web.serving import create_account, serve
from tests.servers import RealServer

__all__ = ["find_server", "own"]

pytestmark = pytest.mark.slow

LIST = {"partial": "true"}


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for long, and metrics are read anew each time."""
    be_hasty(monkeypatch)
    monkeypatch.setattr(monitoring, "PATIENCE_SECONDS", 60.0)
    monkeypatch.setattr(monitoring, "PARTITION_SECONDS", 30.0)
    monkeypatch.setattr(monitoring, "QUEUES_SECONDS", 0.0)
    monkeypatch.setattr(monitoring, "AWAY_SECONDS", 0.0)


@pytest.fixture
async def store(server: object, own: RealServer, valkey: RealServer) -> RedisJobRepository:
    """A repository; what `divided` says decides when it is opened."""
    return opened(valkey.url)


async def served(repository: RedisJobRepository) -> AsyncIterator[httpx.AsyncClient]:
    """Serve a store, in which there is a job in each partition, to Ada."""
    async with repository:
        ada = await create_account(repository, "ada")
        for partition in range(PARTITIONS):
            job = Job(id=job_ids(partition, 1)[0], status="queued", queue=f"q{partition}", user_id="ada")
            await repository.create_job(job)
        app = create_app(repository, settings=WebSettings(heartbeat_seconds=0.1, queues=None))
        async with serve(app) as web, web.client(ada) as client:
            yield client


@pytest.fixture
async def client(
    store: RedisJobRepository, own: RealServer, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[httpx.AsyncClient]:
    """Of a store whose odd partitions are on `own`."""
    with divided(monkeypatch, own.url):
        async for client in served(store):
            yield client


@pytest.fixture
async def unknown(
    store: RedisJobRepository, own: RealServer, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[httpx.AsyncClient]:
    """Of a store whose accounts alone are on `own`; a key is looked up for each request."""
    monkeypatch.setattr(authentication, "TRUST_SECONDS", 0.0)
    with divided(monkeypatch, own.url, is_of_accounts):
        async for client in served(store):
            yield client


async def test_a_list_is_whole_or_says_what_is_missing(
    client: httpx.AsyncClient, store: RedisJobRepository, own: RealServer
) -> None:
    """An array is never a part; a client that can do with a part asks for one, and gets an object in any case."""
    everything = [job_ids(partition, 1)[0] for partition in (3, 2, 1, 0)]
    whole = (await client.get("/jobs", params=LIST)).json()
    assert ([job["job_id"] for job in whole["jobs"]], whole["unavailable"]) == (everything, [])
    own.kill()
    refused = await client.get("/jobs")
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "unavailable")
    for limit in (1, 2, 100):
        part = (await client.get("/jobs", params={**LIST, "limit": limit})).json()
        assert [job["job_id"] for job in part["jobs"]] == [everything[1], everything[3]][:limit]
        assert part["unavailable"] == list(ODD)
    after_first = (await client.get("/jobs", params={**LIST, "before": everything[1]})).json()
    assert [job["job_id"] for job in after_first["jobs"]] == [everything[3]]
    after_absent = await client.get("/jobs", params={**LIST, "before": everything[0]})
    assert after_absent.status_code == 503
    await come_back(store, own)
    assert [job["job_id"] for job in (await client.get("/jobs")).json()] == everything


async def test_the_first_webhook_comes_and_goes(client: httpx.AsyncClient, own: RealServer) -> None:
    """Its group begins in the partitions that are there, and ends there."""
    own.kill()
    made = await client.post("/webhooks", json={"url": "https://a.example/"})
    assert made.status_code == 201
    assert (await client.delete(f"/webhooks/{made.json()['id']}")).status_code == 204


async def test_changes_of_the_others_go_on(
    client: httpx.AsyncClient, store: RedisJobRepository, own: RealServer
) -> None:
    """All jobs that there are come first, with what is missing, then changes; all of them when it is back."""
    there, absent = job_ids(0, 1)[0], job_ids(ODD[0], 1)[0]
    everything = {job_ids(partition, 1)[0] for partition in range(PARTITIONS)}
    own.kill()
    async with aconnect_sse(client, "GET", "/changes", timeout=60) as source:
        messages = source.aiter_sse()
        first = json.loads((await anext(messages)).data)
        assert {job["job_id"] for job in first["jobs"]} == everything - {job_ids(odd, 1)[0] for odd in ODD}
        assert (first["is_all"], first["unavailable"]) == (False, list(ODD))
        await store.cancel_job(there)
        seen = json.loads((await anext(messages)).data)
        while seen.get("job", {}).get("status") != "cancelled":
            seen = json.loads((await anext(messages)).data)
        assert seen["job"]["job_id"] == there
        await come_back(store, own)
        while set(map(itemgetter("job_id"), seen.get("jobs", []))) != everything:
            seen = json.loads((await anext(messages)).data)
        assert (seen["is_all"], seen["unavailable"]) == (True, [])
        await store.cancel_job(absent)
        while seen.get("job", {}).get("job_id") != absent:
            seen = json.loads((await anext(messages)).data)


async def test_only_jobs_of_the_partition_are_unavailable(client: httpx.AsyncClient, own: RealServer) -> None:
    """The others are shown, created and cancelled."""
    own.kill()
    for partition in range(PARTITIONS):
        response = await client.get(f"/jobs/{job_ids(partition, 1)[0]}")
        assert response.status_code == (503 if partition in ODD else 200)
    assert (await client.post(f"/jobs/{job_ids(0, 1)[0]}/cancel")).json()["status"] == "cancelled"


async def test_metrics_say_which_partition_is_missing(
    client: httpx.AsyncClient, store: RedisJobRepository, own: RealServer
) -> None:
    """The store is up, and queues' numbers are those of the partitions that are."""
    assert 'partition_up{partition="3"} 1.0' in (await client.get("/metrics")).text
    own.kill()
    text = (await client.get("/metrics")).text
    assert "ci_eventstore_store_up 1.0" in text
    for partition in range(PARTITIONS):
        assert f'partition_up{{partition="{partition}"}} {float(partition not in ODD)}' in text
        assert (f'queue_waiting_jobs{{queue="q{partition}"}} 1.0' in text) == (partition not in ODD)
    await come_back(store, own)
    assert 'partition_up{partition="3"} 1.0' in (await client.get("/metrics")).text


async def test_a_good_key_counts_for_a_minute(
    unknown: httpx.AsyncClient, store: RedisJobRepository, own: RealServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While accounts are away, a key that was found good serves its user; another one, or an older one, gets 503."""
    job_id = job_ids(0, 1)[0]
    assert (await unknown.get("/jobs")).status_code == 200
    own.kill()
    assert (await unknown.get(f"/jobs/{job_id}")).status_code == 200
    assert (await unknown.post("/jobs", json={"command": "make", "queue": "q"})).status_code == 201
    other = {"Authorization": "Bearer ci_another"}
    assert (await unknown.get("/jobs", headers=other)).status_code == 503
    monkeypatch.setattr(authentication, "CACHE_SECONDS", 0.0)
    assert (await unknown.get(f"/jobs/{job_id}")).status_code == 503
    await come_back(store, own)
    assert (await unknown.get(f"/jobs/{job_id}")).status_code == 200


async def test_a_revoked_key_is_refused_at_once_when_accounts_are_there(
    unknown: httpx.AsyncClient, store: RedisJobRepository, own: RealServer
) -> None:
    """What was found last counts: a key that was found revoked isn't good because accounts are away."""
    assert (await unknown.get("/jobs")).status_code == 200
    await store.revoke_api_key("key-ada")
    assert (await unknown.get("/jobs")).status_code == 401
    own.kill()
    assert (await unknown.get("/jobs")).status_code == 503


async def test_a_session_counts_as_long_as_its_key(
    unknown: httpx.AsyncClient, store: RedisJobRepository, own: RealServer
) -> None:
    """A browser that was served a minute ago is served; one that logs out isn't told that it has."""
    key = unknown.headers["authorization"].removeprefix("Bearer ")
    async with httpx.AsyncClient(base_url=unknown.base_url, headers={"Origin": str(unknown.base_url)}) as browser:
        assert (await browser.post("/login", json={"key": key})).status_code == 204
        assert (await browser.get("/jobs")).status_code == 200
        own.kill()
        assert (await browser.get("/jobs")).status_code == 200
        assert (await browser.post("/login", json={"key": key})).status_code == 503
        assert (await browser.post("/logout")).status_code == 503
        await come_back(store, own)
        assert (await browser.post("/logout")).status_code == 204
        assert (await browser.get("/jobs")).status_code == 401


async def test_a_stream_ends_with_the_minute(
    unknown: httpx.AsyncClient, store: RedisJobRepository, own: RealServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It goes on while the key counts; then the client has to come back, and is told to until accounts are there."""
    job_id = job_ids(0, 1)[0]
    async with unknown.stream("GET", f"/jobs/{job_id}/stream", params={"from_beginning": True}) as stream:
        lines = stream.aiter_lines()
        own.kill()
        await store.add_event(job_id, JobEvent("log", "still here\n"))
        while "still here" not in await anext(lines):
            pass
        monkeypatch.setattr(authentication, "CACHE_SECONDS", 0.0)
        async for _ in lines:
            pass
    assert (await unknown.get(f"/jobs/{job_id}/stream")).status_code == 503
