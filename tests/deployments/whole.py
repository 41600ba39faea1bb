"""Deployments whose servers all stand still or die at once, which loses nothing: what the suites' chaos breaks.

That a single server dies, and another one takes its place, is a fault of `breaking`.
"""

import asyncio
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ci_eventstore.repository import RedisJobRepository
from tests.deployments.cluster import running_cluster
from tests.deployments.homes import ClusterHome, EmbeddedHome, Home, SentinelHome, TLSHome, open_embedded
from tests.deployments.sentinel import running_sentinels
from tests.deployments.tls import running_tls_server
from tests.fault_proxy import FaultProxy
from tests.integration.embedded import processes
from tests.servers import RealServer

#: What was acknowledged is on disk.
ON_DISK = ("appendfsync always",)
#: Nobody takes over from servers that stand still together, for as long as a test lets them.
PATIENT_MS = 60_000


class Whole:
    """A deployment that tests break as they break the one server of the fixture `own`."""

    def __init__(self, home: Home, members: Sequence[RealServer], start: Callable[[], None]) -> None:
        self._home = home
        self._members = members
        #: Starts all servers that were killed, and waits until they serve everything.
        self.start = start

    #: Whether it is away, once it was killed, until it is started.
    stays_away = True

    @property
    def url(self) -> str:
        """Where a store is opened."""
        return self._home.url

    @property
    def socket_path(self) -> Path:
        """The Unix socket of the server that has the first partition, for an operator."""
        return self._home.socket_path

    def proxy(self) -> FaultProxy:
        """Return a proxy before the deployment, which isn't open yet."""
        return self._home.proxy()

    def kill(self) -> None:
        """Kill all servers."""
        for member in self._members:
            member.kill()

    def suspend(self) -> None:
        """Let all servers stand still."""
        for member in self._members:
            member.suspend()

    def resume(self) -> None:
        """Let them go on."""
        for member in self._members:
            member.resume()


class EmbeddedWhole(Whole):
    """The server of a folder, which whoever misses it starts."""

    stays_away = False

    def __init__(self, home: EmbeddedHome) -> None:
        super().__init__(home, (), home.server.ensure_running)
        self._folder = home.folder

    def kill(self) -> None:
        """Kill the server."""
        for pid in processes.servers_of(self._folder):
            processes.kill(pid)

    def suspend(self) -> None:
        """Let it stand still."""
        for pid in processes.servers_of(self._folder):
            processes.freeze(pid)

    def resume(self) -> None:
        """Let it go on."""
        for pid in processes.servers_of(self._folder):
            os.kill(pid, signal.SIGCONT)


@contextmanager
def open_whole(name: str) -> Iterator[Whole]:
    """Start a deployment other than `server`, with a store of one partition: the tests were written for that."""
    with _OPENED[name]() as whole:
        # Of its own event loop the tests' one needs know nothing.
        with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
            runner.run(_create_store(whole.url))
        yield whole


async def _create_store(url: str) -> None:
    async with RedisJobRepository.from_url(url, partitions=1):
        pass


@contextmanager
def _embedded() -> Iterator[Whole]:
    with open_embedded() as home:
        yield EmbeddedWhole(home)


@contextmanager
def _tls() -> Iterator[Whole]:
    with running_tls_server(configuration=ON_DISK) as server:
        yield Whole(TLSHome(server), [server], server.start)


@contextmanager
def _sentinel() -> Iterator[Whole]:
    # Sentinels go on: they are asked where the primary is while nobody answers there.
    with running_sentinels(down_after_ms=PATIENT_MS, configuration=ON_DISK) as watched:
        yield Whole(SentinelHome(watched), watched.servers, watched.start_again)


@contextmanager
def _redis7_cluster() -> Iterator[Whole]:
    with running_cluster(binary="redis", node_timeout_ms=PATIENT_MS, configuration=ON_DISK) as cluster:
        yield Whole(ClusterHome(cluster), cluster.nodes, cluster.start_again)


@contextmanager
def _valkey9_cluster() -> Iterator[Whole]:
    with running_cluster(binary="valkey", node_timeout_ms=PATIENT_MS, configuration=ON_DISK) as cluster:
        yield Whole(ClusterHome(cluster), cluster.nodes, cluster.start_again)


_OPENED = {
    "embedded": _embedded,
    "tls": _tls,
    "sentinel": _sentinel,
    "cluster-redis7": _redis7_cluster,
    "cluster-valkey9": _valkey9_cluster,
}
