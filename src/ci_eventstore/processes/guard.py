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
from types import TracebackType
from typing import Self

from ci_eventstore.processes.command import until_ended
from ci_eventstore.processes.finishing import finish

#: Signals for the group are not for the guard.
SCRIPT = "trap '' HUP INT QUIT TERM TSTP USR1 USR2; echo; read -r line; kill -9 0"


class GuardedGroup:
    """A process group that ends with the `with` statement, or with this process."""

    def __init__(self) -> None:
        self._guard: Process | None = None

    @property
    def number(self) -> int:
        """The group's number, which is the guard's process id."""
        assert self._guard is not None
        return self._guard.pid

    async def __aenter__(self) -> Self:
        """Start the guard; OSError. Cancelled meanwhile, it leaves nothing."""
        try:
            await finish(self._start())
            assert self._guard is not None
            assert self._guard.stdout is not None
            # It ignores signals from now on.
            await self._guard.stdout.readline()
        except BaseException:
            await finish(self._end())
            raise
        return self

    async def _start(self) -> None:
        # It needs no variables, and shows none to those who look for them.
        self._guard = await asyncio.create_subprocess_exec(
            "/bin/sh", "-c", SCRIPT, stdin=PIPE, stdout=PIPE, stderr=DEVNULL, process_group=0, env={}
        )

    async def _end(self) -> None:
        if self._guard is not None:
            self.kill()
            await self._guard.wait()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Kill what is left of the group."""
        await finish(self._end())

    def kill(self) -> None:
        """Kill all processes of the group at once."""
        self._signal(signal.SIGKILL)

    async def stop(self, grace_seconds: float) -> None:
        """Ask the group to end; return when all of it has, or the time is over."""
        self._signal(signal.SIGTERM)
        # A process that was stopped, as by Ctrl-Z, would never see it.
        self._signal(signal.SIGCONT)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace_seconds):
                await until_ended(self.number, besides=self.number)

    def _signal(self, number: signal.Signals) -> None:
        if self._guard is not None and self._guard.returncode is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._guard.pid, number)
