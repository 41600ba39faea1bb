"""`jobs grep`: search a job's whole log, as a terminal shows its lines."""

import json
from contextlib import aclosing
from math import inf
from typing import Any

import click

from ci_common.models import to_rfc3339
from ci_eventstore.cli.output import StandardOutput, say
from ci_eventstore.cli.store import find_job, uses_store
from ci_eventstore.cli.usage import ExitCode, examples
from ci_eventstore.lines.line_reader import Log
from ci_eventstore.lines.matching import Matcher, matcher_of
from ci_eventstore.lines.passages import LONGEST_LINE, PassageReader
from ci_eventstore.lines.provisional import hits_in
from ci_eventstore.lines.search import Hit, Query, search
from ci_eventstore.repository import RedisJobRepository

#: No log has as many lines.
ALL = 2**53
OUTGROWN = "the log has outgrown its budget: lines of its end so far have a + instead of a number until the job ends"


@click.command(
    epilog=examples(
        "jobs grep 3f9c 'undefined reference'", "jobs grep 3f9c -i error -C 3", "jobs grep 3f9c -E 'FAIL|ERROR' --json"
    )
)
@click.argument("job")
@click.argument("text")
@click.option("-i", "--ignore-case", is_flag=True, help="Upper and lower case are the same.")
@click.option("-E", "--regex", is_flag=True, help="TEXT is a pattern of RE2 (the extra `server`).")
@click.option(
    "-C", "--context", metavar="N", type=click.IntRange(0, 1000), default=0, help="Print N lines around each."
)
@click.option("-c", "--count", "show", flag_value="count", help="Print only how many lines have TEXT.")
@click.option("--json", "show", flag_value="json", help="Print a JSON object for each line.")
@uses_store
async def grep(
    repository: RedisJobRepository, job: str, text: str, ignore_case: bool, regex: bool, context: int, show: str | None
) -> int:
    """Print the lines of a job's log that have TEXT.

    All of the log is searched, be it live, sealed or archived, also the end so far of one that has outgrown its budget,
    whose lines have no numbers before the job ends. Lines are searched as a terminal shows them: without
    colours, with what a carriage return overwrites gone. Of a line its first mebibyte is searched. Exits with 1 if no
    line has TEXT.
    """
    try:
        matcher = matcher_of(text, "regex" if regex else "text", has_case=not ignore_case)
    except ValueError as error:
        raise click.UsageError(f"TEXT: {error}") from None
    return await _grep(repository, await find_job(repository, job), matcher, context, show)


async def _grep(repository: RedisJobRepository, job_id: str, matcher: Matcher, context: int, show: str | None) -> int:
    engine, terminal, last, count = repository.engine, StandardOutput(), 0, 0
    keys = engine.keys.job(job_id)
    extent, ring = await engine.reader.head_and_ring(keys)
    extent.check_deleted(job_id, 0)
    log = Log(keys, extent, await repository.incarnation(job_id))
    around = context if show is None else 0
    query = Query(matcher, 1, None, ALL, context=around, most_text=LONGEST_LINE, most_seconds=inf)

    async def tell(hit: Hit, *, is_provisional: bool, has_gap: bool) -> None:
        nonlocal count
        count += hit.places is not None
        if show == "json":
            await terminal.write(_to_json(hit, is_provisional=is_provisional))
        elif show is None:
            await terminal.write(_to_line(hit, "+" if is_provisional else hit.number, has_gap=has_gap and around > 0))

    async with aclosing(search(PassageReader(engine.reader, engine.lines), log, query)) as found:
        async for hit in found:
            if isinstance(hit, Hit):
                await tell(hit, is_provisional=False, has_gap=0 < last < hit.number - 1)
                last = hit.number
    if ring is not None:
        say(OUTGROWN)
        for place, hit in enumerate(hits_in(ring, query)):
            await tell(hit, is_provisional=True, has_gap=last > 0 and place == 0)
    if show == "count":
        click.echo(count)
    return ExitCode.SUCCESS if count else ExitCode.FAILED


def _to_line(hit: Hit, number: int | str, *, has_gap: bool) -> bytes:
    """Return a line as `grep -n` prints it."""
    sign = "-" if hit.places is None else ":"
    return f"{'--' + chr(10) if has_gap else ''}{number}{sign}{hit.text}\n".encode("utf-8", "surrogateescape")


def _to_json(hit: Hit, *, is_provisional: bool) -> bytes:
    text = hit.text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    shown: dict[str, Any] = {"t": to_rfc3339(hit.time), "text": text, "at": hit.places}
    return f"{json.dumps({'provisional': shown} if is_provisional else {'n': hit.number, **shown})}\n".encode()
