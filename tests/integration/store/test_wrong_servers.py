"""What can't hold the store, or isn't what the URL says, is refused with one sentence, which says what to do."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from redis import Redis

from ci_eventstore.errors import UnsuitableServerError
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


@pytest.mark.parametrize("find", BINARIES)
async def test_a_node_of_a_cluster_by_the_url_of_a_server(find: Callable[[], Path]) -> None:
    """It says how to write the address, also before any slots were given to it."""
    node = Member(find(), "cluster-enabled yes")
    try:
        launch_all([node])
        assert "write redis+cluster://HOST:PORT" in await why_refused(node.url)
    finally:
        remove_all([node])
