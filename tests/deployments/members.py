"""Servers that are one of several: they start together, on ports that stay theirs, and may be killed and paused."""

import random
import socket
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from redis import Redis

from tests.servers import RealServer, find_redis7, find_valkey

#: Those of outgoing connections begin above, so nobody takes the port of a server that is down for a while.
PORTS = range(11_000, 32_000)
#: By the names that tests use.
FINDERS = {"redis": find_redis7, "valkey": find_valkey}
#: What little servers need.
SMALL = ("repl-backlog-size 1mb", "repl-diskless-sync-delay 0", "repl-diskless-load swapdb", "aof-use-rdb-preamble yes")
TRIES = 5


def spare_port() -> int:
    """Return a port that nobody listens on."""
    while True:
        port = random.SystemRandom().choice(PORTS)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


class Member(RealServer):
    """A server with a port of its own; an operator's commands go over its Unix socket."""

    def __init__(self, binary: Path, *configuration: str) -> None:
        super().__init__(binary, *SMALL, *configuration)
        self.port = spare_port()
        #: Whether it stands still.
        self.is_paused = False
        self._operator = Redis(unix_socket_path=str(self.socket_path), socket_timeout=10, decode_responses=True)

    @property
    def is_up(self) -> bool:
        """Whether it answers: it was neither killed nor paused."""
        return self.is_running and not self.is_paused

    @property
    def address(self) -> str:
        """Host and port, as URLs have them."""
        return f"127.0.0.1:{self.port}"

    def move_to_other_ports(self) -> None:
        """Choose again: the port was taken after all."""
        self.port = spare_port()

    def kill(self) -> None:
        """End the process at once; what it has on disk stays."""
        super().kill()
        self.is_paused = False
        self._operator.close()

    def stop(self) -> None:
        """End the process as an operator would, also if it stands still."""
        if self.is_paused:
            self.resume()
        super().stop()
        self._operator.close()

    def pause(self) -> None:
        """Let it stand still, as a machine that is cut off does for all others."""
        super().suspend()
        self.is_paused = True

    def resume(self) -> None:
        """Let it go on with what it knew."""
        super().resume()
        self.is_paused = False

    def ask(self, *command: str | int) -> Any:
        """Send an operator's command; redis-py's errors fly."""
        return self._operator.execute_command(*command)

    def info(self, section: str) -> dict[str, Any]:
        """Return a section of what the server says of itself."""
        found: dict[str, Any] = self._operator.info(section)
        return found


def launch_all(members: Sequence[Member]) -> None:
    """Start new servers at once; one whose port was taken in the meantime gets another."""
    for member in members:
        member.launch()
    for member in members:
        for _ in range(TRIES):
            try:
                member.await_answer()
                break
            except RuntimeError:
                if "ddress already in use" not in member.log:
                    raise
                member.move_to_other_ports()
                member.launch()


def remove_all(members: Iterable[Member]) -> None:
    """Kill them, and leave nothing behind."""
    for member in members:
        member.remove()
