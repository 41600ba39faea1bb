"""The real deployments that other tests run on: they start, and do what an operator asks."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from redis import ReadOnlyError
from redis.crc import key_slot

from tests.deployments import cluster_of, sentinel_of, tls_server
from tests.deployments.cluster import Cluster, How, Node
from tests.integration.embedded.processes import processes_in
from tests.servers import wait_until

ROOT = Path(__file__).parents[3]
TAG = "{ci:1}"
SLOT = key_slot(TAG.encode())
KEYS = 40

pytestmark = [pytest.mark.slow, pytest.mark.needs("redis7")]


def fill(cluster: Cluster) -> None:
    for number in range(KEYS):
        cluster.owner_of(SLOT).ask("SET", f"{TAG}:{number}", "x" * 100)


def number_of_keys(node: Node) -> int:
    return int(node.ask("CLUSTER", "COUNTKEYSINSLOT", SLOT))


def another_than(cluster: Cluster, node: Node) -> Node:
    return next(other for other in cluster.primaries() if other is not node)


async def test_slots_move_and_nodes_come_and_go() -> None:
    """Keys go with their slot, whichever way it moves; a node that goes leaves its slots to others."""
    ways: tuple[How, ...] = ("keys", "at_once")
    async with cluster_of(replicas=0) as cluster:
        fill(cluster)
        for how in ways:
            source = cluster.owner_of(SLOT)
            target = another_than(cluster, source)
            assert await cluster.move_slot(SLOT, target, how) > 0
            assert cluster.owner_of(SLOT) is target
            assert [number_of_keys(source), number_of_keys(target)] == [0, KEYS]
        added = await cluster.add_node()
        seen = list[tuple[int, int]]()

        async def half_way() -> None:
            seen.append((number_of_keys(target), number_of_keys(added)))

        await cluster.move_slot(SLOT, added, half_way=half_way)
        assert seen == [(KEYS // 2, KEYS // 2)]
        await cluster.remove_node(added)
        # It has slots without keys, too.
        await cluster.remove_node(another_than(cluster, cluster.nodes[0]), "at_once")
        await cluster.wait_ready()
        assert number_of_keys(cluster.owner_of(SLOT)) == KEYS


async def test_a_replica_takes_over() -> None:
    """A primary's replica takes its place, be it well or dead, and it comes back as a replica."""
    async with cluster_of(binary="redis") as cluster:
        fill(cluster)
        first = cluster.owner_of(SLOT)
        second = await cluster.fail_over(first)
        await cluster.wait_ready()
        assert [cluster.owner_of(SLOT), cluster.replicas_of(second)] == [second, [first]]
        second.kill()
        assert await cluster.fail_over(second) is first
        second.restart()
        await cluster.wait_ready()
        assert [number_of_keys(first), cluster.replicas_of(first)] == [KEYS, [second]]
        await cluster.restart_all()
        assert number_of_keys(cluster.owner_of(SLOT)) == KEYS


async def test_sentinels_choose_another_primary() -> None:
    """They do so when they are asked, and when the primary stands still or is killed."""
    async with sentinel_of(down_after_ms=1000) as watched:
        first = watched.primary
        first.ask("SET", "k", "v")
        first.ask("WAIT", 2, 10_000)
        second = await watched.fail_over()
        assert second is not first
        await watched.wait_ready()
        second.pause()
        third = await watched.fail_over()
        assert third is not second
        second.resume()
        await watched.wait_ready()
        assert watched.primary is third
        assert second in watched.replicas
        with pytest.raises(ReadOnlyError):
            second.ask("SET", "k", "other")
        assert third.ask("GET", "k") == "v"


async def test_a_server_that_speaks_tls() -> None:
    """It refuses those who don't, and those without a certificate."""
    async with tls_server() as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"PING\r\n")
        with contextlib.suppress(ConnectionError):
            assert b"PONG" not in await reader.read()
        writer.close()
        assert server.url.startswith(f"rediss://127.0.0.1:{server.port}?")


PROGRAM = """
import asyncio, sys
from tests.deployments import cluster_of
async def main():
    async with cluster_of(replicas=0) as cluster:
        print(*(node.folder for node in cluster.nodes), flush=True)
        await asyncio.sleep(600)
asyncio.run(main())
"""


@pytest.mark.needs("/proc")
def test_nothing_outlives_the_tests() -> None:
    """When the process that started a cluster is killed, its servers end too."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    with subprocess.Popen([sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None
        folders = [Path(word.decode()) for word in process.stdout.readline().split()]
        assert len(folders) == 3
        process.send_signal(signal.SIGKILL)
    wait_until(lambda: not any(folder.exists() for folder in folders), "folders that are gone")
    wait_until(lambda: not any(processes_in(folder) for folder in folders), "the end of all servers")
