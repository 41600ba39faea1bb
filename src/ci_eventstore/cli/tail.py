"""`tail`: a job's log, byte for byte, as it grows."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing

import click

from ci_common.models import JobEvent
from ci_common.transitions import ENDED
from ci_eventstore.cli.exits import ExitCode
from ci_eventstore.cli.help import examples
from ci_eventstore.cli.messages import say
from ci_eventstore.cli.stdout import StandardOutput
from ci_eventstore.cli.store import find_job, uses_store
from ci_eventstore.events.log_lines import TimestampedLines, log_bytes
from ci_eventstore.events.records import FactType
from ci_eventstore.following.records import Followed, NoticeType
from ci_eventstore.repository import RedisJobRepository

PAGE_EVENTS = 1000
#: What is said beside the log.
NOTES: Mapping[str, str] = {
    FactType.TRUNCATING: "the log has outgrown its budget: what comes now is left out, but for its end, shown when the "
    "job ends",
    NoticeType.GAP: "part of the log isn't there any more: it goes on behind it",
    NoticeType.RESET: "the store has lost part of what is shown above: the log begins again here",
}


@click.command(epilog=examples("tail 3f9c", "tail 3f9c --timestamps", "tail 3f9c --no-follow > build.log"))
@click.argument("job")
@click.option("--after", metavar="N", type=click.IntRange(min=0), default=0, help="Begin behind event N.")
@click.option("--no-follow", is_flag=True, help="Print what is there, and end.")
@click.option("--timestamps", is_flag=True, help="Begin each line with the time at which it was stored.")
@uses_store
async def tail(repository: RedisJobRepository, job: str, after: int, no_follow: bool, timestamps: bool) -> int:
    """Print a job's log, and follow it until the job ends.

    The bytes are those that the command printed. Exits with 0 if the job passed, or hasn't ended (--no-follow); with 1
    if it failed or was cancelled.
    """
    job_id = await find_job(repository, job)
    terminal = StandardOutput()
    render: Callable[[JobEvent], bytes] = TimestampedLines().render if timestamps else log_bytes
    async for records in _read(repository, job_id, after, follow=not no_follow):
        events = [record for record in records if isinstance(record, JobEvent)]
        await terminal.write(b"".join(map(render, events)))
        for record in records:
            if record.type in NOTES:
                say(NOTES[record.type])
    ended = await repository.get_job_summary(job_id)
    return ExitCode.FAILED if ended is not None and ended.success is False else ExitCode.SUCCESS


async def _read(
    repository: RedisJobRepository, job_id: str, after: int, *, follow: bool
) -> AsyncIterator[Sequence[Followed]]:
    """Yield what is behind a position: of a job that runs one by one as it comes, else a page of events at a time."""
    job = await repository.get_job_summary(job_id)
    if follow and job is not None and job.status not in ENDED:
        async with aclosing(repository.follow_records(job_id, after)) as records:
            async for record in records:
                yield [record]
        return
    # Not by following, which ends with the job, before late output.
    while page := await repository.read_events(job_id, after, PAGE_EVENTS):
        yield page
        after += len(page)
        if len(page) < PAGE_EVENTS:
            return
