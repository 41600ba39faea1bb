"""A cluster whose masters fail: replicas take over, and everybody goes on by themselves."""

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest

from ci_common.models import Job, JobEvent
from ci_eventstore import RedisJobRepository
from ci_eventstore.connection import connections
from ci_eventstore.following import hub
from tests.deployments import Cluster, running_cluster
from tests.integration.store.test_cluster import all_seen, following, writing
from tests.waiting import wait_until

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def shared() -> Iterator[Cluster]:
    """Three masters with a replica each, which lose nothing when they are killed at once."""
    with running_cluster(configuration=["appendfsync always"]) as running:
        yield running


@pytest.fixture
async def store(shared: Cluster, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[RedisJobRepository]:
    """An open store whose writes are acknowledged when a replica has them; replies are waited for for ever."""
    monkeypatch.setitem(connections.PINNED, "socket_timeout", 3600.0)
    monkeypatch.setattr(hub, "WATCH_SECONDS", 3600.0)
    async with RedisJobRepository.from_url(shared.url, durability="replicated") as opened:
        yield opened
        assert await opened.verify() == []


@pytest.mark.parametrize("how", ["asked", "killed", "stopped"])
async def test_a_replica_takes_over(shared: Cluster, store: RedisJobRepository, how: str) -> None:
    """Writers and followers go on at the new master; nothing acknowledged is lost."""
    await store.create_job(Job(id=how, status="running"))
    master = shared.owner_of_key(store.engine.keys.job(how).tag)
    async with following(store, how) as seen:
        async with writing(store, how) as written:
            await all_seen(seen, written)
            if how == "killed":
                master.kill()
            elif how == "stopped":
                master.pause()
            await shared.fail_over(master)
            before = len(written)
            await wait_until(lambda: len(written) > before, seconds=40)
            if how == "killed":
                master.start()
            elif how == "stopped":
                master.resume()
            await shared.wait_ready()
        await wait_until(lambda: len(seen) == len(written))
    await wait_until(lambda: len(store.engine.nodes.all) == 3)
    assert seen == written == [event.data for event in await store.get_events_since(how, 0)]


async def test_all_nodes_start_again(shared: Cluster, store: RedisJobRepository) -> None:
    """Writers and followers wait, and go on."""
    await store.create_job(Job(id="j", status="running"))
    async with following(store, "j") as seen:
        await store.add_event("j", JobEvent("log", "before\n"))
        await wait_until(lambda: len(seen) == 1)
        writing_after = asyncio.create_task(_write_after(store))
        await shared.restart_all()
        await writing_after
        await wait_until(lambda: len(seen) == 2, seconds=40)
    assert seen == ["before\n", "after\n"] == [event.data for event in await store.get_events_since("j", 0)]


async def _write_after(store: RedisJobRepository) -> None:
    await asyncio.sleep(0.3)
    await store.add_event("j", JobEvent("log", "after\n"))
