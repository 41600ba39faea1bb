"""A primary with replicas that Sentinels watch, and failovers that they carry out."""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Literal

from redis import ResponseError

from tests.deployments.members import FINDERS, Member, launch_all, remove_all
from tests.servers import wait_until

#: By this the Sentinels know the primary.
NAME = "ci"
PATIENCE_SECONDS = 90.0
#: Sentinels look more often than they do elsewhere, and a busy machine doesn't make them give up for half a minute.
TIMES = {
    "info-period": 500,
    "ping-period": 200,
    "ask-period": 200,
    "publish-period": 500,
    "tilt-trigger": 60_000,
    "slave-reconf-timeout": 3_000,
    "min-link-reconnect-period": 1_000,
}


class Watched:
    """A primary, its replicas and the Sentinels, and what an operator does with them."""

    def __init__(self, binary: Path, replicas: int, sentinels: int, down_after_ms: int, *configuration: str) -> None:
        #: The primary of the beginning first; each of them may be it later.
        self.servers = [Member(binary, *configuration) for _ in range(1 + replicas)]
        self.sentinels = [Member(binary) for _ in range(sentinels)]
        self._down_after_ms = down_after_ms

    @property
    def url(self) -> str:
        """Names all Sentinels."""
        return f"redis+sentinel://{','.join(one.address for one in self.sentinels)}/{NAME}"

    @property
    def primary(self) -> Member:
        """The server that most Sentinels call the primary."""
        named = [self._named_by(sentinel) for sentinel in self.sentinels if sentinel.is_up]
        port = max(named, key=named.count)
        return next(server for server in self.servers if server.port == port)

    @property
    def replicas(self) -> list[Member]:
        """The other servers."""
        primary = self.primary
        return [server for server in self.servers if server is not primary]

    def start(self) -> None:
        """Start all, and wait until the Sentinels know all servers and each other."""
        launch_all(self.servers)
        for server in self.servers[1:]:
            server.ask("REPLICAOF", "127.0.0.1", self.servers[0].port)
        wait_until(lambda: all(map(_is_linked, self.servers)), "replicas that are linked", PATIENCE_SECONDS)
        self._launch_sentinels()
        self._wait_ready()

    async def wait_ready(self) -> None:
        """Wait until all that are up agree on the primary, and every replica that is up is linked to it."""
        await asyncio.to_thread(self._wait_ready)

    async def fail_over(self) -> Member:
        """Let the Sentinels choose another primary, or wait until they have if it is down; return the new one."""
        return await asyncio.to_thread(self._fail_over)

    async def restart_all(self) -> None:
        """Kill all servers at once, but not the Sentinels, start them again and wait until they are in step."""
        for server in self.servers:
            server.kill()
        await asyncio.to_thread(self.start_again)

    def start_again(self) -> None:
        """Start all servers, which were killed, and wait until they are in step."""
        primary = self.primary
        for server in self.servers:
            others = [line for line in server.configuration if not line.startswith("replicaof ")]
            # As the Sentinels have had them write it down themselves.
            its = [] if server is primary else [f"replicaof 127.0.0.1 {primary.port}"]
            server.configuration = [*others, *its]
        launch_all(self.servers)
        self._wait_ready()

    def _launch_sentinels(self) -> None:
        ids = {sentinel: secrets.token_hex(20) for sentinel in self.sentinels}
        for sentinel in self.sentinels:
            sentinel.arguments = ["--sentinel"]
            # What is said here of others, it would find out within ten seconds.
            sentinel.configuration = [
                f"sentinel myid {ids[sentinel]}",
                f"sentinel monitor {NAME} 127.0.0.1 {self.servers[0].port} {len(ids) // 2 + 1}",
                f"sentinel down-after-milliseconds {NAME} {self._down_after_ms}",
                f"sentinel failover-timeout {NAME} 3000",
                f"sentinel parallel-syncs {NAME} {len(self.servers)}",
                *(f"sentinel known-replica {NAME} 127.0.0.1 {server.port}" for server in self.servers[1:]),
                *(
                    f"sentinel known-sentinel {NAME} 127.0.0.1 {other.port} {ids[other]}"
                    for other in self.sentinels
                    if other is not sentinel
                ),
            ]
        launch_all(self.sentinels)
        for sentinel in self.sentinels:
            for name, milliseconds in TIMES.items():
                sentinel.ask("SENTINEL", "DEBUG", name, milliseconds)

    def _named_by(self, sentinel: Member) -> int:
        """Return the port of the primary that a Sentinel names."""
        _, port = sentinel.ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", NAME)
        return int(port)

    def _wait_ready(self) -> None:
        wait_until(self._is_ready, "Sentinels that agree", PATIENCE_SECONDS)

    def _is_ready(self) -> bool:
        up = [sentinel for sentinel in self.sentinels if sentinel.is_up]
        others = [server for server in self.replicas if server.is_up]
        return (
            self.primary.is_up
            and len({self._named_by(sentinel) for sentinel in up}) == 1
            and self._has_all_written(len(others))
            and all(map(_is_linked, others))
            and all(_is_healthy(sentinel, len(self.servers)) for sentinel in up)
        )

    def _has_all_written(self, replicas: int) -> bool:
        """Tell whether that many replicas have all that the primary has: one that was just linked may have nothing."""
        primary = self.primary
        # It goes to replicas as a write does, and leaves no key.
        primary.ask("PUBLISH", "touch", "1")
        return bool(primary.ask("WAIT", replicas, 200) >= replicas)

    def _fail_over(self) -> Member:
        before, deadline = self.primary, time.monotonic() + PATIENCE_SECONDS
        while not self._all_name_another(before):
            if time.monotonic() > deadline:
                raise TimeoutError(f"no other primary:\n{self.sentinels[0].log[-3000:]}")
            if before.is_up:
                # Refused as long as the last failover goes on; and one that has begun may be given up.
                with suppress(ResponseError):
                    self.sentinels[0].ask("SENTINEL", "FAILOVER", NAME)
            with suppress(TimeoutError):
                wait_until(lambda: self._all_name_another(before), "another primary", 5)
        return self.primary

    def _all_name_another(self, before: Member) -> bool:
        ports = {self._named_by(sentinel) for sentinel in self.sentinels if sentinel.is_up}
        return len(ports) == 1 and before.port not in ports and _has_role(self.primary, "master")


def _has_role(server: Member, role: str) -> bool:
    return bool(server.info("replication")["role"] == role)


def _is_linked(server: Member) -> bool:
    return bool(server.info("replication").get("master_link_status", "up") == "up")


def _is_healthy(sentinel: Member, servers: int) -> bool:
    """Tell whether a Sentinel knows the primary as healthy, and all its replicas."""
    [words] = sentinel.ask("SENTINEL", "MASTERS")
    known = words if isinstance(words, dict) else dict(zip(words[::2], words[1::2], strict=True))
    return known["flags"] == "master" and int(known["num-slaves"]) == servers - 1


@contextmanager
def running_sentinels(
    replicas: int = 2,
    sentinels: int = 3,
    binary: Literal["redis", "valkey"] = "valkey",
    down_after_ms: int = 5_000,
    configuration: Sequence[str] = (),
) -> Iterator[Watched]:
    """Start servers and Sentinels, for a fixture that isn't a coroutine; all of it is gone in the end.

    `down_after_ms` is how long a server may be silent; on a busy machine one may be so for a second.
    """
    watched = Watched(FINDERS[binary](), replicas, sentinels, down_after_ms, *configuration)
    try:
        watched.start()
        yield watched
    finally:
        remove_all([*watched.sentinels, *watched.servers])


@asynccontextmanager
async def sentinel_of(
    replicas: int = 2,
    sentinels: int = 3,
    binary: Literal["redis", "valkey"] = "valkey",
    down_after_ms: int = 5_000,
    configuration: Sequence[str] = (),
) -> AsyncIterator[Watched]:
    """Start servers and Sentinels, as `running_sentinels` does."""
    opened = running_sentinels(replicas, sentinels, binary, down_after_ms, configuration)
    watched = await asyncio.to_thread(opened.__enter__)
    try:
        yield watched
    finally:
        opened.__exit__(None, None, None)
