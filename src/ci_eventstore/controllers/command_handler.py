"""`CommandHandler`: runs a claimed job's command as a process, in a fresh folder with the job's project."""

import asyncio
import os
import threading
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from ci_common.errors import LeaseLostError
from ci_common.models import Outcome
from ci_eventstore.connection.deployments import JOB_VARIABLE
from ci_eventstore.controllers.claimed_job import ClaimedJob
from ci_eventstore.controllers.durations import format_duration
from ci_eventstore.controllers.machine import machine_error, raise_machine_error
from ci_eventstore.controllers.project import unpack
from ci_eventstore.controllers.work_folder import WorkFolder, remove
from ci_eventstore.errors import LogNotStoredError, MachineError, ProjectError
from ci_eventstore.processes.command import Command, Place
from ci_eventstore.processes.environment import without_own
from ci_eventstore.processes.finishing import finish
from ci_eventstore.processes.guard import GuardedGroup
from ci_eventstore.processes.last_output import STOPPED_SECONDS, Cut, Holder, cut_line, find_holders, wait_for_rest
from ci_eventstore.writer.mask_lines import MaskLines

#: How long a command that was asked to stop may take.
STOP_SECONDS = 10.0
#: How long the store is waited for in a hurry.
STORE_SECONDS = 5.0


class CommandHandler:
    """Runs jobs' commands, for `Controller.run`.

        with WorkFolder() as folder:
            await controller.run(CommandHandler(folder))

    A command's whole process group is stopped when its job is cancelled, lost or given back, and when its time is over;
    killed when it doesn't end, when the command has left something behind, and when this process is gone. MachineError
    is raised where this machine is at fault, and not the job.
    """

    def __init__(
        self,
        folder: WorkFolder,
        *,
        time_limit_seconds: float | None = None,
        environment: Mapping[str, str] | None = None,
        tell: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Run commands below a folder, each for at most that long; `tell` is told of beginnings and ends.

        Commands get the variables of `environment`, by default those of this process but for what begins with
        CI_EVENTSTORE_: no command is to know the store's password.
        """
        self._folder = folder
        self._environment = dict(without_own(os.environ) if environment is None else environment)
        self._time_limit_seconds = time_limit_seconds
        self._tell = tell
        self._stop_seconds = STOP_SECONDS
        self._running: dict[GuardedGroup, ClaimedJob] = {}
        self._pumps: set[_Pump] = set()

    def hurry(self) -> None:
        """Kill what runs, and whatever is yet to be stopped, without asking it first."""
        self._stop_seconds = 0.0
        for group, claimed in self._running.items():
            if not claimed.is_over:
                claimed.log.hurry(STORE_SECONDS)
            group.kill()
        for pump in self._pumps:
            pump.wait_no_longer()

    async def __call__(self, claimed: ClaimedJob) -> bool:
        """Run one job, and return whether its command succeeded."""
        job_id, how = claimed.job.id, "it can't be run"
        attempt = f", attempt {claimed.attempts}" if claimed.attempts > 1 else ""
        self._tell(f"job {job_id} started{attempt}")
        try:
            outcome = await self._run(claimed)
            claimed.outcome = outcome
            how = "" if outcome.is_success else str(outcome)
            if how:
                await claimed.write(f"[{how}]\n")
        except _FailedError as failure:
            how = str(failure)
            await claimed.fail(how)
        except MachineError as error:
            how = str(error)
            raise
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

    async def _run(self, claimed: ClaimedJob) -> Outcome:
        """Run the command, and return how it ended."""
        if not claimed.job.command:
            raise _FailedError("the job has no command")
        async with self._new_folder() as folder:
            if claimed.job.zip_file_path is not None:
                await _unpack(Path(claimed.job.zip_file_path), folder)
            async with self._new_group() as group:
                self._running[group] = claimed
                try:
                    return Outcome.of(await self._execute(claimed, claimed.job.command, folder, group))
                finally:
                    del self._running[group]

    @asynccontextmanager
    async def _new_folder(self) -> AsyncGenerator[Path, None]:
        try:
            folder = self._folder.new()
        except OSError as error:
            raise machine_error("no folder can be made for a job", error) from error
        try:
            yield folder
        finally:
            await finish(asyncio.to_thread(remove, folder))

    @asynccontextmanager
    async def _new_group(self) -> AsyncGenerator[GuardedGroup, None]:
        group = GuardedGroup()
        try:
            await group.__aenter__()
        except OSError as error:
            raise machine_error("no process can be started for a job", error) from error
        try:
            yield group
        finally:
            await group.__aexit__(None, None, None)

    async def _execute(self, claimed: ClaimedJob, words: Sequence[str], folder: Path, group: GuardedGroup) -> int:
        command = await self._start(claimed, words, folder, group)
        pump = _Pump(command, claimed)
        self._pumps.add(pump)
        try:
            if not await pump.is_over_within(self._time_limit_seconds):
                limit = format_duration(self._time_limit_seconds or 0)
                raise _FailedError(f"stopped after {limit}, its time limit")
            pump.is_to_wait = True
        finally:
            try:
                await finish(self._stop(command, group, pump), pump.wait_no_longer)
            finally:
                self._pumps.discard(pump)
        pump.raise_failure()
        return await command.wait()

    async def _start(self, claimed: ClaimedJob, words: Sequence[str], folder: Path, group: GuardedGroup) -> Command:
        environment = {**self._environment, "PWD": str(folder), JOB_VARIABLE: claimed.job.id}
        place = Place(folder=folder, environment=environment, group=group.number)
        try:
            return await Command.start(words, place=place)
        except OSError as error:
            what = f"{words[0]!r} can't be started"
            raise_machine_error(f"{what} here", error)
            if error.filename == str(folder):
                raise machine_error(f"{what} here, its folder is gone", error) from error
            raise _FailedError(f"{what}: {error.strerror}") from None
        except ValueError as error:
            raise _FailedError(f"{words[0]!r} can't be started: {error}") from None

    async def _stop(self, command: Command, group: GuardedGroup, pump: "_Pump") -> None:
        """Stop what still runs, and take what it has printed."""
        if not command.has_ended:
            await group.stop(self._stop_seconds)
        await pump.finish(group)


class _FailedError(Exception):
    """Raised with what the log says of why a command couldn't run, or not to its end."""


class _Pump:
    """Carries what a command prints into its job's log."""

    def __init__(self, command: Command, claimed: ClaimedJob) -> None:
        self._command = command
        self._claimed = claimed
        self._ends_a_line = True
        #: Whether the command has ended by itself, so that what it has left behind may print more.
        self.is_to_wait = False
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
        """Take what is still printed, and end the group and the output; what is cut off is said in the log."""
        output, holders = self._command.output, list[Holder]()
        cut = await wait_for_rest(output, self._carrying, was_stopped=not self.is_to_wait)
        if cut is not None:
            holders = await asyncio.to_thread(find_holders, output)
        group.kill()
        await asyncio.wait({self._carrying}, timeout=STOPPED_SECONDS)
        output.stop_waiting()
        await asyncio.wait({self._carrying, self._ended})
        output.close()
        if self._carrying.exception() is None and not self._claimed.lost.is_set():
            await self._end_log(cut, group.number, holders)

    def raise_failure(self) -> None:
        """Raise what has kept output from being carried on; of a log that isn't stored the job's end tells."""
        error = self._carrying.exception()
        if error is not None and not isinstance(error, LogNotStoredError):
            raise error

    def wait_no_longer(self) -> None:
        """Take what is printed by now, as the job is to end."""
        self._command.output.stop_waiting()

    async def _end_log(self, cut: Cut | None, group: int, holders: Sequence[Holder]) -> None:
        """End the line that is open, and say what was cut off."""
        if not self._ends_a_line:
            await self._claimed.write("\n")
        if cut is not None and (holders or self._command.output.was_cut_off):
            killed = [holder for holder in holders if holder.group == group]
            await self._claimed.write(cut_line(cut, killed, [other for other in holders if other not in killed]))

    async def _carry(self) -> None:
        lines = MaskLines(self._add_secret)
        while piece := await self._command.output.read():
            await self._write(lines.take(piece))
        await self._write(lines.finish())

    def _add_secret(self, secret: str) -> None:
        self._claimed.log.add_secret(secret)

    async def _write(self, piece: bytes) -> None:
        if piece:
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
        await finish(asyncio.wait({unpacking}))
        unpacking.exception()
        raise
