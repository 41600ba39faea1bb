"""Real servers for the store's own tests: one that is emptied before each, and one that a test may break."""

import logging
import os
import random
import subprocess
import sys
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from ci_eventstore import archive as archives
from ci_eventstore.connection import connections, node
from ci_eventstore.connection.deployments import from_url
from ci_eventstore.connection.nodes import Nodes
from ci_eventstore.history import seal as sealing
from ci_eventstore.keys import Keys
from ci_eventstore.repository import RedisJobRepository
from ci_eventstore.segments import segment as segments
from tests.deployments.homes import Home, open_home
from tests.deployments.whole import Whole, open_whole
from tests.fault_proxy import FaultProxy
from tests.http_faults import SECRET, HttpFaultProxy
from tests.integration.store.replicas import Pair, primary_and_replica
from tests.servers import RealServer, find_valkey, wait_until

logger = logging.getLogger("tests.chaos")


@pytest.fixture(scope="session")
def valkey(request: pytest.FixtureRequest) -> Iterator[Home]:
    """What the option `--deployment` chooses, a server unless it is given."""
    with open_home(request.config.getoption("deployment")) as home:
        yield home


@pytest.fixture
async def server(valkey: Home) -> AsyncIterator[Nodes]:
    opened = Nodes(from_url(valkey.url))
    valkey.empty()
    if valkey.partitions is not None:
        async with RedisJobRepository.from_url(valkey.url, partitions=valkey.partitions):
            pass
    yield opened
    await opened.close()


@pytest.fixture
async def repository(valkey: RealServer, server: Nodes) -> AsyncIterator[RedisJobRepository]:
    """An open repository on the emptied server; its projections must agree with its streams in the end."""
    async with RedisJobRepository.from_url(valkey.url) as opened:
        yield opened
        assert await opened.verify() == []


@pytest.fixture
def keys() -> Keys:
    return Keys("ci")


@pytest.fixture
def find_server() -> Callable[[], Path]:
    """How the binary of `own` is found; a module that wants several has `find_server = finding(…)`."""
    return find_valkey


@pytest.fixture
def own(request: pytest.FixtureRequest, find_server: Callable[[], Path]) -> Iterator[RealServer | Whole]:
    """A server that may be stopped and killed, and loses nothing by it; or what the option `--deployment` chooses."""
    name = request.config.getoption("deployment")
    with RealServer(find_server(), "appendfsync always") if name == "server" else open_whole(name) as started:
        yield started


@pytest.fixture
async def pair(find_server: Callable[[], Path]) -> AsyncIterator[Pair]:
    """A primary and its replica, in step."""
    async with primary_and_replica(find_server()) as started:
        yield started


@pytest.fixture
async def proxy(own: RealServer | Whole) -> AsyncIterator[FaultProxy]:
    async with own.proxy() if isinstance(own, Whole) else FaultProxy(own.socket_path) as opened:
        yield opened


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time is short: a fault costs tenths of a second, and calls give up within one."""
    monkeypatch.setitem(connections.PINNED, "socket_timeout", 0.2)
    monkeypatch.setattr(node, "PATIENCE_SECONDS", 0.6)


@pytest.fixture
def seed() -> int:
    """A random number that stands in the log of a test that failed, and may be given by the environment."""
    chosen = int(os.environ.get("CI_EVENTSTORE_SEED") or random.SystemRandom().getrandbits(32))
    logger.warning("CI_EVENTSTORE_SEED=%d", chosen)
    return chosen


@pytest.fixture
def small_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    """Logs of a thousand lines take several blocks and segments."""
    monkeypatch.setattr(segments, "BLOCK_BYTES", 2000)
    monkeypatch.setattr(segments, "SEGMENT_BYTES", 1200)
    monkeypatch.setattr(sealing, "PAGE_BYTES", 2000)
    monkeypatch.setattr(sealing, "JOINED_BYTES", 800)


@pytest.fixture(scope="session")
def moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a server that speaks S3."""
    # A line for each request would fill a pipe that nobody reads.
    output = tmp_path_factory.mktemp("moto") / "output"

    def ports() -> list[int]:
        lines = output.read_text("utf-8").splitlines()
        return [int(line.rpartition(":")[2]) for line in lines if "Running on" in line]

    with output.open("wb") as opened:
        process = subprocess.Popen(
            [sys.executable, "-c", "from moto.server import main; main(['-H', '127.0.0.1', '-p', '0'])"],
            stderr=opened,
            stdout=subprocess.DEVNULL,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
    try:
        wait_until(lambda: bool(ports()), "the port")
        [port] = ports()
        bucket = urllib.request.Request(f"http://127.0.0.1:{port}/logs", method="PUT")
        wait_until(lambda: urllib.request.urlopen(bucket).status == 200, "the bucket")
        yield port
    finally:
        process.kill()
        process.wait()


@pytest.fixture
async def bucket_proxy(moto: int, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[HttpFaultProxy]:
    """A proxy before it, and clients that wait for less long."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "someone")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setattr(archives, "CALL_SECONDS", 1.0)
    async with HttpFaultProxy(moto) as proxy:
        yield proxy
