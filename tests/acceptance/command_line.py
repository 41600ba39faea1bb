"""The program as a user calls it: a process, its arguments, what it prints and how it ends."""

import asyncio
import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from ci_common import Job
from ci_eventstore import RedisJobRepository
from ci_eventstore.events.records import log_bytes
from tests.acceptance.warm_start import WarmProcess, WarmProgram
from tests.servers import wait_until

PROGRAM = Path(sys.executable).with_name("ci-eventstore")
PATIENCE_SECONDS = 60.0


@dataclass(frozen=True)
class Ended:
    """What a call printed, and its exit code."""

    code: int
    out: bytes
    err: str

    @property
    def text(self) -> str:
        """Standard output, of commands that print text."""
        return self.out.decode()

    @property
    def job_id(self) -> str:
        """The job's id that `run` told first."""
        return job_id_in(self.err.splitlines()[0])


class Running:
    """A call that hasn't ended yet."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self.shown = b""
        self.told = ""

    def job_id(self) -> str:
        """Wait for the line in which `run` tells the job's id."""
        self.wait_for_error("\n")
        return job_id_in(self.told.splitlines()[0])

    def wait_for_output(self, expected: bytes) -> None:
        """Read standard output until it contains something."""
        while expected not in self.shown:
            piece = os.read(_stream(self.process.stdout).fileno(), 65536)
            assert piece, f"the output ended without {expected!r}: {self.shown!r}"
            self.shown += piece

    def wait_for_error(self, expected: str) -> None:
        """Read standard error until it contains something."""
        while expected not in self.told:
            piece = os.read(_stream(self.process.stderr).fileno(), 65536)
            assert piece, f"standard error ended without {expected!r}: {self.told!r}"
            self.told += piece.decode()

    def send(self, signal: int) -> None:
        """Send a signal to this process alone, as `kill` does."""
        self.process.send_signal(signal)

    def end(self) -> Ended:
        """Wait for the end; what was read before is in it, too."""
        out, err = self.process.communicate(timeout=PATIENCE_SECONDS)
        return Ended(self.process.returncode, self.shown + out, self.told + err.decode())


@dataclass
class CommandLine:
    """The program with an environment of its own: a store that no other test uses."""

    environment: Mapping[str, str]
    #: Forks where processes needn't really be started.
    warm: WarmProgram | None = None
    started: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def __call__(
        self, *arguments: str | Path, stdin: bytes = b"", environment: Mapping[str, str] | None = None
    ) -> Ended:
        """Call the program and wait for its end."""
        with self._call(arguments, {**self.environment, **(environment or {})}, subprocess.PIPE) as process:
            try:
                out, err = process.communicate(stdin, PATIENCE_SECONDS)
            finally:
                process.kill()
        return Ended(process.returncode, out, err.decode())

    def start(self, *arguments: str | Path) -> Running:
        """Call the program and leave it running, in a session of its own."""
        process = self._call(arguments, self._environment_with_program, subprocess.DEVNULL)
        self.started.append(process)
        return Running(process)

    def _call(
        self, arguments: Sequence[str | Path], environment: Mapping[str, str], stdin: int
    ) -> subprocess.Popen[bytes]:
        command = [str(word) for word in (PROGRAM, *arguments)]
        options: dict[str, Any] = {"env": environment, "stdin": stdin, "stdout": subprocess.PIPE}
        if self.warm is None or not self.warm.suits(environment):
            return subprocess.Popen(command, stderr=subprocess.PIPE, start_new_session=True, **options)
        return WarmProcess(self.warm, command, stderr=subprocess.PIPE, **options)

    def start_program(self, *command: str | Path) -> Running:
        """Start another program with the same environment, and leave it running."""
        return self._start(command)

    def _start(self, command: Sequence[str | Path]) -> Running:
        process = subprocess.Popen(
            command,
            env=self._environment_with_program,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        self.started.append(process)
        return Running(process)

    def start_shell(self, script: str) -> Running:
        """Run a bash script in which the program can be called by its name, and leave it running."""
        return self._start(["bash", "-c", script])

    def shell(self, script: str, *arguments: str) -> Ended:
        """Run a bash script in which the program can be called by its name."""
        done = subprocess.run(
            ["bash", "-c", script, "bash", *arguments],
            env=self._environment_with_program,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            timeout=PATIENCE_SECONDS,
        )
        return Ended(done.returncode, done.stdout, done.stderr.decode())

    @property
    def _environment_with_program(self) -> Mapping[str, str]:
        return {**self.environment, "PATH": f"{PROGRAM.parent}{os.pathsep}{self.environment['PATH']}"}

    def repository(self) -> RedisJobRepository:
        """Return the store that the program uses, not open yet."""
        environment = self.environment
        return RedisJobRepository.from_url(environment["CI_EVENTSTORE_URL"], prefix=environment["CI_EVENTSTORE_PREFIX"])

    def job(self, job_id: str) -> Job:
        """Return a job without its events, read in this process: a second one would take longer than most tests."""
        return asyncio.run(self._job(job_id))

    def log(self, job_id: str) -> bytes:
        """Wait for the end of a job and return its log with late output, read in this process."""
        return asyncio.run(self._log(job_id))

    def log_so_far(self, job_id: str) -> bytes:
        """Return what a job has printed, read in this process."""
        return asyncio.run(self._log_so_far(job_id))

    async def _job(self, job_id: str) -> Job:
        async with self.repository() as repository:
            job = await repository.get_job_summary(job_id)
        assert job is not None, f"there is no job {job_id}"
        return job

    async def _log(self, job_id: str) -> bytes:
        async with (
            asyncio.timeout(PATIENCE_SECONDS),
            self.repository() as repository,
            aclosing(repository.follow_events(job_id)) as events,
        ):
            async for _ in events:
                pass
        return await self._log_so_far(job_id)

    async def _log_so_far(self, job_id: str) -> bytes:
        async with self.repository() as repository:
            return b"".join(map(log_bytes, await repository.get_events_since(job_id, 0)))

    def kill_all(self) -> None:
        """Kill what a test has left running."""
        for process in self.started:
            if process.poll() is None:
                process.kill()
            process.communicate()


def job_id_in(line: str) -> str:
    """Return the id in the first line that `run` prints."""
    found = re.fullmatch(r"ci-eventstore: job (\S+)", line.strip())
    assert found, f"no job id in {line!r}"
    return found.group(1)


def is_alive(process_id: int) -> bool:
    """Return whether a process runs; one that ended and wasn't collected doesn't."""
    try:
        return Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def start_serving(cli: CommandLine, *options: str) -> tuple[Running, str]:
    """Start a server, on a free port unless an option says another; return it with its address when it listens."""
    server = cli.start("serve", "--port", "0", *options)
    server.wait_for_error("serving on ")
    server.wait_for_error("\n")
    found = re.search(r"http://\S+", server.told)
    assert found, server.told
    return server, found.group()


def wait_for_file(path: Path) -> str:
    """Wait until a file has a whole line, and return it."""
    wait_until(lambda: path.exists() and path.read_text().endswith("\n"), f"a line in {path}")
    return path.read_text().strip()


def python(program: str) -> Sequence[str]:
    """Return the command that runs a small Python program."""
    return [sys.executable, "-c", program]


def until_signal(name: str, first: str, last: str) -> Sequence[str]:
    """Return a command that prints a line, waits for a signal, prints another line and succeeds."""
    wait = f"numbers = {{signal.{name}}}\nsignal.pthread_sigmask(signal.SIG_BLOCK, numbers)"
    return python(f"import signal\n{wait}\nprint({first!r}, flush=True)\nsignal.sigwait(numbers)\nprint({last!r})")


def _stream(stream: IO[bytes] | None) -> IO[bytes]:
    assert stream is not None
    return stream
