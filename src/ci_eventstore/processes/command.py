"""A command as a process, in a process group of its own, with one stream for all it prints."""

import asyncio
import contextlib
import errno
import fcntl
import os
import select
import signal
import sys
import termios
import time
from asyncio.subprocess import DEVNULL, Process
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from ci_eventstore.tasks import finish

#: The prefix of this program's own variables, among them the store's address and password.
OWN_PREFIX = "CI_EVENTSTORE_"


def without_own(
    environment: Mapping[str, str], withheld: Iterable[str] = (), passed: Iterable[str] = ()
) -> dict[str, str]:
    """Return an environment without this program's own variables and those withheld.

    Those that are to be passed on stay, whatever they are.
    """
    kept, hidden = set(passed), set(withheld)
    return {
        name: value
        for name, value in environment.items()
        if name in kept or not (name in hidden or name.startswith(OWN_PREFIX))
    }


READ_BYTES = 64 * 1024
#: The most that is read after the wait is over; more than the kernel keeps for a pipe.
LAST_BYTES = 1024 * 1024
#: A group is checked this often for its end: at first, and after a while.
FIRST_LOOK_SECONDS = 0.02
LAST_LOOK_SECONDS = 0.5


class CommandOutput:
    """The reading end of the pipe or the pseudo-terminal that a command prints to."""

    def __init__(self, descriptor: int, terminal: str | None = None) -> None:
        """Read from one end; the path of a pseudo-terminal's other end is given."""
        os.set_blocking(descriptor, False)
        self.descriptor = descriptor
        #: The other end as the system names it, for processes that have it open.
        self.other_end = terminal or f"pipe:[{os.fstat(descriptor).st_ino}]"
        #: The monotonic time of the last piece read.
        self.read_at = 0.0
        #: Whether it was ended while some process still had the other end open.
        self.was_cut_off = False
        self._readable = asyncio.Event()
        self._bytes_left: int | None = None

    async def read(self) -> bytes:
        """Return the next piece as soon as there is one; nothing at the end.

        The end is there when no process has the other end open, or when no more is waited for.
        """
        while True:
            wanted = READ_BYTES if self._bytes_left is None else min(READ_BYTES, self._bytes_left)
            try:
                piece = os.read(self.descriptor, wanted)
            except BlockingIOError:
                if self._bytes_left is not None:
                    self.was_cut_off = True
                    return b""
                await self._until_readable()
                continue
            except OSError as error:
                # Linux's error when nobody has the terminal open.
                if error.errno == errno.EIO:
                    return b""
                raise
            self.read_at = time.monotonic()
            if self._bytes_left is not None:
                self.was_cut_off = self._bytes_left == 0
                self._bytes_left -= len(piece)
            return piece

    def has_unread(self) -> bool:
        """Tell whether there is something to read, the end included."""
        poll = select.poll()
        poll.register(self.descriptor, select.POLLIN)
        return bool(poll.poll(0))

    def stop_waiting(self) -> None:
        """Let the output end here, even if a process still holds the other end."""
        self._bytes_left = LAST_BYTES
        self._readable.set()

    def close(self) -> None:
        """Close the reading end."""
        os.close(self.descriptor)

    async def _until_readable(self) -> None:
        loop = asyncio.get_running_loop()
        self._readable.clear()
        loop.add_reader(self.descriptor, self._readable.set)
        try:
            await self._readable.wait()
        finally:
            loop.remove_reader(self.descriptor)


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandPlace:
    """Where a command runs: its folder, its variables, and the process group that it joins."""

    folder: Path
    environment: Mapping[str, str]
    group: int


class Command:
    """A running command."""

    def __init__(self, process: Process, output: CommandOutput, *, has_terminal: bool, group: int) -> None:
        self.output = output
        self.has_terminal = has_terminal
        self._process = process
        self._group = group

    @classmethod
    async def start(
        cls,
        arguments: Sequence[str],
        *,
        pty: bool = False,
        place: CommandPlace | None = None,
        announce: Callable[[], None] | None = None,
    ) -> Self:
        """Start a command, its standard output and error together on one pipe or pseudo-terminal; OSError.

        Without a place it runs where this program does, in a session and process group of its own. `announce` is called
        in the new process, before that becomes the command: threads that hold locks may not run then.
        """
        reading, writing = _open_terminal() if pty else os.pipe()
        output = CommandOutput(reading, os.ttyname(writing) if pty else None)
        started: list[Process] = []

        async def start() -> None:
            process = await asyncio.create_subprocess_exec(
                *arguments,
                stdin=None if place is None and _may_read_terminal() else DEVNULL,
                stdout=writing,
                stderr=writing,
                cwd=None if place is None else place.folder,
                env=None if place is None else place.environment,
                start_new_session=place is None,
                process_group=None if place is None else place.group,
                preexec_fn=_preparation(announce, pty=pty),
            )
            started.append(process)

        try:
            await finish(start())
        except BaseException:
            output.close()
            for process in started:
                await finish(_kill(process, None if place is not None else process.pid))
            raise
        finally:
            os.close(writing)
        [process] = started
        return cls(process, output, has_terminal=pty, group=process.pid if place is None else place.group)

    @property
    def has_ended(self) -> bool:
        """Whether the command itself has ended, known to the event loop or not; what it started may still run."""
        return self._process.returncode is not None or _has_ended(self._process.pid)

    async def wait(self) -> int:
        """Wait until the command itself has ended, and return its exit code, or -N if signal N killed it."""
        return await self._process.wait()

    def signal(self, number: int) -> None:
        """Send a signal to all processes of the group."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._group, number)

    def group_is_alive(self) -> bool:
        """Tell whether a process of the group still runs, apart from one that the group is named for and isn't ours."""
        return is_alive(self._group, besides=self._not_ours)

    async def until_group_ended(self, gives_up: Callable[[], bool]) -> None:
        """Return when `group_is_alive` would say no, or when it isn't worth waiting for any more."""
        await until_ended(self._group, self._not_ours, gives_up)

    @property
    def _not_ours(self) -> int | None:
        return None if self._group == self._process.pid else self._group

    def resize(self) -> None:
        """Give the pseudo-terminal the size of the one that standard output is."""
        _copy_size(self.output.descriptor)


async def _kill(process: Process, group: int | None) -> None:
    """Kill a process that nobody waits for, with its group if that is its own, and collect it."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if group is None:
            process.kill()
        else:
            os.killpg(group, signal.SIGKILL)
    await process.wait()


def _has_ended(process_id: int) -> bool:
    """Tell whether a child process has ended, without collecting it."""
    if not hasattr(os, "waitid"):
        return False
    try:
        return os.waitid(os.P_PID, process_id, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return True


def _open_terminal() -> tuple[int, int]:
    """Return both ends of a new pseudo-terminal that passes output on byte for byte."""
    reading, writing = os.openpty()
    attributes = termios.tcgetattr(writing)
    attributes[1] &= ~termios.OPOST
    termios.tcsetattr(writing, termios.TCSANOW, attributes)
    termios.tcsetwinsize(writing, (24, 80))
    _copy_size(writing)
    return reading, writing


def _copy_size(terminal: int) -> None:
    with contextlib.suppress(OSError, termios.error, ValueError):
        termios.tcsetwinsize(terminal, termios.tcgetwinsize(sys.stdout.fileno()))


def _preparation(announce: Callable[[], None] | None, *, pty: bool) -> Callable[[], None] | None:
    """Return the function that runs in a new process before it becomes the command."""
    steps = [step for step in (announce, _control_terminal if pty else None) if step is not None]
    if not steps:
        return None

    def prepare() -> None:
        for step in steps:
            step()

    return prepare


def _control_terminal() -> None:
    """Make standard output the terminal that controls this session; runs in the new process."""
    fcntl.ioctl(1, termios.TIOCSCTTY, 0)


def _may_read_terminal() -> bool:
    """Tell whether a command may have this program's standard input: not if that is a terminal others read from."""
    try:
        return not os.isatty(0) or os.tcgetpgrp(0) == os.getpgrp()
    except OSError:
        return False


def is_alive(group: int, besides: int | None = None) -> bool:
    """Tell whether a process group has more than processes that have ended and nobody has collected.

    `/proc` tells these apart, where it exists; in a container whose first process collects nothing, they stay. One
    process can be left out. A thousand other processes cost about a millisecond.
    """
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    try:
        names = os.listdir("/proc")
    except OSError:
        return True
    process_ids = [int(name) for name in names if name.isdecimal()]
    return not process_ids or any(_runs_in(group, process_id) for process_id in process_ids if process_id != besides)


def _runs_in(group: int, process_id: int) -> bool:
    """Tell whether a process is in a group and hasn't ended."""
    try:
        # A system call is a tenth of the work of reading a file.
        if os.getpgid(process_id) != group:
            return False
        with open(f"/proc/{process_id}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0] not in b"ZX"
    except OSError:
        return False


async def until_ended(group: int, besides: int | None = None, gives_up: Callable[[], bool] = lambda: False) -> None:
    """Return when nothing of a process group runs any more, apart from one process that can be left out.

    The system reports only the end of child processes, so a thread looks for that of others, ever more seldom.
    """
    pause = FIRST_LOOK_SECONDS
    while not gives_up() and await asyncio.to_thread(is_alive, group, besides):
        await asyncio.sleep(pause)
        pause = min(2 * pause, LAST_LOOK_SECONDS)
