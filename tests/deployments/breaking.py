"""What may happen to a deployment while a store is in use: each fault, on each kind of deployment."""

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType
from typing import Any, Literal

from redis import Redis
from redis.crc import key_slot

from ci_eventstore.embedded import EmbeddedServer
from tests.deployments.cluster import Cluster, How, Node, running_cluster
from tests.deployments.members import Member
from tests.deployments.sentinel import Watched, running_sentinels
from tests.deployments.tls import running_tls_server
from tests.integration.embedded.processes import servers_of
from tests.servers import RealServer, find_valkey

#: How long a server stands still that nobody replaces.
PAUSE_SECONDS = 2.0
#: Of the partitions, so many move with a fault.
MOVED_PARTITIONS = 8
ONE_SERVER = "one server"
NO_SLOTS = "no slots"


class InapplicableError(Exception):
    """Raised when a deployment can't have a fault; says why, in a word or two."""


class Site:
    """A deployment that may be broken; it is whole again when a fault has returned."""

    #: How writes have to be acknowledged so that no fault loses one.
    durability: Literal["server", "replicated"] = "server"
    url: str
    #: By this documents know it.
    name = ""
    #: Of the store that is in use.
    prefix = "ci"

    async def cut(self) -> None:
        """Cut all connections."""
        raise NotImplementedError

    async def kill(self) -> None:
        """Kill a primary; it comes back."""
        raise NotImplementedError

    async def pause(self) -> None:
        """Let a primary stand still until it was replaced, if it can be, and go on then."""
        raise NotImplementedError

    async def restart(self) -> None:
        """Kill all servers at once, and start them again."""
        raise NotImplementedError

    async def fail_over(self) -> None:
        """Let another server be the primary."""
        raise InapplicableError(ONE_SERVER)

    async def change_nodes(self) -> None:
        """Add a node, and take it away again."""
        raise InapplicableError(ONE_SERVER)

    async def move_keys(self) -> None:
        """Move partitions to another node and back, key by key."""
        raise InapplicableError(NO_SLOTS)

    async def move_at_once(self) -> None:
        """Move partitions to another node and back, each in one step."""
        raise InapplicableError(NO_SLOTS)


#: By what documents call them.
FAULTS: Mapping[str, Callable[[Any], Awaitable[None]]] = MappingProxyType(
    {
        "connections cut": lambda site: site.cut(),
        "a primary killed": lambda site: site.kill(),
        "a primary paused, and back": lambda site: site.pause(),
        "all servers restarted": lambda site: site.restart(),
        "a failover asked for": lambda site: site.fail_over(),
        "a node added and removed": lambda site: site.change_nodes(),
        "slots moved key by key": lambda site: site.move_keys(),
        "slots moved at once": lambda site: site.move_at_once(),
    }
)


class ServerSite(Site):
    """One server."""

    def __init__(self, server: RealServer) -> None:
        self._server = server
        self.url = server.url

    async def cut(self) -> None:
        with Redis(unix_socket_path=str(self._server.socket_path)) as operator:
            _cut(operator.execute_command)

    async def kill(self) -> None:
        self._server.kill()
        await asyncio.to_thread(self._server.start)

    async def pause(self) -> None:
        self._server.suspend()
        await asyncio.sleep(PAUSE_SECONDS)
        self._server.resume()

    async def restart(self) -> None:
        await asyncio.to_thread(self._server.restart)


class EmbeddedSite(Site):
    """The server of a folder, which starts again when it is missed."""

    def __init__(self, folder: str) -> None:
        self._folder = Path(folder)
        self.url = f"embedded://{folder}"

    async def cut(self) -> None:
        with Redis(unix_socket_path=str(EmbeddedServer(self._folder).socket_path)) as operator:
            _cut(operator.execute_command)

    async def kill(self) -> None:
        self._send(signal.SIGKILL)

    async def pause(self) -> None:
        self._send(signal.SIGSTOP)
        await asyncio.sleep(PAUSE_SECONDS)
        self._send(signal.SIGCONT)

    async def restart(self) -> None:
        self._send(signal.SIGTERM)

    def _send(self, what: signal.Signals) -> None:
        for pid in servers_of(self._folder):
            os.kill(pid, what)


class SentinelSite(Site):
    """A primary with replicas."""

    durability = "replicated"

    def __init__(self, watched: Watched) -> None:
        self.watched = watched
        self.url = watched.url

    async def cut(self) -> None:
        for member in [*self.watched.servers, *self.watched.sentinels]:
            _cut(member.ask)

    async def kill(self) -> None:
        primary = self.watched.primary
        primary.kill()
        await self._replace(primary, primary.restart)

    async def pause(self) -> None:
        primary = self.watched.primary
        primary.pause()
        await self._replace(primary, primary.resume)

    async def restart(self) -> None:
        await self.watched.restart_all()

    async def fail_over(self) -> None:
        await self.watched.fail_over()
        await self.watched.wait_ready()

    async def change_nodes(self) -> None:
        raise InapplicableError("no nodes")

    async def _replace(self, primary: Member, bring_back: Callable[[], None]) -> None:
        await self.watched.fail_over()
        await asyncio.to_thread(bring_back)
        await self.watched.wait_ready()


class ClusterSite(Site):
    """Primaries with a replica each."""

    durability = "replicated"

    def __init__(self, cluster: Cluster, *, moves_at_once: bool) -> None:
        self.cluster = cluster
        self.url = cluster.url
        self._moves_at_once = moves_at_once
        self._faults = 0

    async def cut(self) -> None:
        for node in self.cluster.nodes:
            _cut(node.ask)

    async def kill(self) -> None:
        primary = self._victim()
        primary.kill()
        await self._replace(primary, primary.restart)

    async def pause(self) -> None:
        primary = self._victim()
        primary.pause()
        await self._replace(primary, primary.resume)

    async def restart(self) -> None:
        await self.cluster.restart_all()

    async def fail_over(self) -> None:
        await self.cluster.fail_over(self._victim())
        await self.cluster.wait_ready()

    async def change_nodes(self) -> None:
        added = await self.cluster.add_node()
        replica = await self.cluster.add_node(added)
        await self._move([added] * MOVED_PARTITIONS, "at_once" if self._moves_at_once else "keys")
        await self.cluster.wait_ready()
        await self.cluster.remove_node(added, "at_once" if self._moves_at_once else "keys")
        await self.cluster.remove_node(replica)
        await self.cluster.wait_ready()

    async def move_keys(self) -> None:
        await self._move_to_and_fro("keys")

    async def move_at_once(self) -> None:
        if not self._moves_at_once:
            raise InapplicableError("needs Valkey 9")
        await self._move_to_and_fro("at_once")

    def _victim(self) -> Node:
        """Return a primary; each in turn."""
        self._faults += 1
        return self.cluster.owner_of(self._slots()[self._faults % MOVED_PARTITIONS])

    def _slots(self) -> list[int]:
        return [key_slot(f"{{{self.prefix}:{number}}}".encode()) for number in range(MOVED_PARTITIONS)]

    async def _move_to_and_fro(self, how: How) -> None:
        homes = [self.cluster.owner_of(slot) for slot in self._slots()]
        primaries = self.cluster.primaries()
        await self._move([primaries[(primaries.index(home) + 1) % len(primaries)] for home in homes], how)
        await self._move(homes, how)

    async def _move(self, targets: list[Node], how: How) -> None:
        for slot, target in zip(self._slots(), targets, strict=True):
            await self.cluster.move_slot(slot, target, how)

    async def _replace(self, primary: Node, bring_back: Callable[[], None]) -> None:
        await self.cluster.fail_over(primary)
        await asyncio.to_thread(bring_back)
        await self.cluster.wait_ready()


def _cut(ask: Callable[..., Any]) -> None:
    for kind in ("normal", "pubsub"):
        ask("CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")


@contextmanager
def _server() -> Iterator[Site]:
    with RealServer(find_valkey()) as server:
        yield ServerSite(server)


@contextmanager
def _embedded() -> Iterator[Site]:
    with TemporaryDirectory(prefix="ci-embedded-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        yield EmbeddedSite(folder)


@contextmanager
def _tls() -> Iterator[Site]:
    with running_tls_server() as server:
        yield ServerSite(server)


@contextmanager
def _sentinel() -> Iterator[Site]:
    with running_sentinels(down_after_ms=1000) as watched:
        yield SentinelSite(watched)


@contextmanager
def _redis7_cluster() -> Iterator[Site]:
    with running_cluster(binary="redis") as cluster:
        yield ClusterSite(cluster, moves_at_once=False)


@contextmanager
def _valkey9_cluster() -> Iterator[Site]:
    with running_cluster(binary="valkey") as cluster:
        yield ClusterSite(cluster, moves_at_once=True)


#: By the names that `homes.HOMES` has.
SITES: Mapping[str, Callable[[], AbstractContextManager[Site]]] = MappingProxyType(
    {
        "server": _server,
        "embedded": _embedded,
        "tls": _tls,
        "sentinel": _sentinel,
        "cluster-redis7": _redis7_cluster,
        "cluster-valkey9": _valkey9_cluster,
    }
)
