"""What the program prints and says, on the standard streams that it shares with others."""

import asyncio
import contextlib
import json
import logging
import os
import select
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta

import click

from ci_common.models import Job, Outcome, as_utc
from ci_eventstore.amounts import about_duration

NOTHING = "-"

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")


def say(text: str) -> None:
    """Write one line to standard error; ignore that nobody may read it any more."""
    line = " | ".join(part.strip() for part in text.splitlines() if part.strip())
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.write(f"ci-eventstore: {line}\n")
        sys.stderr.flush()


@contextlib.contextmanager
def showing_progress(what: str) -> Iterator[Callable[[int, int], None] | None]:
    """Yield a function that shows on a terminal how much is done; None if standard error is no terminal."""
    if not sys.stderr.isatty():
        yield None
        return

    def show(done: int, total: int) -> None:
        with contextlib.suppress(OSError, ValueError):
            share = 100 * done // max(total, 1)
            sys.stderr.write(f"\r{what}: {done:,} of {max(done, total):,} ({share}%)\033[K")
            sys.stderr.flush()

    try:
        yield show
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.write("\r\033[K")
            sys.stderr.flush()


class _Speaker(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        say(record.getMessage())


@contextlib.contextmanager
def saying_warnings_of(name: str) -> Iterator[None]:
    """Write warnings of a logger to standard error while something runs."""
    logger, speaker = logging.getLogger(name), _Speaker(logging.WARNING)
    logger.addHandler(speaker)
    try:
        yield
    finally:
        logger.removeHandler(speaker)


class StandardOutput:
    """Writes bytes to a descriptor whose reader may be slow, or stop reading, without holding up the event loop.

    The descriptor stays in blocking mode, because other processes share it: each write has at most as many bytes as are
    known to fit in.
    """

    def __init__(self, descriptor: int | None = None) -> None:
        self._descriptor = sys.stdout.fileno() if descriptor is None else descriptor
        self._poll = select.poll()
        self._poll.register(self._descriptor, select.POLLOUT)
        self._is_abandoned = False
        self._writable = asyncio.Event()

    async def write(self, data: bytes) -> None:
        """Write all of it; OSError, or BrokenPipeError if nobody reads any more."""
        rest = memoryview(data)
        while rest:
            if not self._poll.poll(0):
                await self._until_writable()
                if self._is_abandoned:
                    raise BrokenPipeError
            rest = rest[os.write(self._descriptor, rest[: select.PIPE_BUF]) :]

    def abandon(self) -> None:
        """Wait no longer for the reader: a write that doesn't fit in at once raises BrokenPipeError."""
        self._is_abandoned = True
        self._writable.set()

    async def _until_writable(self) -> None:
        if self._is_abandoned:
            return
        loop = asyncio.get_running_loop()
        self._writable.clear()
        loop.add_writer(self._descriptor, self._writable.set)
        try:
            await self._writable.wait()
        finally:
            loop.remove_writer(self._descriptor)


def open_missing_streams() -> None:
    """Open standard streams that this process was started without on /dev/null, so that no file takes their places."""
    for descriptor, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        if getattr(sys, name) is None:
            nowhere = os.open(os.devnull, os.O_RDWR)
            if nowhere != descriptor:
                os.dup2(nowhere, descriptor)
                os.close(nowhere)
            os.set_inheritable(descriptor, True)
            setattr(sys, name, os.fdopen(descriptor, mode, closefd=False))


def discard_output() -> None:
    """Send what Python still buffers for standard output to /dev/null, so that its last flush can't fail."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def echo_json(value: object) -> None:
    """Print a value as JSON, in ASCII, whatever the terminal's encoding."""
    click.echo(json.dumps(value, indent=2))


def local_time(time: datetime | None) -> str:
    """Write a time in the local time zone, to the second, with its offset from UTC: `Z` if there is none."""
    return NOTHING if time is None else as_utc(time).astimezone().isoformat(" ", "seconds").replace("+00:00", "Z")


def duration(start: datetime | None, end: datetime) -> str:
    """Write how long something took, such as `0.4s`, `12s`, `3m 07s`, `2h 05m`, `3d 04h`."""
    if start is None:
        return NOTHING
    return about_duration(max(as_utc(end) - as_utc(start), timedelta(0)).total_seconds())


def command_line(command: Sequence[str] | None) -> str:
    """Write a command as one would type it."""
    return NOTHING if command is None else shlex.join(command)


def result(job: Job) -> str:
    """Return in a word how the job's command ended."""
    return NOTHING if job.success is None else "passed" if job.success else "failed"


def result_in_full(job: Job) -> str:
    """Return how the job's command ended, with its exit code or signal if it failed and the store knows that."""
    if job.success is not False or (job.exit_code is None and job.signal is None):
        return result(job)
    return f"{result(job)}: {Outcome(job.exit_code, job.signal)}"


def printable(text: str) -> str:
    """Return a text with escapes for what could move the terminal's cursor or end the line."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Lay rows out in columns; on a terminal, cut lines off at its width."""
    cells = [list(titles), *([printable(cell) for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]
    if sys.stdout.isatty():
        width = shutil.get_terminal_size().columns
        lines = [line if len(line) <= width else f"{line[: width - 1]}…" for line in lines]
    return "\n".join(lines)


def properties(pairs: Sequence[tuple[str, str]]) -> str:
    """Lay names and values out in two columns."""
    width = max(len(name) for name, _ in pairs)
    return "\n".join(f"{name.ljust(width)}  {printable(value)}" for name, value in pairs)
