"""Start a watchdog with its server."""

import os
import subprocess
import sys
from pathlib import Path

from ci_eventstore.embedded.file_lock import FileLock
from ci_eventstore.embedded.runtime_folder import default_socket, make_private, record_socket
from ci_eventstore.embedded.server_log import open_log
from ci_eventstore.embedded.server_program import find_server_program, server_command
from ci_eventstore.errors import EmbeddedServerError

_WATCHDOG = Path(__file__).with_name("watchdog.py")
#: The watchdog's first process ends at once.
_DETACH_SECONDS = 30.0


def launch(directory: Path, lock: FileLock) -> int:
    """Start a watchdog that has `lock` as long as it or its server lives; return where its part of the log begins.

    It is a child of nobody here, gets no other open file, and has a session of its own. OSError if a file can't be
    written, EmbeddedServerError if there is no program to start or no safe place for the socket.
    """
    socket = default_socket(directory, os.environ, os.geteuid())
    command = server_command(find_server_program(), socket)
    make_private(socket, os.geteuid())
    record_socket(directory, socket)
    with open_log(directory) as log:
        start = log.tell()
        arguments = [str(_WATCHDOG), str(directory), str(lock.descriptor), str(socket), *command]
        _detach(arguments, lock.descriptor, log.fileno())
    return start


def _detach(arguments: list[str], descriptor: int, log: int) -> None:
    try:
        # Without site packages it starts sooner and stays small; with -I no file of the data directory is imported.
        subprocess.run(
            [sys.executable, "-I", "-S", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=[descriptor],
            start_new_session=True,
            umask=0o077,
            check=True,
            timeout=_DETACH_SECONDS,
        )
    except subprocess.SubprocessError as error:
        raise EmbeddedServerError(f"the embedded server's watchdog can't be started: {error}") from error
