"""Start the program without its imports, which take longer than most calls of it: as a fork of one that has done them.

The new process has its own environment, arguments, files and number, and ends as any other; it is in a session of its
own. What only a program that was really started has isn't there: what the system shows of its start (`/proc/*/environ`
and `cmdline`), and settings that Python reads at its own. In CI every process is really started.
"""

import ctypes
import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

PATIENCE_SECONDS = 60.0
#: Beginnings of the names of what Python reads when it starts.
READ_AT_START = ("PYTHON", "LC_", "LANG")
_PR_SET_CHILD_SUBREAPER = 36


class WarmProgram:
    """A process that has imported the program, and is asked to fork."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment

    def __enter__(self) -> Self:
        """Start it."""
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.settimeout(PATIENCE_SECONDS)
        with theirs:
            program = [sys.executable, str(Path(__file__).with_name("warm_program.py")), str(theirs.fileno())]
            self._process = subprocess.Popen(
                program,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                pass_fds=[theirs.fileno()],
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End it; what it was forked for goes on."""
        self._socket.close()
        self._process.wait(PATIENCE_SECONDS)

    def suits(self, environment: Mapping[str, str]) -> bool:
        """Return whether a process that is started with this environment would be as one that was forked."""
        return _read_at_start(environment) == _read_at_start(self._environment)

    def fork(self, command: Sequence[str], environment: Mapping[str, str], streams: Sequence[int]) -> int:
        """Return the number of a new process, a child of this one, that runs the program."""
        with tempfile.TemporaryFile() as call, _adopting_orphans():
            call.write(json.dumps([command, dict(environment), os.getcwd()]).encode())
            call.seek(0)
            socket.send_fds(self._socket, [b"?"], [*streams, call.fileno()])
            return int(self._socket.recv(16))


class WarmProcess(subprocess.Popen[bytes]):
    """A process that is forked where others are started; whatever comes after its start is as theirs."""

    def __init__(self, program: WarmProgram, command: Sequence[str], **options: Any) -> None:
        self._program = program
        super().__init__(command, **options)

    # Python's own, private method makes pipes before it and all else after it.
    def _execute_child(self, args: Sequence[str], *details: Any) -> None:
        environment, pipes = details[5], details[9:15]
        stdin, _, _, stdout, _, stderr = pipes
        try:
            self.pid = self._program.fork(args, environment, [stdin, stdout, stderr])
            self._child_created = True
        finally:
            self._close_pipe_fds(*pipes)  # type: ignore[attr-defined]


@contextmanager
def _adopting_orphans() -> Iterator[None]:
    """Be the parent of processes among this one's descendants that lose theirs meanwhile."""
    prctl = ctypes.CDLL(None).prctl
    prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        yield
    finally:
        prctl(_PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


def _read_at_start(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name.startswith(READ_AT_START)}
