"""A command that runs as a job, from the job's creation to its end."""

import asyncio
import shutil
import signal
from collections.abc import Awaitable, Callable, Sequence

from ci_common.errors import ConflictError, RepositoryError
from ci_common.models import Job, JobEvent, JobStatus, Outcome, utc_now
from ci_eventstore.cli.exits import ExitCode, exit_code_of_process
from ci_eventstore.cli.job_log import JobLog, note_of
from ci_eventstore.cli.messages import say, saying_warnings_of
from ci_eventstore.cli.stdout import StandardOutput
from ci_eventstore.cli.stopping import LAST_OUTPUT_SECONDS, Stop, Stopper
from ci_eventstore.processes.command import Command, CommandOutput
from ci_eventstore.repository import RedisJobRepository
from ci_eventstore.writer.losses import telling_losses
from ci_eventstore.writer.masking import Masker
from ci_eventstore.writer.time_limit import TimeLimit

#: How often the store is asked whether someone else has ended the job.
WATCH_SECONDS = 0.5


class JobRun:
    """Runs one command as one job, which must have no secrets in it; those of its output are masked."""

    def __init__(self, repository: RedisJobRepository, job: Job, secrets: Sequence[str] = ()) -> None:
        self._repository = repository
        self._job = job
        self._mask = Masker(secrets).mask_all
        self._stopper = Stopper(self._hurry)
        self._log = JobLog(repository.log_writer(job.id, secrets=secrets))
        self._end_limit = TimeLimit()
        self._terminal: StandardOutput | None = StandardOutput()
        #: How the command ended, once it has.
        self._outcome: Outcome | None = None

    async def execute(self, arguments: Sequence[str], *, pty: bool) -> int:
        """Create the job, run the command to its end, end the job; return the exit code. RepositoryError."""
        with self._stopper.on_signals(), saying_warnings_of("ci_eventstore.writer"):
            await self._repository.create_job(self._job)
            say(f"job {self._job.id}")
            if self._stopper.stop is not None:
                return await self._conclude(ExitCode.SUCCESS)
            try:
                command = await Command.start(arguments, pty=pty)
            except OSError as error:
                return await self._give_up(arguments[0], error)
            return await self._conclude(await self._attend(command))

    def _hurry(self, seconds: float) -> None:
        self._log.hurry(seconds)
        self._end_limit.shorten(seconds)

    async def _attend(self, command: Command) -> int:
        """Pass the command's output on until it has ended, and return its exit code."""
        self._stopper.attach(command)
        async with asyncio.TaskGroup() as tasks:
            watching = tasks.create_task(self._watch())
            async with self._log:
                tasks.create_task(self._log.report())
                pump = tasks.create_task(self._pump(command.output))
                if command.has_terminal:
                    asyncio.get_running_loop().add_signal_handler(signal.SIGWINCH, command.resize)
                returncode = await command.wait()
                self._outcome = Outcome.of(returncode)
                await self._stopper.finish()
                await asyncio.wait({pump}, timeout=LAST_OUTPUT_SECONDS)
                self._wait_no_longer(command.output)
                await pump
            watching.cancel()
        command.output.close()
        if command.output.was_cut_off:
            say("the command has ended, but something it started holds its output: what that prints now is not stored")
        return exit_code_of_process(returncode)

    def _wait_no_longer(self, output: CommandOutput) -> None:
        """Take what the command has printed; when it was stopped, don't wait for a reader of this output either."""
        output.stop_waiting()
        if self._stopper.stop is not None and self._terminal is not None:
            self._terminal.abandon()

    async def _pump(self, output: CommandOutput) -> None:
        while piece := await output.read():
            await self._show(piece)
            await self._log.write(piece)

    async def _show(self, piece: bytes) -> None:
        """Print a piece; once that fails, the command and its log go on without."""
        try:
            if self._terminal is not None:
                await self._terminal.write(piece)
        except OSError as error:
            self._terminal = None
            if not isinstance(error, BrokenPipeError):
                say(f"the output can't be shown any more, but is stored: {error.strerror}")

    async def _watch(self) -> None:
        """Stop the command when someone else has ended the job; what the store can't say now, it says later."""
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            try:
                job = await self._repository.get_job_summary(self._job.id)
            except RepositoryError:
                continue
            if job is not None and job.status in (JobStatus.CANCELLED, JobStatus.FAILED):
                self._stopper.stop_for_store()
                return

    async def _give_up(self, program: str, error: OSError) -> int:
        """End the job of a command that can't be started."""
        reason = f"{self._mask(program)!r} can't be started: {self._mask(error.strerror or str(error))}"
        say(reason)
        await self._repository.add_event(self._job.id, JobEvent("log", f"[{reason}]\n"))
        await self._repository.update_job_status(self._job.id, JobStatus.FAILED)
        is_missing = isinstance(error, FileNotFoundError) and shutil.which(program) is None
        return ExitCode.COMMAND_NOT_FOUND if is_missing else ExitCode.NOT_EXECUTABLE

    async def _conclude(self, code: int) -> int:
        """End the job, and return the exit code."""
        stop = self._stopper.stop
        if stop is not None:
            code = code or ExitCode.SIGNAL + stop.signal
        try:
            async with self._end_limit.hold():
                # A read, because one can turn away from it; a write that was begun is waited for.
                await self._repository.get_job_summary(self._job.id)
            await self._end(code == 0, stop)
        except ConflictError:
            say(f"job {self._job.id} was ended by someone else, just as the command ended")
            return code or ExitCode.FAILED
        except (RepositoryError, TimeoutError) as error:
            reason = str(error) or "the store gave no answer"
            say(f"job {self._job.id} could not be ended and still counts as running: {reason}")
            return code or ExitCode.STORE
        return code or (ExitCode.STORE if self._log.failure else ExitCode.SUCCESS)

    async def _end(self, success: bool, stop: Stop | None) -> None:
        job_id = self._job.id
        if self._log.failure is not None:
            note = JobEvent("log", self._mask(note_of(self._log.failure)))
            await self._write(lambda: self._repository.add_event(job_id, note))
        if stop is None:
            events = self._last_events(success)
            await self._write(lambda: self._repository.add_events(job_id, events))
        elif not stop.from_store:
            if not self._log.ends_a_line:
                await self._write(lambda: self._repository.add_event(job_id, JobEvent("log", "\n")))
            reason = self._mask(f"stopped by {stop.signal.name}")
            await self._write(lambda: self._repository.cancel_job(job_id, reason))
            say(f"job {job_id} is cancelled")

    async def _write(self, write: Callable[[], Awaitable[None]]) -> None:
        """Write what ends the job; if some of its log is lost, that is said there before."""
        await telling_losses(self._job.id, write, self._add_line)()

    async def _add_line(self, line: str) -> None:
        await self._repository.add_event(self._job.id, JobEvent("log", line))

    def _last_events(self, success: bool) -> list[JobEvent]:
        """Return the job's end, before it a line that says how the command ended if it failed."""
        end = JobEvent("complete", success=success, timestamp=utc_now(), outcome=self._outcome)
        if self._outcome is None or success:
            return [end]
        start = "" if self._log.ends_a_line else "\n"
        return [JobEvent("log", f"{start}[{self._outcome}]\n"), end]
