"""`replay` and `export`: a job's log as it was printed, the job as it was then, and its history in others' formats."""

import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import aclosing, contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import TypedDict, Unpack

import click

from ci_common.errors import JobNotFoundError
from ci_common.models import JobEvent
from ci_eventstore.cli.jobs import job_properties
from ci_eventstore.cli.output import StandardOutput, echo_json, json_option, local_time, printable, properties, say
from ci_eventstore.cli.store import find_job, uses_store
from ci_eventstore.cli.usage import ExitCode, duration_option, examples, literally
from ci_eventstore.events.records import Fact, log_bytes, rfc3339
from ci_eventstore.job_fields import job_json
from ci_eventstore.replay.exports import FORMATS, FormatName, pieces_of
from ci_eventstore.replay.replay import History, Point
from ci_eventstore.repository import RedisJobRepository

#: Fields of facts that aren't shown: with a claim, one may write to the job.
UNSHOWN = frozenset({"claim", "ticket"})


class Played(TypedDict):
    """Which part of a log is played, and how."""

    speed: float
    max_gap: float
    since: Point | None
    until: Point | None


def read_point(context: click.Context, parameter: click.Parameter, text: str | None) -> Point | None:
    """Return a position, or a time, which is a local one if it has no zone; click.BadParameter."""
    if text is None:
        return None
    if text.isascii() and text.isdecimal():
        return int(text)
    try:
        return datetime.fromisoformat(text).astimezone()
    except (ValueError, OverflowError):
        needed = "a position as 120, or a time as 2026-01-31T12:30:00Z; without a zone, it is a local one"
        raise click.BadParameter(f"{text!r} must be {needed}", context, parameter) from None


@click.command(
    epilog=examples(
        "replay 3f9c", "replay 3f9c --speed 4", "replay 3f9c --at 120", "replay 3f9c --since 2026-01-31T12:30:00Z"
    )
)
@click.argument("job")
@click.option(
    "--speed", metavar="N", type=float, default=1.0, help="Replay N times as fast; inf prints everything at once."
)
@duration_option(
    "--max-gap", "Wait no longer than this, before --speed counts, where nothing was printed.", default="1m"
)
@click.option("--since", metavar="POINT", callback=read_point, help="Begin with this event, or at this time.")
@click.option("--until", metavar="POINT", callback=read_point, help="End with this event, or at this time.")
@click.option("--facts", is_flag=True, help="Report on standard error what else happened to the job.")
@click.option("--at", metavar="POINT", callback=read_point, help="Show the job as it was then, instead of its log.")
@json_option
@uses_store
async def replay(
    repository: RedisJobRepository,
    /,
    job: str,
    at: Point | None,
    facts: bool,
    as_json: bool,
    **asked: Unpack[Played],
) -> int:
    """Print a job's log again, as it was printed.

    Prints the bytes that the command printed, with its pauses. For a running job, it prints the log so far. POINT is
    the number of an event or a time, which is local unless it has a zone.

    --at shows what `jobs show` would have shown then: after event N and before the next one, or before the first record
    that is later than the time.
    """
    if at is not None:
        return await _show(repository, await find_job(repository, job), at, as_json=as_json)
    if as_json:
        raise click.UsageError("--json needs --at")
    terminal, job_id = StandardOutput(), await find_job(repository, job)
    records = repository.replay(
        job_id, asked["speed"], asked["since"], asked["until"], facts=facts, longest_gap_seconds=asked["max_gap"]
    )
    async with aclosing(records):
        async for record in records:
            if isinstance(record, JobEvent):
                await terminal.write(log_bytes(record))
            else:
                say(_told(record))
    return ExitCode.SUCCESS


async def _show(repository: RedisJobRepository, job_id: str, at: Point, *, as_json: bool) -> int:
    found = await repository.job_at(job_id, at)
    if found is None:
        when = local_time(at) if isinstance(at, datetime) else str(at)
        say(f"job {job_id} was created after {when}")
        return ExitCode.NOT_FOUND
    if as_json:
        echo_json(job_json(found))
    else:
        # How long it took is counted up to now.
        click.echo(properties([pair for pair in job_properties(found) if pair[0] != "took"]))
    return ExitCode.SUCCESS


def _told(fact: Fact) -> str:
    fields = {name: value for name, value in fact.fields.items() if name not in UNSHOWN and value is not None}
    shown = (f" {name}={rfc3339(value) if isinstance(value, datetime) else value}" for name, value in fields.items())
    return printable(f"{rfc3339(fact.time)} {fact.type}{''.join(shown)}")


@click.command(
    epilog="\n\n".join(
        (
            literally(
                "Formats:",
                "  text        the bytes that the command printed",
                "  jsonl       a JSON object for each event and fact, from which all can be read back",
                "  asciicast2  a recording for terminal players, as asciinema's",
                "  asciicast3  the same in that format's next version",
                "  otlp        OpenTelemetry's logs: lines of JSON for collectors and log stores",
            ),
            examples("export 3f9c --format text > build.log", "export 3f9c --format asciicast3 --output build.cast"),
        )
    )
)
@click.argument("job")
@click.option("--format", "name", type=click.Choice(list(FORMATS)), required=True, help="What to write.")
@click.option(
    "--output",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write to this file, and replace the one that is there.",
)
@uses_store
async def export(repository: RedisJobRepository, job: str, name: FormatName, output: Path | None) -> int:
    """Write a job's history for other programs.

    For a running job, it writes the history so far. FILE appears once all of it is written: an export that is
    interrupted leaves no file, and an older one as it was.
    """
    job_id = await find_job(repository, job)
    history = await History.of(repository.engine.reader, repository.engine.keys.job(job_id))
    found = await repository.get_job_summary(job_id)
    if found is None:
        raise JobNotFoundError(job_id)
    pieces = pieces_of(history, FORMATS[name](found), facts=True)
    async with aclosing(pieces):
        if output is None:
            terminal = StandardOutput()
            async for piece in pieces:
                await terminal.write(piece)
        else:
            with replaced(output) as descriptor:
                async for piece in pieces:
                    write_all(descriptor, piece)
    return ExitCode.SUCCESS


def write_all(descriptor: int, data: bytes) -> None:
    """Write all of it to a file; OSError."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


@contextmanager
def replaced(path: Path) -> Iterator[int]:
    """Yield a descriptor to write a file to, which has its name once all is on the disk; OSError.

    Until then it stands beside it. What is no file, as a pipe or a device, is written to itself.
    """
    target = path.resolve()
    with suppress(FileNotFoundError):
        if not stat.S_ISREG(target.stat().st_mode):
            descriptor = os.open(target, os.O_WRONLY)
            try:
                yield descriptor
            finally:
                os.close(descriptor)
            return
    descriptor, beside = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".part", dir=target.parent)
    try:
        mask = os.umask(0)
        os.umask(mask)
        os.fchmod(descriptor, 0o666 & ~mask)
        yield descriptor
        os.fsync(descriptor)
        os.replace(beside, target)
    except BaseException:
        os.unlink(beside)
        raise
    finally:
        os.close(descriptor)
