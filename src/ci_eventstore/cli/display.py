"""Show things to people: tables, times, durations. Pure, but for the time zone and the terminal's width."""

import json
import shlex
import shutil
import sys
from collections.abc import Sequence
from datetime import datetime, timedelta

import click

from ci_common.models import Job, Outcome, as_utc

NOTHING = "-"

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")


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
    took = max(as_utc(end) - as_utc(start), timedelta(0))
    seconds = int(took.total_seconds())
    if seconds < 10:
        return f"{took.total_seconds():.1f}s"
    if seconds < 60:
        return f"{seconds}s"
    if seconds < 3600:
        return f"{seconds // 60}m {seconds % 60:02}s"
    if seconds < 86400:
        return f"{seconds // 3600}h {seconds % 3600 // 60:02}m"
    return f"{seconds // 86400}d {seconds % 86400 // 3600:02}h"


def command_line(command: Sequence[str] | None) -> str:
    """Write a command as one would type it."""
    return NOTHING if command is None else shlex.join(command)


def result(job: Job) -> str:
    """Say in a word how the job's command ended."""
    return NOTHING if job.success is None else "passed" if job.success else "failed"


def result_in_full(job: Job) -> str:
    """Say how the job's command ended, with its exit code or signal if it failed and that is known."""
    if job.success is not False or (job.exit_code is None and job.signal is None):
        return result(job)
    return f"{result(job)}: {Outcome(job.exit_code, job.signal)}"


def printable(text: str) -> str:
    """Return a text in one line that can't move the terminal's cursor."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Lay rows out in columns; on a terminal, what doesn't fit into its width is cut off."""
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
