"""Where a suite's store lives: the option `--deployment` chooses one for the tests that share `home`'s servers."""

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

import pytest
from redis import Redis

from ci_eventstore.embedded import EmbeddedServer
from tests.deployments.cluster import Cluster, running_cluster
from tests.deployments.doors import Doors
from tests.deployments.sentinel import Watched, running_sentinels
from tests.deployments.tls import TLSServer, running_tls_server
from tests.fault_proxy import FIRST_PARTITION, FaultProxy
from tests.servers import RealServer, find_valkey

#: Whether `make test-deployments` runs, which leaves nothing out.
IS_WHOLE = os.environ.get("CI_EVENTSTORE_DEPLOYMENTS") == "all"
#: What little there is to lose is lost with the tests.
IN_MEMORY = ("appendonly no",)


class Home(Protocol):
    """A running deployment, as the tests of a suite need it."""

    @property
    def url(self) -> str:
        """Where a store is opened."""

    @property
    def socket_path(self) -> Path:
        """The Unix socket of the server that has the first partition, for an operator."""

    @property
    def partitions(self) -> int | None:
        """How many a new store gets; None: what is usual."""

    def empty(self) -> None:
        """Forget everything."""

    def proxy(self) -> FaultProxy:
        """Return a proxy before the deployment, which isn't open yet."""


class ServerHome:
    """A server that is reached at its Unix socket too."""

    partitions = None

    def __init__(self, server: RealServer) -> None:
        self.url = server.url
        self.socket_path = server.socket_path

    def empty(self) -> None:
        # To look up its own version takes redis-py longer than all else here.
        with Redis(unix_socket_path=str(self.socket_path), driver_info=None) as operator:
            operator.flushall()

    def proxy(self) -> FaultProxy:
        return FaultProxy(self.socket_path)


class EmbeddedHome(ServerHome):
    """The server of a folder, which this process holds on to."""

    def __init__(self, folder: Path, server: EmbeddedServer) -> None:
        self.folder = folder
        self.server = server
        self.url = f"embedded://{folder}"
        self.socket_path = server.socket_path


class TLSHome(ServerHome):
    """A server that speaks TLS, and so does the proxy before it."""

    def __init__(self, server: TLSServer) -> None:
        super().__init__(server)
        self._server = server

    def proxy(self) -> FaultProxy:
        return Doors([self._server], self.url, self._server.context())


class SentinelHome:
    """The primary that the Sentinels name."""

    partitions = None

    def __init__(self, watched: Watched) -> None:
        self.watched = watched
        self.url = watched.url

    @property
    def socket_path(self) -> Path:
        return self.watched.primary.socket_path

    def empty(self) -> None:
        self.watched.primary.ask("FLUSHALL")

    def proxy(self) -> FaultProxy:
        return Doors([*self.watched.servers, *self.watched.sentinels], self.url)


class ClusterHome:
    """A cluster on which a store has one partition: the tests were written for that."""

    partitions = 1

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.url = cluster.url

    @property
    def socket_path(self) -> Path:
        return self.cluster.owner_of_key(FIRST_PARTITION).socket_path

    def empty(self) -> None:
        for primary in self.cluster.primaries():
            primary.ask("FLUSHALL")

    def proxy(self) -> FaultProxy:
        return Doors(self.cluster.nodes, self.url)


@contextmanager
def _server() -> Iterator[Home]:
    with RealServer(find_valkey(), *IN_MEMORY) as server:
        yield ServerHome(server)


@contextmanager
def open_embedded() -> Iterator[EmbeddedHome]:
    """Start the server of a new folder."""
    with tempfile.TemporaryDirectory(prefix="ci-embedded-", dir="/tmp") as folder:
        server = EmbeddedServer(Path(folder))
        server.ensure_running()
        try:
            yield EmbeddedHome(Path(folder), server)
        finally:
            server.release()


@contextmanager
def _tls() -> Iterator[Home]:
    with running_tls_server(configuration=IN_MEMORY) as server:
        yield TLSHome(server)


@contextmanager
def _sentinel() -> Iterator[Home]:
    with running_sentinels(configuration=IN_MEMORY) as watched:
        yield SentinelHome(watched)


@contextmanager
def _redis7_cluster() -> Iterator[Home]:
    with running_cluster(binary="redis", configuration=IN_MEMORY) as cluster:
        yield ClusterHome(cluster)


@contextmanager
def _valkey9_cluster() -> Iterator[Home]:
    with running_cluster(binary="valkey", configuration=IN_MEMORY) as cluster:
        yield ClusterHome(cluster)


#: By the names that the option and the documents have.
HOMES: Mapping[str, Any] = MappingProxyType(
    {
        "server": _server,
        "embedded": open_embedded,
        "tls": _tls,
        "sentinel": _sentinel,
        "cluster-redis7": _redis7_cluster,
        "cluster-valkey9": _valkey9_cluster,
    }
)


def open_home(name: str) -> AbstractContextManager[Home]:
    """Start a deployment; KeyError."""
    found: AbstractContextManager[Home] = HOMES[name]()
    return found


def pytest_addoption(parser: pytest.Parser) -> None:
    """Have the option."""
    parser.addoption(
        "--deployment", choices=sorted(HOMES), default="server", help="where the shared servers' tests have their store"
    )
