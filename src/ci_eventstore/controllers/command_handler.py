"""`CommandHandler`: runs a claimed job's command as a process, in a fresh folder with the job's project."""

import asyncio
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

from ci_common.errors import LeaseLostError
from ci_common.models import Outcome
from ci_eventstore.amounts import format_duration
from ci_eventstore.connection.deployments import JOB_VARIABLE
from ci_eventstore.controllers.claimed_job import ClaimedJob
from ci_eventstore.controllers.machine import (
    WorkFolder,
    machine_error,
    raise_machine_error,
    remove_folder,
    this_machine_needs,
)
from ci_eventstore.controllers.project import unpack
from ci_eventstore.errors import LogNotStoredError, MachineError, ProjectError
from ci_eventstore.processes.command import Command, CommandPlace, without_own
from ci_eventstore.processes.guard import GuardedGroup
from ci_eventstore.processes.last_output import STOPPED_SECONDS, Cut, Holder, cut_line, find_holders, wait_for_rest
from ci_eventstore.tasks import finish
from ci_eventstore.writer.mask_lines import MaskLines

#: A command that was asked to stop is killed after this.
STOP_SECONDS = 10.0
#: In a hurry, the store has this long to take the rest of a log.
STORE_SECONDS = 5.0


class CommandHandler:
    """Runs jobs' commands, for `Controller.run`.

        with WorkFolder() as folder:
            await controller.run(CommandHandler(folder))

    A command's whole process group is stopped when its job is cancelled, lost or given back, and when its time is over;
    it is killed if it doesn't end then, if the command left processes behind, and if this process is gone. Raises
    MachineError where this machine is at fault, not the job.
    """

    def __init__(
        self,
        folder: WorkFolder,
        *,
        time_limit_seconds: float | None = None,
        environment: Mapping[str, str] | None = None,
        tell: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Run commands below a folder, each for at most `time_limit_seconds`; report starts and ends to `tell`.

        Commands get the variables of `environment`; by default those of this process, without any that begins with
        CI_EVENTSTORE_, so that no command knows the store's password.
        """
        self._folder = folder
        self._environment = dict(without_own(os.environ) if environment is None else environment)
        self._time_limit_seconds = time_limit_seconds
        self._tell = tell
        self._stop_seconds = STOP_SECONDS
        self._running: dict[GuardedGroup, ClaimedJob] = {}
        self._pumps: set[_Pump] = set()

    def hurry(self) -> None:
        """Kill running commands, and from now on those that are to stop, without asking them first."""
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
        async with AsyncExitStack() as stack:
            with this_machine_needs("no folder can be made for a job"):
                folder = self._folder.new()
            stack.push_async_callback(lambda: finish(asyncio.to_thread(remove_folder, folder)))
            if claimed.job.zip_file_path is not None:
                await _unpack(Path(claimed.job.zip_file_path), folder)
            with this_machine_needs("no process can be started for a job"):
                group = await stack.enter_async_context(GuardedGroup())
            self._running[group] = claimed
            stack.callback(self._running.pop, group)
            return Outcome.of(await self._execute(claimed, claimed.job.command, folder, group))

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
        place = CommandPlace(folder=folder, environment=environment, group=group.number)
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
        """Stop what still runs, and store what it has printed."""
        if not command.has_ended:
            await group.stop(self._stop_seconds)
        await pump.finish(group)


class _FailedError(Exception):
    """Raised with the reason, for the log, why a command couldn't run or was stopped."""


class _Pump:
    """Writes what a command prints to its job's log."""

    def __init__(self, command: Command, claimed: ClaimedJob) -> None:
        self._command = command
        self._claimed = claimed
        self._ends_a_line = True
        #: Whether the command ended by itself; processes that it left running may then print for a while.
        self.is_to_wait = False
        self._ended = asyncio.create_task(command.wait())
        self._carrying = asyncio.create_task(self._carry())

    async def is_over_within(self, seconds: float | None) -> bool:
        """Wait, and return whether the command has ended; LogNotStoredError as soon as its log can't be stored."""
        started = asyncio.get_running_loop().time()
        await asyncio.wait({self._ended, self._carrying}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if self._carrying.done():
            self._carrying.result()
            # The command has closed its output, and may go on.
            left = None if seconds is None else started + seconds - asyncio.get_running_loop().time()
            await asyncio.wait({self._ended}, timeout=left if left is None else max(left, 0))
        return self._ended.done()

    async def finish(self, group: GuardedGroup) -> None:
        """Store the rest of the output, then end the group; the log says what was cut off."""
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
        """Raise the error that kept output from being stored; the job's end reports a LogNotStoredError."""
        error = self._carrying.exception()
        if error is not None and not isinstance(error, LogNotStoredError):
            raise error

    def wait_no_longer(self) -> None:
        """Take the output so far, and wait for no more."""
        self._command.output.stop_waiting()

    async def _end_log(self, cut: Cut | None, group: int, holders: Sequence[Holder]) -> None:
        """End an open line, and say in the log what was cut off."""
        if not self._ends_a_line:
            await self._claimed.write("\n")
        if cut is not None and (holders or self._command.output.was_cut_off):
            killed = [holder for holder in holders if holder.group == group]
            await self._claimed.write(cut_line(cut, killed, [other for other in holders if other not in killed]))

    async def _carry(self) -> None:
        lines = MaskLines(lambda secret: self._claimed.log.add_secret(secret))  # noqa: PLW0108 - `log` opens it
        while piece := await self._command.output.read():
            await self._write(lines.take(piece))
        await self._write(lines.finish())

    async def _write(self, piece: bytes) -> None:
        if piece:
            self._ends_a_line = piece.endswith(b"\n")
            await self._claimed.write(piece)


async def _unpack(path: Path, folder: Path) -> None:
    """Unpack a project in a thread; a cancellation stops the thread, and waits for it."""
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
