"""`CommandHandler`: runs a claimed job's command as a process, in a fresh folder with the job's project."""

import asyncio
import os
import signal
import threading
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from ci_common.errors import LeaseLostError
from ci_eventstore.controllers.claimed_job import ClaimedJob
from ci_eventstore.controllers.durations import format_duration
from ci_eventstore.controllers.project import unpack
from ci_eventstore.controllers.work_folder import WorkFolder, remove
from ci_eventstore.errors import LogNotStoredError, ProjectError
from ci_eventstore.processes.command import Command, Place
from ci_eventstore.processes.guard import GuardedGroup

#: How long a command that was asked to stop may take.
STOP_SECONDS = 10.0
#: How long output is waited for that something else than the command itself may still print.
LAST_OUTPUT_SECONDS = 2.0
#: How long the store is waited for in a hurry.
STORE_SECONDS = 5.0
#: Tells the command which job it is.
JOB_VARIABLE = "CI_EVENTSTORE_JOB_ID"


class CommandHandler:
    """Runs jobs' commands, for `Controller.run`.

        with WorkFolder() as folder:
            await controller.run(CommandHandler(folder))

    A command's whole process group is stopped when its job is cancelled, lost or given back, and when its time is over;
    killed when it doesn't end, when the command has left something behind, and when this process is gone.
    """

    def __init__(
        self,
        folder: WorkFolder,
        *,
        time_limit_seconds: float | None = None,
        tell: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Run commands below a folder, each for so long at most; `tell` is told of beginnings and ends."""
        self._folder = folder
        self._time_limit_seconds = time_limit_seconds
        self._tell = tell
        self._stop_seconds = STOP_SECONDS
        self._running: dict[GuardedGroup, ClaimedJob] = {}

    def hurry(self) -> None:
        """Kill what runs, and whatever is yet to be stopped, without asking it first."""
        self._stop_seconds = 0.0
        for group, claimed in self._running.items():
            claimed.log.hurry(STORE_SECONDS)
            group.kill()

    async def __call__(self, claimed: ClaimedJob) -> bool:
        """Run one job, and return whether its command succeeded."""
        job_id, how = claimed.job.id, "it can't be run"
        attempt = f", attempt {claimed.attempts}" if claimed.attempts > 1 else ""
        self._tell(f"job {job_id} started{attempt}")
        try:
            how = await self._run(claimed)
            if how:
                await claimed.write(f"[{how}]\n")
        except _FailedError as failure:
            how = str(failure)
            await claimed.fail(how)
        except asyncio.CancelledError:
            how = "cancelled" if claimed.cancelled.is_set() else "lost" if claimed.lost.is_set() else "given back"
            raise
        except LogNotStoredError as error:
            how = "its log can't be stored"
            if isinstance(error.__cause__, LeaseLostError):
                how = "lost"
                raise error.__cause__ from error
            raise
        finally:
            self._tell(f"job {job_id} ended: {how or 'success'}")
        return not how

    async def _run(self, claimed: ClaimedJob) -> str:
        """Run the command, and return how it ended; nothing if it succeeded."""
        if not claimed.job.command:
            raise _FailedError("the job has no command")
        async with self._new_folder() as folder:
            if claimed.job.zip_file_path is not None:
                await _unpack(Path(claimed.job.zip_file_path), folder)
            async with GuardedGroup() as group:
                self._running[group] = claimed
                try:
                    return _meaning(await self._execute(claimed, claimed.job.command, folder, group))
                finally:
                    del self._running[group]

    @asynccontextmanager
    async def _new_folder(self) -> AsyncGenerator[Path, None]:
        folder = self._folder.new()
        try:
            yield folder
        finally:
            await asyncio.to_thread(remove, folder)

    async def _execute(self, claimed: ClaimedJob, words: Sequence[str], folder: Path, group: GuardedGroup) -> int:
        environment = {**os.environ, "PWD": str(folder), JOB_VARIABLE: claimed.job.id}
        try:
            place = Place(folder=folder, environment=environment, group=group.number)
            command = await Command.start(words, place=place)
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            raise _FailedError(f"{words[0]!r} can't be started: {reason}") from None
        pump = _Pump(command, claimed)
        try:
            if not await pump.is_over_within(self._time_limit_seconds):
                limit = format_duration(self._time_limit_seconds or 0)
                raise _FailedError(f"stopped after {limit}, its time limit")
        finally:
            if not command.has_ended:
                await group.stop(self._stop_seconds)
            await pump.finish(group)
        return await command.wait()


class _FailedError(Exception):
    """Raised with what the log says of why a command couldn't run, or not to its end."""


class _Pump:
    """Carries what a command prints into its job's log."""

    def __init__(self, command: Command, claimed: ClaimedJob) -> None:
        self._command = command
        self._claimed = claimed
        self._ends_a_line = True
        self._ended = asyncio.create_task(command.wait())
        self._carrying = asyncio.create_task(self._carry())

    async def is_over_within(self, seconds: float | None) -> bool:
        """Wait until the command has ended, or its log can't be stored: then LogNotStoredError."""
        started = asyncio.get_running_loop().time()
        await asyncio.wait({self._ended, self._carrying}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if self._carrying.done():
            self._carrying.result()
            # It has closed its output, and may go on.
            left = None if seconds is None else started + seconds - asyncio.get_running_loop().time()
            await asyncio.wait({self._ended}, timeout=left if left is None else max(left, 0))
        return self._ended.done()

    async def finish(self, group: GuardedGroup) -> None:
        """Take what was printed until now, and end the group and the output."""
        if self._command.has_ended:
            await asyncio.wait({self._carrying}, timeout=LAST_OUTPUT_SECONDS)
        group.kill()
        await asyncio.wait({self._carrying}, timeout=LAST_OUTPUT_SECONDS)
        self._command.output.stop_waiting()
        await asyncio.wait({self._carrying, self._ended})
        self._command.output.close()
        if self._carrying.exception() is None and not self._ends_a_line and not self._claimed.lost.is_set():
            await self._claimed.write("\n")

    async def _carry(self) -> None:
        while piece := await self._command.output.read():
            self._ends_a_line = piece.endswith(b"\n")
            await self._claimed.write(piece)


async def _unpack(path: Path, folder: Path) -> None:
    """Unpack a project in a thread, which ends when this is cancelled."""
    stopping = threading.Event()
    unpacking = asyncio.ensure_future(asyncio.to_thread(unpack, path, folder, stopping.is_set))
    try:
        await asyncio.shield(unpacking)
    except ProjectError as error:
        raise _FailedError(str(error)) from None
    except asyncio.CancelledError:
        stopping.set()
        await asyncio.wait({unpacking})
        unpacking.exception()
        raise


def _meaning(code: int) -> str:
    """Say how a process ended; nothing if it succeeded."""
    if code < 0:
        return (
            f"killed by {signal.Signals(-code).name}" if -code in set(signal.Signals) else f"killed by signal {-code}"
        )
    return f"exit code {code}" if code else ""
