"""The process that keeps one embedded server, and stops it when nobody uses it any more.

It is run as a file, by a bare interpreter, and so imports nothing but the standard library: it lives as long as the
server and is small. Its arguments are the data directory, the descriptor of its locked `server.lock`, the socket, and
the server's command; what it says goes to the server's log.

It doesn't start a server that died again: the next connection does, with a new watchdog. On Linux the server dies with
it; elsewhere a server whose watchdog was killed lives on, and has to be stopped by hand.
"""

import ctypes
import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_SYNC_SECONDS = 1.0
_POLL_SECONDS = 0.01
#: How long a server may take to end by itself.
_STOP_SECONDS = 10.0


def main(arguments: list[str]) -> None:
    """Leave the process that asked for the server, then keep the server until it ends."""
    directory, descriptor, socket, *command = arguments
    if os.fork():
        return
    os.chdir(directory)
    # The starting process may have blocked signals, or ignore the end of children, and the server would inherit that.
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    server = _start(command, int(descriptor))
    ending = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: _end(server, ending))
    threading.Thread(target=_end_after_last_user, args=(server, ending), daemon=True).start()
    threading.Thread(target=_look_after, args=(server, ending, int(descriptor), socket), daemon=True).start()
    _log(f"the server ended ({server.wait()})")
    with suppress(OSError):
        os.unlink(socket)
    with suppress(OSError):
        os.rmdir(os.path.dirname(socket))


def _start(command: list[str], descriptor: int) -> subprocess.Popen[bytes]:
    """Start the server. It holds the lock, too: a process that gets the lock knows that both are dead."""
    # A locale that isn't installed keeps newer servers from starting.
    environment = os.environ | {"LC_ALL": "C"}
    try:
        return subprocess.Popen(
            command,
            env=environment,
            pass_fds=[descriptor],
            preexec_fn=_die_with_parent(),  # noqa: PLW1509 - this process has a single thread yet
        )
    except OSError as error:
        _log(f"{command[0]} can't be run: {error}")
        sys.exit(1)


def _die_with_parent() -> Callable[[], None] | None:
    """Return what a child runs first in order to be killed when this process is; None where that isn't possible."""
    if sys.platform != "linux":
        return None
    control = ctypes.CDLL(None).prctl
    parent = os.getpid()

    def ask() -> None:
        control(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)

    return ask


def _end(server: subprocess.Popen[bytes], ending: threading.Event) -> None:
    ending.set()
    server.terminate()


def _end_after_last_user(server: subprocess.Popen[bytes], ending: threading.Event) -> None:
    """Wait until nobody holds a shared lock. Newcomers wait while this one is held: until this process is gone."""
    try:
        users = os.open("users.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(users, fcntl.LOCK_EX)
    finally:
        _end(server, ending)
    time.sleep(_STOP_SECONDS)
    _log("the server doesn't stop: killing it")
    server.kill()


def _look_after(server: subprocess.Popen[bytes], ending: threading.Event, descriptor: int, socket: str) -> None:
    """Put to disk what the server wrote, every second; end it if it can't be reached, or its folder was deleted."""
    while not (os.path.exists(socket) or ending.wait(_POLL_SECONDS)):
        pass
    while not ending.wait(_SYNC_SECONDS):
        if not os.path.exists(socket) or os.fstat(descriptor).st_nlink == 0:
            _log("the data directory or the socket was deleted: ending the server")
            _end(server, ending)
        try:
            _sync()
        except OSError as error:
            _log(f"the data can't be put to disk ({error}): ending the server")
            _end(server, ending)


def _sync() -> None:
    """Sync the file that the server appends to; the others it syncs itself, when it rewrites them."""
    for path in Path("appendonlydir").glob("*.incr.aof"):
        # A rewrite may delete it at this moment.
        with suppress(FileNotFoundError):
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)


def _log(message: str) -> None:
    with suppress(OSError):
        os.write(2, f"watchdog {os.getpid()}: {message}\n".encode())


if __name__ == "__main__":
    main(sys.argv[1:])
