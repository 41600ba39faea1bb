"""What can't hold the store, or isn't what the URL says, is refused with one sentence, which says what to do."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from redis import Redis

from ci_eventstore.errors import StoreFormatError, StoreUnavailableError, UnsuitableServerError
from ci_eventstore.repository import RedisJobRepository
from tests.deployments.members import Member, launch_all, remove_all
from tests.integration.store.hiding_proxy import hiding_proxy
from tests.servers import BINARIES, RealServer, find_valkey


@pytest.fixture(scope="module")
def server() -> Iterator[RealServer]:
    """A server that is as it should be but for what a test changes."""
    with RealServer(find_valkey(), tcp=True) as started:
        yield started


async def why_refused(url: str) -> str:
    """Return in one line why the store at a URL can't be opened."""
    with pytest.raises(UnsuitableServerError) as caught:
        await RedisJobRepository.from_url(url).initialize()
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert len(sentence) < 300
    return sentence


@pytest.mark.parametrize(
    ("refusals", "shown"),
    [
        ({b"EVALSHA": "ERR unknown command 'evalsha'", b"EVAL": "ERR unknown command 'eval'"}, "unknown command"),
        ({b"EVAL": "ERR command 'eval' disallowed"}, "'eval' disallowed"),
        ({b"EVALSHA": "ERR unsupported command"}, "unsupported command"),
    ],
    ids=["no script", "no text of a script", "in other words"],
)
async def test_a_proxy_that_hides_scripts(server: RealServer, refusals: dict[bytes, str], shown: str) -> None:
    """Whatever its words are, what it lacks is named, and nothing was written."""
    with Redis(port=server.port) as admin:
        admin.flushall()
        admin.script_flush()
        async with hiding_proxy(server.port, refusals) as port:
            why = await why_refused(f"redis://127.0.0.1:{port}")
        assert "runs no scripts" in why
        assert shown in why
        assert admin.dbsize() == 0


async def test_a_proxy_that_hides_nothing(server: RealServer) -> None:
    """The proxy of these tests is no reason to refuse a server."""
    async with (
        hiding_proxy(server.port, {}) as port,
        RedisJobRepository.from_url(f"redis://127.0.0.1:{port}") as repository,
    ):
        assert await repository.list_jobs() == []


@pytest.mark.parametrize("policy", ["volatile-lru", "volatile-ttl", "allkeys-lfu", "volatile-random"])
async def test_policies_that_evict(server: RealServer, policy: str) -> None:
    """Those that spare keys without a time to live would still forget what calls are known by."""
    with Redis(port=server.port) as admin:
        admin.flushall()
        admin.config_set("maxmemory-policy", policy)
        try:
            why = await why_refused(server.url)
        finally:
            admin.config_set("maxmemory-policy", "noeviction")
        assert re.search(f"maxmemory-policy is {policy}.*set it to noeviction", why)
        assert admin.dbsize() == 0


@pytest.fixture(scope="module", params=BINARIES)
def node(request: pytest.FixtureRequest) -> Iterator[Member]:
    """A node of a cluster, which serves no slot before a test gives it some."""
    started = Member(request.param(), "cluster-enabled yes", "cluster-require-full-coverage no")
    try:
        launch_all([started])
        yield started
    finally:
        remove_all([started])


async def test_a_node_of_a_cluster_by_the_url_of_a_server(node: Member) -> None:
    """It says how to write the address, also before any slots were given to it."""
    assert "write redis+cluster://HOST:PORT" in await why_refused(f"redis://{node.address}")


@pytest.mark.slow
async def test_a_cluster_without_some_slots(node: Member) -> None:
    """It says how many are missing; with all of them it is taken, and nothing was written before."""
    url = f"redis+cluster://{node.address}"
    with pytest.raises(StoreUnavailableError, match="no slot is served"):
        await RedisJobRepository.from_url(url).initialize()
    node.ask("CLUSTER", "ADDSLOTSRANGE", 0, 9_000, 9_002, 16_382)
    assert "doesn't serve 2 of its 16384 slots: give them to nodes" in await why_refused(url)
    for access in ("read", "write"):
        with pytest.raises(UnsuitableServerError, match="16384 slots"):
            await RedisJobRepository.from_url(url, access=access).initialize()
    assert node.ask("DBSIZE") == 0
    node.ask("CLUSTER", "ADDSLOTS", 9_001, 16_383)
    async with RedisJobRepository.from_url(url) as repository:
        assert await repository.verify() == []
    with pytest.raises(StoreFormatError, match="made with 64 partitions, not 3"):
        await RedisJobRepository.from_url(url, partitions=3).initialize()


@pytest.mark.parametrize("find", BINARIES)
async def test_what_is_no_node_by_the_url_of_a_cluster(server: RealServer, find: Callable[[], Path]) -> None:
    """A server and a Sentinel say how to write their addresses."""
    plain = await why_refused(f"redis+cluster://127.0.0.1:{server.port}")
    assert f"is no node of a cluster: write redis://127.0.0.1:{server.port}" in plain
    sentinel = Member(find(), f"sentinel monitor ci 127.0.0.1 {server.port} 1")
    # What other servers are told isn't known to Sentinels.
    sentinel.configuration, sentinel.arguments = sentinel.configuration[-1:], ["--sentinel"]
    try:
        launch_all([sentinel])
        assert f"reached by redis+sentinel://{sentinel.address}/NAME" in await why_refused(
            f"redis+cluster://{sentinel.address}"
        )
        assert "write redis+sentinel://HOST:PORT/NAME" in await why_refused(f"redis://{sentinel.address}")
    finally:
        remove_all([sentinel])
