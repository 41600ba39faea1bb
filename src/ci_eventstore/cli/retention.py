"""`retention` and `rules`: delete jobs that ended long ago or take too much, and say which these are."""

from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict, Unpack

import click

from ci_common.models import JobStatus
from ci_common.transitions import ENDED
from ci_eventstore.amounts import parse_size
from ci_eventstore.cli.output import say
from ci_eventstore.cli.store import uses_store
from ci_eventstore.cli.usage import ExitCode, duration_option, examples, literally
from ci_eventstore.connection.absence import names_of
from ci_eventstore.errors import ConfigurationError
from ci_eventstore.history.retention import TOMBSTONE_DAYS, drop_tombstones, keep_rules, rules_in_force, sweep
from ci_eventstore.history.rules import Rule, read_rules, write_rules
from ci_eventstore.repository import RedisJobRepository


class Options(TypedDict):
    """What the command line says of one sweep."""

    older_than: float | None
    max_size: int | None
    statuses: tuple[str, ...]
    queues: tuple[str, ...]
    unsealed: bool
    rules: Path | None
    dry_run: bool
    tombstones: float


def _read_size(context: click.Context, parameter: click.Parameter, text: str | None) -> int | None:
    try:
        return None if text is None else parse_size(text)
    except ValueError as error:
        raise click.BadParameter(str(error), context, parameter) from None


@click.command(
    epilog=examples(
        "retention --older-than 30d --dry-run",
        "retention --older-than 30d --max-size 10GiB",
        "retention --older-than 7d --status failed --status cancelled --queue nightly",
        "retention --rules retention.toml --dry-run",
        "retention",
    )
)
@duration_option("--older-than", "Delete jobs that ended this long ago.")
@click.option(
    "--max-size",
    metavar="SIZE",
    callback=_read_size,
    help="Delete the oldest ended jobs until the others have at most this size, such as 10GiB: their logs, as they are "
    "stored, and 1 KiB each.",
)
@click.option(
    "--status",
    "statuses",
    multiple=True,
    type=click.Choice(sorted(status.value for status in ENDED)),
    help="Only jobs that ended so; may be repeated.",
)
@click.option("--queue", "queues", metavar="NAME", multiple=True, help="Only jobs of this queue; may be repeated.")
@click.option("--unsealed", is_flag=True, help="Delete jobs whose logs aren't sealed, too.")
@click.option(
    "--rules",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Go by the rules in this file, as `rules set` takes it.",
)
@click.option("--dry-run", is_flag=True, help="Print the ids of the jobs that would be deleted, and delete nothing.")
@duration_option("--tombstones", "Forget jobs that were deleted this long ago.", default=f"{TOMBSTONE_DAYS}d")
@uses_store
async def retention(repository: RedisJobRepository, **options: Unpack[Options]) -> int:
    """Delete jobs that ended long ago, or take too much.

    Without --older-than, --max-size and --rules it goes by the rules that the store keeps (`rules set`). A job that
    waits, runs or is kept (`jobs keep`) is never deleted; one whose log isn't sealed only with --unsealed. Such jobs
    don't count for --max-size.

    It may be stopped and run again at any time, for instance by a timer. A job that can't be deleted is named and left
    behind, as is a partition that can't be reached, and the exit code is 1. Tombstones of jobs that were deleted long
    ago go, too: their ids are as if they had never been used.
    """
    swept = await sweep(repository.engine, await _rules(repository, options), is_dry_run=options["dry_run"])
    for job_id, why in sorted(swept.left.items()):
        say(f"job {job_id} can't be deleted: {why}")
    if swept.unavailable:
        say(f"{names_of(swept.unavailable)} can't be reached: their jobs stay")
    jobs = f"{len(swept.deleted)} job{'' if len(swept.deleted) == 1 else 's'}"
    if options["dry_run"]:
        for job_id in swept.deleted:
            click.echo(job_id)
        say(f"would delete {jobs}")
    else:
        dropped = await drop_tombstones(repository.engine, options["tombstones"])
        say(f"deleted {jobs}" + (f", forgot {dropped} that were deleted before" if dropped else ""))
    return ExitCode.FAILED if swept.left or swept.unavailable else ExitCode.SUCCESS


async def _rules(repository: RedisJobRepository, options: Options) -> Sequence[Rule]:
    """Return the rules of the command line, of the file or of the store; ConfigurationError."""
    has_limit = options["older_than"] is not None or options["max_size"] is not None
    has_filter = bool(options["statuses"] or options["queues"] or options["unsealed"])
    if options["rules"] is not None:
        if has_limit or has_filter:
            raise click.UsageError("--rules can't be used with options that make a rule")
        return _read_file(options["rules"])
    if has_limit:
        rule = Rule(
            statuses=frozenset(map(JobStatus, options["statuses"])),
            queues=frozenset(options["queues"]),
            older_than_seconds=options["older_than"],
            max_bytes=options["max_size"],
            takes_unsealed=options["unsealed"],
        )
        return [rule]
    if has_filter:
        raise click.UsageError("say by --older-than or --max-size which of these jobs are deleted")
    found = await rules_in_force(repository.engine)
    if not found:
        raise click.UsageError("the store keeps no rules: give --older-than, --max-size or --rules, or use `rules set`")
    return found


def _read_file(path: Path) -> list[Rule]:
    """Return the rules in a file; ConfigurationError, OSError."""
    try:
        return read_rules(path.read_text("utf-8"), str(path), is_json=path.suffix == ".json")
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{path}: {error}") from error


@click.group(epilog=examples("rules set retention.toml", "rules show", "rules drop"))
def rules() -> None:
    """Keep rules by which `retention` deletes jobs."""


#: Shown by the help of `rules set`.
EXAMPLE = literally(
    "A file of rules:",
    "  [[rules]]",
    '  queue = ["release"]',
    "  keep = true",
    "  [[rules]]",
    '  status = ["failed", "cancelled"]',
    '  older-than = "7d"',
    "  [[rules]]",
    '  older-than = "90d"',
    '  max-size = "10GiB"',
    "  unsealed = true",
)


@rules.command("set", epilog=f"{EXAMPLE}\n\n{examples('rules set retention.toml', 'rules set retention.json')}")
@click.argument("file", type=click.Path(path_type=Path))
@uses_store
async def set_rules(repository: RedisJobRepository, file: Path) -> None:
    """Have the store keep the rules in a file.

    They replace the rules that it has. `retention` goes by them, and `jobs show` says what they will do with a job.
    Nothing is deleted before somebody runs `retention`. The file is JSON if its name ends with .json, else TOML. The
    first rule that fits a job decides; a job that no rule fits stays.
    """
    found = _read_file(file)
    await keep_rules(repository.engine, found)
    say(f"the store keeps {len(found)} rule{'' if len(found) == 1 else 's'}")


@rules.command("show", epilog=examples("rules show > rules.json"))
@uses_store
async def show_rules(repository: RedisJobRepository) -> None:
    """Print the rules that the store keeps, as JSON."""
    found = await rules_in_force(repository.engine)
    if found:
        click.echo(write_rules(found))
    else:
        say("the store keeps no rules")


@rules.command("drop", epilog=examples("rules drop"))
@uses_store
async def drop_rules(repository: RedisJobRepository) -> None:
    """Have the store keep no rules any more.

    Until there are others, `retention` has to be told by its options what it deletes.
    """
    await keep_rules(repository.engine, [])
    say("the store keeps no rules")
