"""`tail`: a job's log, byte for byte, as it grows."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from functools import partial

import click

from ci_common.models import JobEvent
from ci_eventstore.cli.output import StandardOutput, say
from ci_eventstore.cli.store import find_job, uses_store
from ci_eventstore.cli.usage import ExitCode, examples
from ci_eventstore.errors import StreamDamagedError
from ci_eventstore.events.records import FactType, TimestampedLines, log_bytes
from ci_eventstore.following.records import Followed, Notice, NoticeType
from ci_eventstore.lines.line_reader import Log
from ci_eventstore.repository import RedisJobRepository

PAGE_EVENTS = 1000
PROVISIONAL = (
    "the log has outgrown its budget: after its beginning comes its end so far, which isn't final until the job ends"
)
#: Messages about records that have no text in the log.
NOTES: Mapping[str, str] = {
    FactType.TRUNCATING: "the log has outgrown its budget: of the rest, only the end is kept, and shown when the "
    "job ends",
    NoticeType.GAP: "part of the log isn't there any more: it goes on after it",
    NoticeType.RESET: "the store has lost part of what was shown, or has another log now: it begins again here",
}


@click.command(
    epilog=examples(
        "tail 3f9c", "tail 3f9c --timestamps", "tail 3f9c --from-line 1200", "tail 3f9c --no-follow > build.log"
    )
)
@click.argument("job")
@click.option(
    "--after", metavar="N", type=click.IntRange(min=0), default=0, show_default=False, help="Start after event N."
)
@click.option("--from-line", metavar="N", type=click.IntRange(min=1), help="Start with line N; not with --after.")
@click.option(
    "--incarnation",
    metavar="TEXT",
    help="The incarnation that event N belongs to, from `jobs show --json`. If the store has lost it since, print the "
    "log from its beginning.",
)
@click.option("--no-follow", is_flag=True, help="Print the log as it is now, and exit.")
@click.option("--timestamps", is_flag=True, help="Prefix each line with the time at which it was printed.")
@uses_store
async def tail(
    repository: RedisJobRepository,
    job: str,
    after: int,
    from_line: int | None,
    incarnation: str | None,
    no_follow: bool,
    timestamps: bool,
) -> int:
    """Print a job's log, and follow it until the job ends.

    Prints the bytes that the command printed. Exits with 0 if the job passed, or hasn't ended yet (--no-follow); with 1
    if it failed or was cancelled.

    Of a log that is longer than --max-head-bytes of `run` or `controller`, the beginning and the end are kept. While
    such a job runs, its end keeps changing: --no-follow prints it after a line that says that it is provisional.
    """
    job_id = await find_job(repository, job)
    terminal, skipping = StandardOutput(), LineSkipping(0)
    if from_line is not None:
        if after:
            raise click.UsageError("--after and --from-line exclude each other")
        after, skipping = await _start_of(repository, job_id, from_line)
    lines = await _timestamped(repository, job_id, after) if timestamps else None
    if lines is not None and from_line is not None:
        lines = TimestampedLines()
    render = partial(_render, lines)
    async for records in _read(repository, job_id, after, incarnation, follow=not no_follow):
        await terminal.write(b"".join(render(skipping.take(record)) for record in records))
        for record in records:
            if record.type in NOTES:
                say(NOTES[record.type])
    ended = await repository.get_job_summary(job_id)
    return ExitCode.FAILED if ended is not None and ended.success is False else ExitCode.SUCCESS


class LineSkipping:
    """Takes the first lines of a log out of its records."""

    def __init__(self, lines: int) -> None:
        self._left = lines

    def take(self, record: Followed) -> Followed:
        """Return a record without what belongs to these lines; after a reset, the log begins again with all of them."""
        if isinstance(record, Notice) and record.type is NoticeType.RESET:
            self._left = 0
        if not self._left or not isinstance(record, JobEvent) or record.type != "log":
            return record
        parts = (record.data or "").split("\n", self._left)
        self._left -= len(parts) - 1
        return replace(record, data="" if self._left else parts[-1])


async def _start_of(repository: RedisJobRepository, job_id: str, line: int) -> tuple[int, LineSkipping]:
    """Return a position shortly before a line, and what skips the lines between the two."""
    engine = repository.engine
    keys = engine.keys.job(job_id)
    log = Log(keys, await engine.reader.extent(keys), await repository.incarnation(job_id))
    start = await engine.lines.start_of(log, line)
    return start.position, LineSkipping(line - 1 - start.lines)


async def _timestamped(repository: RedisJobRepository, job_id: str, after: int) -> TimestampedLines:
    """Return the writer of lines with times for a log that is shown from a position on."""
    reader, keys = repository.engine.reader, repository.engine.keys.job(job_id)
    extent = await reader.extent(keys)
    return TimestampedLines(is_at_line_start=not await reader.has_open_end(keys, extent, after))


def _render(lines: TimestampedLines | None, record: Followed) -> bytes:
    """Return the bytes that show a record."""
    if isinstance(record, JobEvent):
        return log_bytes(record) if lines is None else lines.render(record)
    return lines.break_off() if lines is not None and isinstance(record, Notice) else b""


async def _read(
    repository: RedisJobRepository, job_id: str, after: int, incarnation: str | None, *, follow: bool
) -> AsyncIterator[Sequence[Followed]]:
    """Yield the records after a position: of a running job each as it comes, else pages of events.

    StreamDamagedError if the log doesn't reach the position, or becomes another one meanwhile.
    """
    reader, keys = repository.engine.reader, repository.engine.keys.job(job_id)
    extent = await reader.extent(keys)
    if incarnation is not None and incarnation != await repository.incarnation(job_id):
        yield [Notice(NoticeType.RESET, 0)]
        after = 0
    elif after > extent.position:
        raise StreamDamagedError(job_id, after, None)
    if follow and extent.end_position is None:
        async with aclosing(repository.follow_records(job_id, after)) as records:
            async for record in records:
                yield [record]
        return
    # Following would end with the job, before late output.
    extent, ring = await reader.head_and_ring(keys)
    previous = None
    while page := await reader.read(keys, after, extent, PAGE_EVENTS, previous):
        yield page
        after, previous = after + len(page), page[-1]
    if ring is not None:
        say(PROVISIONAL)
        for page in ring.pages():
            yield page
