"""Slots that move while a store is in use: key by key, as Redis 7 does it, and all keys at once, as Valkey 9 does."""

import asyncio
import contextlib
import itertools
import logging
import os
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from redis.crc import key_slot

from ci_common.models import Job, JobEvent
from ci_eventstore.keys import facts_key
from ci_eventstore.repository import RedisJobRepository
from tests.deployments import Cluster, running_cluster
from tests.deployments.cluster import How, Node
from tests.deployments.load import open_load
from tests.deployments.report import note
from tests.integration.store.operations import OPERATIONS
from tests.integration.store.refusing_server import RefusingServer
from tests.integration.store.scenes import Operation, Scene
from tests.waiting import wait_until

logger = logging.getLogger("tests.moves")

IS_SOAK = os.environ.get("CI_EVENTSTORE_SOAK") == "1"
MOVES = 50 if IS_SOAK else 4
#: Of a stream that moves as one key.
BIG_ENTRIES, ENTRY_BYTES = 64, 1 << 20
TAGS = ("{ci:0}", "{ci:accounts}")
SLOT, ACCOUNTS_SLOT = (key_slot(tag.encode()) for tag in TAGS)

pytestmark = [pytest.mark.slow, pytest.mark.needs("redis7"), pytest.mark.timeout(1800 if IS_SOAK else 240)]


@pytest.fixture(scope="module", params=["redis", "valkey"])
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    with running_cluster(binary=request.param, replicas=0) as opened:
        yield opened


def ways_of(cluster: Cluster) -> list[How]:
    return ["keys", "at_once"] if cluster.binary == "valkey" else ["keys"]


def empty(cluster: Cluster) -> None:
    for primary in cluster.primaries():
        primary.ask("FLUSHALL")


def next_after(cluster: Cluster, node: Node) -> Node:
    primaries = cluster.primaries()
    return primaries[(primaries.index(node) + 1) % len(primaries)]


async def test_the_slot_of_a_job_moves_to_and_fro(cluster: Cluster, tmp_path: Path) -> None:
    """It is written, followed and claimed meanwhile: nothing is lost, there twice, or done by half."""
    empty(cluster)
    ways = itertools.cycle([how for how in ways_of(cluster) for _ in range(2)])
    async with open_load(cluster.url, tmp_path, partitions=1) as load:
        await load.progress()
        load.begin_silence()
        for number, how in zip(range(MOVES * len(ways_of(cluster))), ways, strict=False):
            stop = None if how == "at_once" or number % 4 else load_goes_on
            await cluster.move_slot(SLOT, next_after(cluster, cluster.owner_of(SLOT)), how, half_way=stop)
            await load.progress()
        logger.warning("longest silences: %s", {kind: silence.longest for kind, silence in load.silence.items()})
        assert await load.findings() == {}
        assert [reader.resets for reader in load.readers] == [0] * len(load.readers)


async def load_goes_on() -> None:
    """Let everybody meet a slot of which half the keys have gone."""
    await asyncio.sleep(0.3)


@pytest.fixture
async def scene(cluster: Cluster) -> AsyncIterator[Scene]:
    empty(cluster)
    async with RedisJobRepository.from_url(cluster.url, partitions=1) as repository:
        server = RefusingServer(cluster.url)
        yield Scene(repository=repository, server=server)
        await server.close()


@pytest.mark.parametrize("cluster", ["redis"], indirect=True)
async def test_each_script_meets_a_slot_that_is_half_moved(cluster: Cluster, scene: Scene) -> None:
    """Some of its keys are at the old owner, others at the new one; what it does is done once when the move is over."""
    for name, operation in OPERATIONS.items():
        logger.warning("%s", name)
        empty(cluster)
        await scene.repository.initialize()
        await scene.server.read("XADD", facts_key("{ci:0}"), "1-1", "f", "b-")
        await scene.repository.engine.incarnation.renew()
        await operation.prepare(scene)
        await act_while_moving(cluster, scene, operation)
        await operation.check(scene)


async def act_while_moving(cluster: Cluster, scene: Scene, operation: Operation) -> None:
    """Begin when half of the keys have moved, those of accounts too, and let the moves end."""
    acting = list[asyncio.Task[object]]()

    async def begin() -> None:
        acting.append(asyncio.ensure_future(operation.act(scene)))
        await asyncio.wait(acting, timeout=0.05)

    async def move_accounts() -> None:
        target = next_after(cluster, cluster.owner_of(ACCOUNTS_SLOT))
        await cluster.move_slot(ACCOUNTS_SLOT, target, half_way=begin)

    await cluster.move_slot(SLOT, next_after(cluster, cluster.owner_of(SLOT)), half_way=move_accounts)
    await acting[0]


async def test_the_move_of_a_big_stream(cluster: Cluster) -> None:
    """A stream of 64 MiB moves as one key; how long its partition's jobs wait for that stands in the log."""
    empty(cluster)
    async with RedisJobRepository.from_url(cluster.url, partitions=1) as repository:
        await repository.create_job(Job(id="j", status="running"))
        for how in ways_of(cluster):
            source = cluster.owner_of(SLOT)
            for _ in range(BIG_ENTRIES):
                source.ask("XADD", "{ci:0}:big", "*", "e", "x" * ENTRY_BYTES)
            async with writing(repository) as pauses:
                seconds = await cluster.move_slot(SLOT, next_after(cluster, source), how)
            logger.warning("64 MiB moved (%s, %s): %.2f s, pause %.2f s", cluster.binary, how, seconds, max(pauses))
            note(what="move", cluster=cluster.binary, how=how, seconds=seconds, pause=max(pauses))
            cluster.owner_of(SLOT).ask("DEL", "{ci:0}:big")
        assert await repository.verify() == []


@contextlib.asynccontextmanager
async def writing(repository: RedisJobRepository) -> AsyncIterator[list[float]]:
    """Write to the job all the time; how long each write took stands in the list."""
    took, is_over = list[float](), asyncio.Event()

    async def write() -> None:
        while not is_over.is_set():
            began = time.monotonic()
            await repository.add_event("j", JobEvent("log", "x"))
            took.append(time.monotonic() - began)

    task = asyncio.create_task(write())
    await wait_until(lambda: len(took) > 1)
    yield took
    is_over.set()
    await task
