"""A store on a cluster: commands find their node, whatever becomes of nodes and slots meanwhile."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager, suppress
from typing import Any

import pytest
from redis.asyncio.cluster import ClusterNode, RedisCluster

from ci_common.models import Job, JobEvent
from ci_eventstore import RedisJobRepository
from ci_eventstore.connection import cluster as clusters
from ci_eventstore.connection import node as nodes_module
from ci_eventstore.connection.deployments import from_url
from ci_eventstore.connection.nodes import Nodes, publish, servers_of
from ci_eventstore.connection.replies import WRONG_TYPE
from ci_eventstore.connection.topology import SlotMap, slot_of
from ci_eventstore.errors import NotReplicatedError, StoreUnavailableError
from ci_eventstore.following import hub
from ci_eventstore.store_format import INITIALIZE
from tests.deployments import Cluster, running_cluster
from tests.deployments.cluster import How, Node
from tests.deployments.members import spare_port
from tests.waiting import wait_until

pytestmark = pytest.mark.slow

TAGS = [f"{{ci:{number}}}" for number in range(8)]


@pytest.fixture(scope="module")
def shared() -> Iterator[Cluster]:
    """Three masters without replicas, whose slots move."""
    with running_cluster(replicas=0, configuration=["appendfsync always"]) as running:
        yield running


@pytest.fixture(autouse=True)
def heard_of(monkeypatch: pytest.MonkeyPatch) -> None:
    """Followers learn of events by their channels alone; nobody looks for what no message has told."""
    monkeypatch.setattr(hub, "WATCH_SECONDS", 3600.0)


@pytest.fixture
async def nodes(shared: Cluster) -> AsyncIterator[Nodes]:
    opened = Nodes(from_url(shared.url))
    for node in await servers_of(opened):
        await node.read("FLUSHALL")
    yield opened
    await opened.close()


@pytest.fixture
async def store(shared: Cluster, nodes: Nodes) -> AsyncIterator[RedisJobRepository]:
    """An open store on the emptied cluster; its projections must agree with its streams in the end."""
    async with RedisJobRepository.from_url(shared.url) as opened:
        yield opened
        assert await opened.verify() == []


async def test_commands_go_where_their_keys_are(nodes: Nodes) -> None:
    """Reads of several partitions have their replies in the order of the commands; all nodes' keys are found."""
    for number in range(24):
        await nodes.read("SET", f"{TAGS[number % 8]}:{number}", number)
    assert len(nodes.all) == 3
    assert all([await node.read("DBSIZE") for node in nodes.all])
    commands: list[tuple[str | bytes, ...]] = [("GET", f"{TAGS[number % 8]}:{number}") for number in range(24)]
    commands.append(("HLEN", f"{TAGS[1]}:1".encode()))
    assert await nodes.read_many(commands) == [*(b"%d" % number for number in range(24)), WRONG_TYPE]
    assert await nodes.read_together("GET", f"{TAGS[5]}:5") == b"5"
    assert await nodes.read_at_once([("GET", f"{TAGS[1]}:1"), ("GET", f"{TAGS[1]}:9")]) == [b"1", b"9"]
    found = [key async for page in nodes.scan("{ci:*}:*") for key in page]
    assert sorted(found) == sorted(f"{TAGS[number % 8]}:{number}" for number in range(24))


async def test_a_store_has_64_partitions_unless_it_says_otherwise(shared: Cluster, store: RedisJobRepository) -> None:
    """So do programs that open it later, also by a client of redis-py, whose connections stay its own."""
    assert store.engine.keys.partitions == 64
    await store.create_job(Job(id="j", status="queued"))
    client = RedisCluster(startup_nodes=[ClusterNode("127.0.0.1", node.port) for node in shared.nodes[:2]])
    async with RedisJobRepository(client) as other:
        assert other.engine.keys.partitions == 64
        assert await other.get_job("j") == await store.get_job("j")
    assert await client.ping()
    await client.aclose()


async def test_the_urls_nodes_are_asked_when_no_other_one_is_there(nodes: Nodes, shared: Cluster) -> None:
    """As when all that were known were replaced."""
    assert nodes._cluster is not None
    nodes._cluster._take(SlotMap.read([[0, 16383, [b"127.0.0.1", spare_port(), b"id"]]], ("127.0.0.1", 1)))
    assert await nodes.read("EXISTS", f"{TAGS[1]}:none") == 0
    await wait_until(lambda: len(nodes.all) == 3)


async def test_what_is_listened_to_is_heard_after_each_move(nodes: Nodes, shared: Cluster) -> None:
    """Channels of many slots, while one of them moves; its owner learns that it is listened to again."""
    heard, confirmed = Counter[str](), Counter[str]()
    subscription = nodes.subscription(lambda channel, _: heard.update([channel]), confirmed.update)
    channels = [f"{tag}:{name}" for tag in TAGS for name in "ab"]
    subscription.listen(*channels)
    await wait_until(lambda: len(confirmed) == len(channels))
    slot = slot_of(TAGS[0])
    for number in range(4):
        before = confirmed[channels[0]]
        await shared.move_slot(slot, another_than(shared, shared.owner_of(slot)), ("keys", "at_once")[number % 2])
        await wait_until(lambda before=before: confirmed[channels[0]] > before)  # type: ignore[misc]
        heard.clear()
        await publish(nodes, channels, b"message")
        await wait_until(lambda: heard == Counter(channels))
    subscription.ignore(channels[0])
    subscription.listen(*channels[2:4])
    heard.clear()

    def is_ignored() -> bool:
        return int(shared.owner_of(slot).ask("PUBSUB", "SHARDNUMSUB", channels[0])[1]) == 0

    await wait_until(is_ignored)
    await publish(nodes, channels, b"message")
    await wait_until(lambda: heard == Counter(channels[1:]))
    await subscription.close()


def another_than(cluster: Cluster, node: Node) -> Node:
    return next(other for other in cluster.primaries() if other is not node)


@asynccontextmanager
async def writing(store: RedisJobRepository, job_id: str) -> AsyncIterator[list[str]]:
    """Write numbered lines to a job all the time; what is yielded gets those that were acknowledged."""
    written, is_over = list[str](), asyncio.Event()

    async def write() -> None:
        while not is_over.is_set():
            line = f"line {len(written)}\n"
            # While a master has no replica, that is said of each write.
            with suppress(NotReplicatedError):
                await store.add_event(job_id, JobEvent("log", line))
            written.append(line)

    task = asyncio.create_task(write())
    try:
        yield written
    finally:
        is_over.set()
        await task


@asynccontextmanager
async def following(store: RedisJobRepository, job_id: str) -> AsyncIterator[list[str]]:
    """Follow a job; what is yielded gets its lines."""
    seen = list[str]()

    async def follow() -> None:
        async with aclosing(store.follow_events(job_id)) as events:
            async for event in events:
                if event.type == "log":
                    seen.append(event.data or "")

    task = asyncio.create_task(follow())
    try:
        yield seen
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def all_seen(seen: list[str], written: list[str]) -> None:
    """Return when one more line was written, and the follower has it."""
    wanted = len(written) + 1
    await wait_until(lambda: min(len(seen), len(written)) >= wanted)


@pytest.mark.parametrize("how", ["keys", "at_once"])
async def test_a_slot_moves_while_its_job_is_written_and_followed(
    shared: Cluster, store: RedisJobRepository, how: How
) -> None:
    """Nothing is lost or doubled, and followers hear of what comes at the new node."""
    await move_while_busy(shared, store, how)


@pytest.mark.needs("redis7")
async def test_a_slot_moves_on_redis_7_as_well() -> None:
    """Key by key, which is its only way."""
    with running_cluster(replicas=0, binary="redis") as cluster:
        async with RedisJobRepository.from_url(cluster.url) as opened:
            await move_while_busy(cluster, opened, "keys")
            assert await opened.verify() == []


async def move_while_busy(cluster: Cluster, store: RedisJobRepository, how: How) -> None:
    await store.create_job(Job(id="j", status="running"))
    slot = slot_of(store.engine.keys.job("j").tag)
    async with following(store, "j") as seen:
        async with writing(store, "j") as written:
            for _ in range(6):
                await all_seen(seen, written)
                before = len(written)
                await cluster.move_slot(slot, another_than(cluster, cluster.owner_of(slot)), how)
                await wait_until(lambda before=before: len(written) > before)  # type: ignore[misc]
        await wait_until(lambda: len(seen) == len(written))
    assert seen == written == [event.data for event in await store.get_events_since("j", 0)]


async def test_half_a_slot_is_read_where_each_key_is_and_written_when_it_has_moved(
    shared: Cluster, store: RedisJobRepository
) -> None:
    """A script that saw only some of its keys would do half its work: it waits."""
    tag = store.engine.keys.job("j").tag
    jobs = [job_id for job_id in (f"j-{number}" for number in range(2000)) if store.engine.keys.job(job_id).tag == tag]
    for job_id in jobs:
        await store.create_job(Job(id=job_id, status="running"))
        await store.add_event(job_id, JobEvent("log", f"of {job_id}\n"))
    slot, nodes, keys = slot_of(tag), store.engine.nodes, store.engine.keys
    sending = list[asyncio.Task[Any]]()

    async def half_way() -> None:
        sending.append(asyncio.create_task(store.add_event(jobs[0], JobEvent("log", "more\n"))))
        sending.append(asyncio.create_task(store.create_job(Job(id=tag_mate, status="queued"))))
        # It names one key, which nobody has: without another one it would be sent on to the new node.
        sending.append(asyncio.create_task(nodes.run(INITIALIZE, [f"{tag}:trial"], ["3", "1", "text"])))
        hashes = await nodes.read_many([("HGET", keys.job(job_id).hash, "position") for job_id in jobs])
        assert hashes == [b"1"] * len(jobs)
        for job_id in jobs:
            assert await nodes.read("XLEN", keys.job(job_id).stream) > 0
            assert await nodes.read_together("EXISTS", keys.job(job_id).hash) == 1
        assert not any(task.done() for task in sending)

    tag_mate = next(name for name in (f"new-{number}" for number in range(9999)) if keys.job(name).tag == tag)
    await shared.move_slot(slot, another_than(shared, shared.owner_of(slot)), half_way=half_way)
    await asyncio.gather(*sending)
    await nodes.read("DEL", f"{tag}:trial")
    assert [event.data for event in await store.get_events_since(jobs[0], 0)] == [f"of {jobs[0]}\n", "more\n"]
    assert await store.get_job(tag_mate) is not None


async def test_a_node_that_comes_gets_work_and_one_that_goes_is_forgotten(
    shared: Cluster, store: RedisJobRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its connections are closed, and those who listened there listen elsewhere."""
    monkeypatch.setattr(clusters, "LOOK_SECONDS", 0.5)
    monkeypatch.setattr(clusters, "KEPT_SECONDS", 1.0)
    await store.create_job(Job(id="j", status="running"))
    slot, nodes = slot_of(store.engine.keys.job("j").tag), store.engine.nodes
    async with following(store, "j") as seen:
        async with writing(store, "j") as written:
            added = await shared.add_node()
            await shared.move_slot(slot, added, "at_once")
            await wait_until(lambda: len(nodes.all) == 4)
            await all_seen(seen, written)
            before = len(written)
            await shared.remove_node(added)
            await wait_until(lambda: len(nodes.all) == 3 and len(written) > before)
        await wait_until(lambda: len(seen) == len(written))
    await wait_until(lambda: not any(port == added.port for _, port in nodes._cluster._nodes))  # type: ignore[union-attr]
    assert seen == written


async def test_a_node_that_is_away_takes_only_its_own_jobs_along(
    shared: Cluster, store: RedisJobRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Errors name partition and node; when it is back, all is as before."""
    keys = store.engine.keys
    away = shared.owner_of_key(keys.tag(1))
    here = next(tag for tag in keys.tags if shared.owner_of_key(tag) is not away)
    jobs = {keys.job(name).tag: name for name in (f"j-{number}" for number in range(2000))}
    monkeypatch.setattr(nodes_module, "PATIENCE_SECONDS", 3.0)
    away.kill()
    await store.create_job(Job(id=jobs[here], status="running"))
    with pytest.raises(StoreUnavailableError, match=rf"^partition 1 at 127\.0\.0\.1:{away.port} of redis\+cluster://"):
        await store.get_job(jobs[keys.tag(1)])
    await store.add_event(jobs[here], JobEvent("log", "goes on\n"))
    monkeypatch.undo()
    away.start()
    await shared.wait_ready()
    await store.create_job(Job(id=jobs[keys.tag(1)], status="running"))
