"""`run`: a command that runs as a job, from the job's creation to its end."""

import asyncio
import shutil
import signal
from collections.abc import Sequence
from contextlib import AsyncExitStack
from datetime import datetime
from secrets import token_hex
from typing import TypedDict, Unpack

import click

from ci_common.errors import ConflictError, RepositoryError
from ci_common.models import Job, JobEvent, JobStatus, Outcome, utc_now
from ci_eventstore.cli.held_job import Holding, JobEnd, JobLog, Step
from ci_eventstore.cli.output import StandardOutput, say, saying_warnings_of
from ci_eventstore.cli.secrecy import Secrets, check_holds_none, mask_standard_error, secrets_option
from ci_eventstore.cli.stopping import Stop, Stopper
from ci_eventstore.cli.store import find_user, head_option, uses_store
from ci_eventstore.cli.usage import (
    ExitCode,
    argument_text,
    duration_option,
    examples,
    exit_code_of_process,
    job_options,
)
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
            # Don't wait for the reader of the output either.
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
            # Don't wait for the reader of this output either.
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


class Options(TypedDict):
    """What the command line says of a job."""

    name: str | None
    user: str | None
    job_id: str | None
    pty: bool
    secrets: Secrets
    lease: float
    command: Sequence[str]


@click.command(
    context_settings={"allow_interspersed_args": False},
    epilog=examples(
        "run -- make test",
        "run --name nightly --user ada@example.com -- ./build.sh --all",
        "run --pty -- npm test",
        "run --secret-env TOKEN -- ./deploy.sh",
        "run --id build-42 -- sh -c 'make && make install'",
    ),
)
@job_options
@click.option(
    "--pty", is_flag=True, help="Run the command on a pseudo-terminal, so that it prints colours and progress bars."
)
@secrets_option("Store *** in place of this environment variable's value.")
@duration_option("--lease", "Fail the job if this program stops renewing its lease for this long.", default="30s")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@head_option
@uses_store
async def run(repository: RedisJobRepository, **options: Unpack[Options]) -> int:
    """Run a command as a job.

    The command's output goes to standard output and into the job's log at once, byte for byte; its standard output and
    standard error are merged, in order. The first line on standard error is the job's id.

    Exits with the command's own code, with 128 + N if signal N killed it, with 127 if it wasn't found, with 126 if it
    can't be executed; with 4 if the command succeeded but the store failed.

    Ctrl-C, SIGTERM, SIGHUP and `ci-eventstore jobs cancel` stop the command and everything in its process group;
    processes that are left after 10 seconds, or at a second Ctrl-C, are killed. The job then ends as cancelled. After a
    second Ctrl-C this program ends within 5 seconds, whatever the store does.

    Processes that the command leaves running may still print. Their output is stored until they have been silent for 2
    seconds, or for 30 seconds at most; a line in the log then names what could still have printed.

    The job ends with this program. If this program is killed, so is the command, and the job fails as soon as its lease
    has run out and a controller, `serve`, `tail` or `jobs` notices.

    If the store is away, the command goes on, and its output waits. Whatever the store doesn't take within 10 minutes
    (5 seconds once the command was stopped) is kept in a local file, which a warning names. If the job's lease ran out
    meanwhile and the job was ended, this program says so, and exits with 4 if the command succeeded.

    --secret-env masks a secret in everything that is stored: in the log, however its output is split, in the job's name
    and in its command; also in base64, URLs, JSON and other spellings, and line by line. A secret has at least four
    characters. If the command prints a line ::add-mask::VALUE, VALUE is masked from then on, and the line itself isn't
    stored. docs/guarantees.md lists what is masked. Standard output shows what the command printed, unmasked.
    """
    secrets, job_id, name, user = options["secrets"].texts, options["job_id"], options["name"], options["user"]
    mask = mask_standard_error(secrets)
    if job_id is not None:
        check_holds_none("--id", job_id, mask)
    owner = None if user is None else await find_user(repository, user)
    now = utc_now()
    job = Job(
        id=token_hex(8) if job_id is None else job_id,
        user_id=None if owner is None else owner.id,
        status=JobStatus.RUNNING,
        start_time=now,
        created_at=now,
        name=None if name is None else mask(name),
        command=[argument_text(mask(argument)) for argument in options["command"]],
    )
    running = JobRun(repository, job, secrets, lease_seconds=options["lease"])
    return await running.execute(options["command"], pty=options["pty"])
