"""A real server for the store's own tests, emptied before each."""

from collections.abc import AsyncIterator, Iterator

import pytest

from ci_eventstore.keys import Keys
from ci_eventstore.repository import RedisJobRepository
from ci_eventstore.server.client import Server
from ci_eventstore.server.deployments import from_url
from tests.servers import RealServer, find_valkey


@pytest.fixture(scope="session")
def valkey() -> Iterator[RealServer]:
    with RealServer(find_valkey(), "appendonly no") as server:
        yield server


@pytest.fixture
async def server(valkey: RealServer) -> AsyncIterator[Server]:
    opened = Server(from_url(valkey.url))
    await opened.read("FLUSHALL")
    yield opened
    await opened.close()


@pytest.fixture
async def repository(valkey: RealServer, server: Server) -> AsyncIterator[RedisJobRepository]:
    """An open repository on the emptied server; its projections must agree with its streams in the end."""
    async with RedisJobRepository.from_url(valkey.url) as opened:
        yield opened
        assert await opened.verify() == []


@pytest.fixture
def keys() -> Keys:
    return Keys("ci")
