"""Start a watchdog with its server."""

import os
import subprocess
import sys
from pathlib import Path

from ci_eventstore.embedded.data_files import refuse_lost_data
from ci_eventstore.embedded.file_lock import FileLock
from ci_eventstore.embedded.runtime_folder import default_socket, make_private, record_socket
from ci_eventstore.embedded.server_log import end_of_log, open_log
from ci_eventstore.embedded.server_program import find_server_program, server_command
from ci_eventstore.errors import EmbeddedServerError

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
