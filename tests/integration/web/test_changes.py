"""`GET /changes`: all of a user's jobs, then what changes about them."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import httpx
import pytest
from httpx_sse import aconnect_sse

from ci_common.models import Job, utc_now
from ci_eventstore.facts.groups import Begins
from ci_eventstore.keys import groups_key
from ci_eventstore.repository import RedisJobRepository
from ci_eventstore.web import WebSettings, authentication, create_app
from ci_eventstore.web.authentication import EVERYTHING
from ci_eventstore.web.changes import hub
from ci_eventstore.web.changes import routes as change_routes
from tests.integration.store.conftest import find_server, own
from tests.integration.web.serving import Account, create_ended_job, serve
from tests.servers import RealServer

__all__ = ["find_server", "own"]


class Reader:
    """One client, and what it has got."""

    def __init__(self, messages: AsyncIterator[Any]) -> None:
        self._messages = messages
        #: The jobs that it knows, by id, each with its status.
        self.jobs: dict[str, str] = {}
        self.last_id = ""
        self.snapshots = 0

    async def until(self, expected: dict[str, str]) -> None:
        """Read on until these are the jobs."""
        async with asyncio.timeout(60):
            while self.jobs != expected or not self.snapshots:
                await self.next()

    async def next(self) -> str:
        """Take the next message, and return its name."""
        message = await anext(self._messages)
        self.last_id = message.id or self.last_id
        data = json.loads(message.data)
        assert data["type"] == message.event
        if message.event == "jobs":
            self.snapshots += 1
            self.jobs = {job["job_id"]: job["status"] for job in data["jobs"]}
        elif message.event == "job":
            self.jobs[data["job"]["job_id"]] = data["job"]["status"]
            assert data["job"]["attempts"] >= 0
        else:
            assert message.event == "deleted"
            self.jobs.pop(data["job_id"], None)
        return str(message.event)


@asynccontextmanager
async def listening(client: httpx.AsyncClient, query: str = "", last_id: str | None = None) -> AsyncIterator[Reader]:
    """Yield a client of the stream."""
    headers = {} if last_id is None else {"Last-Event-ID": last_id}
    async with aconnect_sse(client, "GET", f"/changes{query}", headers=headers) as source:
        assert source.response.status_code == 200, await source.response.aread()
        yield Reader(source.aiter_sse())


async def create(repository: RedisJobRepository, *job_ids: str, user: str = "ada", **options: Any) -> None:
    """Create jobs that wait."""
    for job_id in job_ids:
        await repository.create_job(Job(id=job_id, user_id=user, status="queued", command=["true"], **options))


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits for others to come along waits hardly at all."""
    monkeypatch.setattr(hub, "GATHER_SECONDS", 0.01)
    monkeypatch.setattr(change_routes, "SNAPSHOT_SECONDS", 0.01)


async def test_all_jobs_then_each_that_changes(client: httpx.AsyncClient, repository: RedisJobRepository) -> None:
    """From its creation to its deletion, whichever process does it; what is another user's isn't seen."""
    await create(repository, "a", "b")
    await create(repository, "x", user="bob")
    async with listening(client) as reader:
        await reader.until({"a": "queued", "b": "queued"})
        await create(repository, "c")
        await reader.until({"a": "queued", "b": "queued", "c": "queued"})
        await repository.update_job_status("x", "running", utc_now())
        await repository.update_job_status("a", "running", utc_now())
        await reader.until({"a": "running", "b": "queued", "c": "queued"})
        await repository.complete_job("a", True, utc_now())
        await repository.cancel_job("b")
        await reader.until({"a": "completed", "b": "cancelled", "c": "queued"})
        await repository.delete_job("a")
        await reader.until({"b": "cancelled", "c": "queued"})
        assert reader.snapshots == 1


async def test_a_client_that_comes_back_gets_what_it_missed(
    client: httpx.AsyncClient, repository: RedisJobRepository
) -> None:
    """By the newest id, in a header or the address, and nothing else; by any other text, all jobs."""
    await create(repository, "a", "b", "c")
    async with listening(client) as reader:
        await reader.until(dict.fromkeys("abc", "queued"))
        known = reader.last_id
    await repository.cancel_job("a")
    await create(repository, "d")
    await repository.delete_job("a")
    for query, header in (("", known), (f"?last_event_id={known}", None), (f"?last_event_id=%20{known}", "")):
        async with listening(client, query, header) as again:
            again.jobs, again.snapshots = dict.fromkeys("abc", "queued"), 1
            await again.until(dict.fromkeys("bcd", "queued"))
            assert again.snapshots == 1
    for odd in ("17", "odd", "€", known[:-1], known + known, "A" * 3000):
        async with listening(client, f"?last_event_id={odd}") as fresh:
            await fresh.until(dict.fromkeys("bcd", "queued"))
            assert fresh.snapshots == 1


async def test_filters(client: httpx.AsyncClient, repository: RedisJobRepository) -> None:
    """Jobs of a queue; jobs of some statuses, and those that leave them."""
    await create(repository, "a", "b")
    await create(repository, "s", queue="slow")
    async with listening(client, "?queue=slow") as of_queue, listening(client, "?status=failed&status=running") as busy:
        await of_queue.until({"s": "queued"})
        await busy.until({})
        await repository.update_job_status("a", "running", utc_now())
        await busy.until({"a": "running"})
        await repository.complete_job("a", True, utc_now())
        await busy.until({"a": "completed"})
        await repository.cancel_job("s")
        await of_queue.until({"s": "cancelled"})
        assert (of_queue.snapshots, busy.snapshots) == (1, 1)


async def test_what_can_not_be_asked_for(client: httpx.AsyncClient) -> None:
    """400, in the one shape of errors."""
    for query in ("status=odd", "status=", "queue=%00", "status=queued&status=odd"):
        response = await client.get(f"/changes?{query}")
        assert (response.status_code, response.json()["error"]["code"]) == (400, "invalid"), query


async def test_who_may_see_everything(repository: RedisJobRepository) -> None:
    """All jobs of all users, and those of nobody."""
    await create(repository, "a")
    await repository.create_job(Job(id="n", status="running"))
    app = create_app(repository, authenticate=everything)
    async with serve(app) as served, served.client() as client, listening(client) as reader:
        await reader.until({"a": "queued", "n": "running"})
        await create(repository, "x", user="bob")
        await repository.complete_job("n", True, utc_now())
        await reader.until({"a": "queued", "n": "completed", "x": "queued"})
        await repository.delete_job("n")
        await reader.until({"a": "queued", "x": "queued"})


async def everything(request: object) -> Any:
    """Let a caller see all jobs."""
    return EVERYTHING


async def groups(repository: RedisJobRepository) -> list[str]:
    """Return the names of all groups of readers of facts."""
    return [group.name for group in await repository.engine.facts.all()]


async def test_a_process_reads_once_for_all(
    client: httpx.AsyncClient, repository: RedisJobRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its listeners share one group, which is gone some time after they are."""
    monkeypatch.setattr(hub, "LINGER_SECONDS", 0.1)
    async with listening(client) as one, listening(client) as two, listening(client, "?queue=x") as three:
        for reader in (one, two, three):
            await reader.until({})
        assert len(await groups(repository)) == 1
        await create(repository, "a")
        for reader in (one, two):
            await reader.until({"a": "queued"})
    await until_gone(repository)


async def until_gone(repository: RedisJobRepository) -> None:
    """Wait until no group is left."""
    async with asyncio.timeout(60):
        while await groups(repository):  # noqa: ASYNC110 - another connection changes it
            await asyncio.sleep(0.01)


async def test_a_server_that_stops_ends_them(repository: RedisJobRepository, ada: Account) -> None:
    """The responses end, and nothing of it stays in the store."""
    async with serve(create_app(repository)) as served, served.client(ada) as client, listening(client) as reader:
        await reader.until({})
        assert served.open_streams == 1
        served.app.state.router.stop()
        with pytest.raises(StopAsyncIteration):
            await reader.next()
    await until_gone(repository)


async def test_what_a_process_left_is_dropped(client: httpx.AsyncClient, repository: RedisJobRepository) -> None:
    """Another one drops the group of a process that hasn't looked at it for long, but not those of others."""
    engine = repository.engine
    [tag] = engine.keys.tags
    for name in ("changes.killed", "mine"):
        await engine.facts.read(tag, name, "r", 1, limit=0, begins=Begins.IF_FREE)
        await engine.nodes.read("HSET", groups_key(tag), name, "0-0 r 2 1")
    await engine.facts.read(tag, "changes.busy", "r", 1, limit=0, begins=Begins.IF_FREE)
    async with listening(client) as reader:
        await reader.until({})
        names = await groups(repository)
        assert {"changes.busy", "mine"} < set(names)
        assert len(names) == 3
        assert "changes.killed" not in names


@pytest.mark.slow  # Groups begin three times.
async def test_facts_that_are_lost_mean_all_jobs_again(
    client: httpx.AsyncClient, repository: RedisJobRepository
) -> None:
    """After a restore from a backup, and when somebody has dropped the group."""
    await create(repository, "a")
    async with listening(client) as reader:
        await reader.until({"a": "queued"})
        await repository.restored()
        while reader.snapshots < 2:
            await reader.next()
        [name] = await groups(repository)
        await repository.engine.facts.drop(name)
        while reader.snapshots < 3:
            await reader.next()
        await create(repository, "b")
        await reader.until({"a": "queued", "b": "queued"})


async def test_whoever_may_not_listen_begins_nothing(repository: RedisJobRepository, ada: Account) -> None:
    """Neither `HEAD` nor a stream too many has jobs' facts kept."""
    async with serve(create_app(repository, settings=WebSettings(max_streams_per_user=1))) as served:
        await create(repository, "a")
        async with served.client(ada) as client, client.stream("GET", "/jobs/a/stream"):
            assert (await client.head("/changes")).status_code == 200
            assert (await client.get("/changes")).status_code == 429
            assert await groups(repository) == []


async def test_rights_and_limits(repository: RedisJobRepository, ada: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream counts as one of its user's, and ends soon after the key was revoked."""
    monkeypatch.setattr(authentication, "TRUST_SECONDS", 0.0)
    settings = WebSettings(max_streams_per_user=1, heartbeat_seconds=0.05)
    async with serve(create_app(repository, settings=settings)) as served, served.client(ada) as client:
        async with listening(client) as reader:
            await reader.until({})
            response = await client.get("/changes")
            assert (response.status_code, response.json()["error"]["code"]) == (429, "too_many_streams")
            await repository.revoke_api_key("key-ada")
            with pytest.raises(StopAsyncIteration):
                await reader.next()
        assert (await client.get("/changes")).status_code == 401


@pytest.mark.slow  # Two servers.
async def test_a_job_that_nobody_here_knew(repository: RedisJobRepository, ada: Account) -> None:
    """A client that comes from another process hears of its deletion, too."""
    await create_ended_job(repository, "a", 1)
    await create_ended_job(repository, "b", 1)
    async with AsyncExitStack() as stack:
        one, two = [await stack.enter_async_context(serve(create_app(repository))) for _ in range(2)]
        client, other = [await stack.enter_async_context(served.client(ada)) for served in (one, two)]
        await stack.enter_async_context(listening(other, "?queue=none"))
        reader = await stack.enter_async_context(listening(client))
        await reader.until({"a": "completed", "b": "completed"})
        moved = await stack.enter_async_context(listening(other, last_id=reader.last_id))
        moved.jobs, moved.snapshots = dict(reader.jobs), 1
        await repository.delete_job("a")
        await moved.until({"b": "completed"})
        await reader.until({"b": "completed"})
        assert reader.snapshots == 1


@pytest.mark.slow  # Two servers, one after the other.
async def test_a_process_that_was_not_reading(repository: RedisJobRepository, ada: Account) -> None:
    """It reads what a client has missed from the store, as long as that keeps it for anybody."""
    [tag] = repository.engine.keys.tags
    await repository.engine.facts.read(tag, "slow", "r", 1, limit=0, begins=Begins.IF_FREE)
    await create(repository, "a", "b")
    async with serve(create_app(repository)) as served, served.client(ada) as client, listening(client) as reader:
        await reader.until({"a": "queued", "b": "queued"})
        await create(repository, "c")
        await reader.until(dict.fromkeys("abc", "queued"))
    await repository.cancel_job("a")
    await repository.delete_job("a")
    await repository.cancel_job("b")
    for snapshots in (1, 2):
        async with AsyncExitStack() as stack:
            served = await stack.enter_async_context(serve(create_app(repository)))
            client = await stack.enter_async_context(served.client(ada))
            again = await stack.enter_async_context(listening(client, last_id=reader.last_id))
            again.jobs, again.snapshots = dict(reader.jobs), 1
            await again.until({"b": "cancelled", "c": "queued"})
            assert again.snapshots == snapshots
        await repository.engine.facts.drop("slow")


@pytest.mark.slow  # A store of its own, which is verified.
async def test_a_store_of_several_partitions(valkey: RealServer) -> None:
    """Changes of all of them come, and one id stands for what was read of each."""
    async with RedisJobRepository.from_url(valkey.url, prefix="parts", partitions=5) as repository:
        app = create_app(repository, authenticate=everything)
        async with serve(app) as served, served.client() as client:
            async with listening(client) as reader:
                await reader.until({})
                expected = {str(number): "queued" for number in range(12)}
                await create(repository, *expected)
                await reader.until(expected)
            await repository.cancel_job("3")
            async with listening(client, last_id=reader.last_id) as again:
                again.jobs, again.snapshots = expected, 1
                await again.until(expected | {"3": "cancelled"})
                assert again.snapshots == 1
        assert await repository.verify() == []


@pytest.mark.slow  # A server is killed and started.
@pytest.mark.usefixtures("impatient")
async def test_a_store_that_is_away(own: RealServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its client stays connected, and gets all jobs when the store is back."""
    monkeypatch.setattr(change_routes, "AWAY_SECONDS", 0.05)
    monkeypatch.setattr(hub, "AWAY_SECONDS", 0.05)
    async with RedisJobRepository.from_url(own.url) as repository:
        app = create_app(repository, authenticate=everything, settings=WebSettings(heartbeat_seconds=0.1))
        async with serve(app) as served, served.client() as client, listening(client) as reader:
            await create(repository, "a")
            await reader.until({"a": "queued"})
            own.kill()
            async with listening(client) as late:
                own.start()
                await create(repository, "b")
                for each in (reader, late):
                    await each.until({"a": "queued", "b": "queued"})
