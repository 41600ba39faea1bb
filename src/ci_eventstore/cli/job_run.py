"""A command that runs as a job, from the job's creation to its end."""

import asyncio
import shutil
import signal
from collections.abc import Sequence
from contextlib import AsyncExitStack
from datetime import datetime

from ci_common.errors import ConflictError, RepositoryError
from ci_common.models import Job, JobEvent, JobStatus, Outcome, utc_now
from ci_eventstore.cli.held_job import Holding, JobEnd, JobLog, Step
from ci_eventstore.cli.output import StandardOutput, say, saying_warnings_of
from ci_eventstore.cli.stopping import Stop, Stopper
from ci_eventstore.cli.usage import ExitCode, exit_code_of_process
from ci_eventstore.controllers.controller import new_name
from ci_eventstore.processes.command import Command, CommandOutput
from ci_eventstore.processes.guard import LeaderGuard
from ci_eventstore.processes.last_output import Holder, cut_line, find_holders, wait_for_rest
from ci_eventstore.repository import RedisJobRepository
from ci_eventstore.writer.losses import note_of
from ci_eventstore.writer.masking import Masker, PreparedSecrets
from ci_eventstore.writer.time_limit import TimeLimit


class JobRun:
    """Runs one command as one job, and masks secrets in its output; the job itself must hold none.

    This process holds the job from its creation on: job and command end with the process.
    """

    def __init__(
        self, repository: RedisJobRepository, job: Job, secrets: Sequence[str] = (), *, lease_seconds: float = 30.0
    ) -> None:
        self._repository = repository
        self._job = job
        self._secrets = PreparedSecrets(secrets)
        self._lease_seconds = lease_seconds
        self._masker = Masker(self._secrets)
        self._stopper = Stopper(self._hurry)
        #: Writes under the claim, once the job is created.
        self._writer = repository.writer(job.id)
        self._log: JobLog | None = None
        self._limit = TimeLimit()
        self._terminal: StandardOutput | None = StandardOutput()
        #: How the command ended, once it has.
        self._outcome: Outcome | None = None
        #: When the last of its output came, which the store may get later.
        self._ended_at: datetime | None = None

    async def execute(self, arguments: Sequence[str], *, pty: bool) -> int:
        """Create the job, run the command to its end, end the job; return the exit code. RepositoryError."""
        with self._stopper.on_signals(), saying_warnings_of("ci_eventstore.writer"):
            try:
                async with self._limit.hold():
                    holding = await self._create()
            except TimeoutError:
                say(f"job {self._job.id}: the store gave no answer, the command isn't run")
                return self._code_of_stop(ExitCode.STORE)
            say(f"job {self._job.id}")
            if self._stopper.stop is not None:
                return await self._conclude(ExitCode.SUCCESS)
            async with AsyncExitStack() as stack:
                try:
                    guard = await stack.enter_async_context(LeaderGuard())
                    command = await Command.start(arguments, pty=pty, announce=guard.announce)
                except OSError as error:
                    return await self._give_up(arguments[0], error)
                await stack.enter_async_context(holding)
                code = await self._attend(command, guard)
                holding.end()
                return await self._conclude(code)

    async def _create(self) -> Holding:
        claim = await self._repository.engine.holders.create(self._job, f"run-{new_name()}", self._lease_seconds)
        self._writer = self._repository.writer(self._job.id, claim)
        self._log = JobLog(self._writer.log_writer(secrets=self._secrets), self._masker.add)
        return Holding(
            self._repository,
            claim,
            self._lease_seconds,
            on_cancel=self._stopper.stop_for_store,
            on_lost=lambda: say(
                f"warning: job {claim.job_id} was ended by someone else, as nothing was heard from here for its lease: "
                "the command goes on, but not its log"
            ),
        )

    def _hurry(self, seconds: float) -> None:
        if self._log is not None:
            self._log.hurry(seconds)
        self._limit.shorten(seconds)
        if self._terminal is not None and self._stopper.has_command_ended:
            # Whoever reads the output isn't waited for either.
            self._terminal.abandon()
        self._repository.engine.hurry(seconds)

    async def _attend(self, command: Command, guard: LeaderGuard) -> int:
        """Pass the command's output on until it has ended, and return its exit code."""
        self._stopper.attach(command)
        async with asyncio.TaskGroup() as tasks, self._open_log() as log:
            tasks.create_task(log.report())
            pump = tasks.create_task(self._pump(command.output, log))
            if command.has_terminal:
                asyncio.get_running_loop().add_signal_handler(signal.SIGWINCH, command.resize)
            returncode = await command.wait()
            self._outcome = Outcome.of(returncode)
            await self._stopper.finish()
            # From now on the number of its group may become another one's.
            await guard.end()
            await self._end_output(command.output, pump, log)
            self._ended_at = utc_now()
        command.output.close()
        return exit_code_of_process(returncode)

    def _open_log(self) -> JobLog:
        assert self._log is not None
        return self._log

    async def _end_output(self, output: CommandOutput, pump: "asyncio.Task[None]", log: JobLog) -> None:
        """Take what is still printed after the command's end; report what is cut off, here and in the log."""
        was_stopped, holders = self._stopper.stop is not None, list[Holder]()
        cut = await wait_for_rest(output, pump, was_stopped=was_stopped)
        if cut is not None:
            holders = await asyncio.to_thread(find_holders, output)
        output.stop_waiting()
        if self._stopper.stop is not None and self._terminal is not None:
            # Nor is whoever reads this output waited for.
            self._terminal.abandon()
        await pump
        if cut is not None and output.was_cut_off:
            line = cut_line(cut, [], holders)
            say(line.strip("[]\n"))
            await log.write(line.encode() if log.ends_a_line else b"\n" + line.encode())

    async def _pump(self, output: CommandOutput, log: JobLog) -> None:
        while piece := await output.read():
            await self._show(piece)
            await log.write(piece)

    async def _show(self, piece: bytes) -> None:
        """Print a piece; if that fails, the command and its log go on."""
        try:
            if self._terminal is not None:
                await self._terminal.write(piece)
        except OSError as error:
            self._terminal = None
            if not isinstance(error, BrokenPipeError):
                say(f"the output can't be shown any more, but is stored: {error.strerror}")

    async def _give_up(self, program: str, error: OSError) -> int:
        """End the job of a command that can't be started."""
        why = self._masker.mask_all(error.strerror or str(error))
        reason = f"{self._masker.mask_all(program)!r} can't be started: {why}"
        say(reason)
        is_missing = isinstance(error, FileNotFoundError) and shutil.which(program) is None
        code = ExitCode.COMMAND_NOT_FOUND if is_missing else ExitCode.NOT_EXECUTABLE
        writer, line = self._writer, JobEvent("log", f"[{reason}]\n")
        return await self._store_end(
            [lambda: writer.append([line]), lambda: writer.update_status(JobStatus.FAILED)], code
        )

    def _code_of_stop(self, code: int) -> int:
        stop = self._stopper.stop
        return code if stop is None else ExitCode.SIGNAL + stop.signal

    async def _conclude(self, code: int) -> int:
        """End the job, and return the exit code."""
        code = code or self._code_of_stop(ExitCode.SUCCESS)
        log = self._open_log()
        code = await self._store_end(self._last_steps(code == 0, self._stopper.stop, log), code)
        return code or (ExitCode.STORE if log.failure else ExitCode.SUCCESS)

    async def _store_end(self, steps: Sequence[Step], code: int) -> int:
        """Store the job's end; return the exit code, STORE if the command succeeded and this failed."""
        job_id = self._job.id
        try:
            await JobEnd(self._repository, self._writer, job_id, self._limit, self._ended_at).store(steps)
        except ConflictError:
            say(f"job {job_id} was ended by someone else, before the end of its command was stored")
            return code or ExitCode.STORE
        except (RepositoryError, TimeoutError) as error:
            reason = str(error) or "the store gave no answer"
            say(f"job {job_id} could not be ended, and fails when its lease has run out: {reason}")
            return code or ExitCode.STORE
        if self._stopper.stop is not None:
            say(f"job {job_id} is cancelled")
        return code

    def _last_steps(self, success: bool, stop: Stop | None, log: JobLog) -> list[Step]:
        """Return the writes that end the job, first a line about what its log lacks."""
        writer, steps = self._writer, list[Step]()
        if log.failure is not None:
            note = JobEvent("log", self._masker.mask_all(note_of(log.failure)), timestamp=self._ended_at)
            steps.append(lambda: writer.append([note]))
        if stop is None:
            events = self._last_events(success, log)
            return [*steps, lambda: writer.append(events)]
        if not log.ends_a_line:
            steps.append(lambda: writer.append([JobEvent("log", "\n", timestamp=self._ended_at)]))
        reason = self._masker.mask_all(f"stopped by {stop.signal.name}")
        return [*steps, lambda: writer.cancel(reason)]

    def _last_events(self, success: bool, log: JobLog) -> list[JobEvent]:
        """Return the job's end, after a line about how the command failed if it did."""
        end = JobEvent("complete", success=success, timestamp=self._ended_at, outcome=self._outcome)
        if self._outcome is None or success:
            return [end]
        start = "" if log.ends_a_line else "\n"
        return [JobEvent("log", f"{start}[{self._outcome}]\n", timestamp=self._ended_at), end]
