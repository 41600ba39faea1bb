"""A process group for one command, whose processes are killed when the group is ended or this program is gone.

The group is that of a small shell, the guard, which waits for the end of a pipe that this program holds open. However
this program ends, `kill -9` included, the pipe ends with it, and the guard kills its group. The command joins the group
before it begins, so that there is no moment without a guard; and as long as the guard is there, no other group has its
number. What leaves the group, as a daemon does, isn't reached. A group can't be joined from another session, so the
command is in this program's.
"""

import asyncio
import contextlib
import os
import signal
from asyncio.subprocess import DEVNULL, PIPE, Process
from typing import Self

from ci_eventstore.processes.command import until_ended
from ci_eventstore.tasks import finish

#: Signals for the group are not for the guard.
IGNORE_SIGNALS = "trap '' HUP INT QUIT TERM TSTP USR1 USR2; echo; "
SCRIPT = IGNORE_SIGNALS + "read -r line; kill -9 0"
#: The first line is the number of the group.
LEADER_SCRIPT = IGNORE_SIGNALS + 'read -r group || exit; read -r line; kill -s KILL -- "-$group"'


class _Guard:
    """A small shell that waits for the end of the pipe that it reads from, as long as the `with` statement."""

    #: The script that it runs.
    script: str

    def __init__(self) -> None:
        self._process: Process | None = None

    @property
    def number(self) -> int:
        """Its process id, which is the number of its own group, too."""
        assert self._process is not None
        return self._process.pid

    async def __aenter__(self) -> Self:
        """Start it; OSError. Cancelled meanwhile, it leaves nothing."""
        try:
            await finish(self._start())
            assert self._process is not None
            assert self._process.stdout is not None
            # It ignores signals from now on.
            await self._process.stdout.readline()
        except BaseException:
            await self.end()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        """Kill its own group."""
        await self.end()

    async def end(self) -> None:
        """Kill it with its own group, and collect it; it may be called twice."""
        await finish(self._end())

    def _signal(self, number: signal.Signals) -> None:
        """Send a signal to all of its own group."""
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, number)

    async def _start(self) -> None:
        # It needs no variables, and shows none to those who look for them.
        self._process = await asyncio.create_subprocess_exec(
            "/bin/sh", "-c", self.script, stdin=PIPE, stdout=PIPE, stderr=DEVNULL, process_group=0, env={}
        )

    async def _end(self) -> None:
        if self._process is not None:
            self._signal(signal.SIGKILL)
            await self._process.wait()


class GuardedGroup(_Guard):
    """A process group, its guard's own, that ends with the `with` statement, or with this process."""

    script = SCRIPT

    def kill(self) -> None:
        """Kill all processes of the group at once."""
        self._signal(signal.SIGKILL)

    async def stop(self, grace_seconds: float) -> None:
        """Ask the group to end; return when all of it has ended, or the time is over."""
        self._signal(signal.SIGTERM)
        # A process that was stopped, as by Ctrl-Z, would never see it.
        self._signal(signal.SIGCONT)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace_seconds):
                await until_ended(self.number, besides=self.number)


class LeaderGuard(_Guard):
    """Kills the group of a command that leads a session of its own, should this process be gone.

    A guard can't join that group, so the command's process says its number itself, before it becomes the command. The
    guard ends when the command has ended, and leaves the command's group alone: its number may become another group's.
    """

    script = LEADER_SCRIPT

    def announce(self) -> None:
        """Note that the calling process leads the group; the new process calls it."""
        assert self._process is not None
        assert self._process.stdin is not None
        os.write(self._process.stdin.get_extra_info("pipe").fileno(), b"%d\n" % os.getpid())
