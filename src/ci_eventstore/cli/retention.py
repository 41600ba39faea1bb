"""`retention`: delete jobs that ended long ago, and tombstones of those that were deleted long ago."""

import click

from ci_common.models import JobStatus
from ci_common.transitions import ENDED
from ci_eventstore.cli.output import say
from ci_eventstore.cli.store import uses_store
from ci_eventstore.cli.usage import ExitCode, duration_option, examples
from ci_eventstore.history.retention import TOMBSTONE_DAYS, Policy, drop_tombstones, sweep
from ci_eventstore.repository import RedisJobRepository


@click.command(
    epilog=examples(
        "retention --older-than 30d --dry-run",
        "retention --older-than 30d",
        "retention --older-than 7d --status failed --status cancelled --queue nightly",
    )
)
@duration_option("--older-than", "Delete jobs that ended this long ago.", required=True)
@click.option(
    "--status",
    "statuses",
    multiple=True,
    type=click.Choice(sorted(status.value for status in ENDED)),
    help="Only jobs that ended so; may be repeated.",
)
@click.option("--queue", metavar="NAME", help="Only jobs of this queue.")
@click.option("--unsealed", is_flag=True, help="Delete jobs whose logs aren't sealed, too.")
@click.option("--dry-run", is_flag=True, help="Print the ids of the jobs that would be deleted, and delete nothing.")
@duration_option("--tombstones", "Forget jobs that were deleted this long ago.", default=f"{TOMBSTONE_DAYS}d")
@uses_store
async def retention(
    repository: RedisJobRepository,
    older_than: float,
    statuses: tuple[str, ...],
    queue: str | None,
    unsealed: bool,
    dry_run: bool,
    tombstones: float,
) -> int:
    """Delete jobs that ended long ago.

    A job that waits or runs is never deleted; one whose log isn't sealed only with --unsealed. It may be stopped and
    run again at any time, for instance by a timer. A job that can't be deleted is named and left behind, and the exit
    code is 1. Tombstones of jobs that were deleted long ago go, too: their ids are as if they had never been used.
    """
    policy = Policy(
        older_than_seconds=older_than,
        statuses=frozenset(map(JobStatus, statuses)),
        queue=queue,
        takes_unsealed=unsealed,
    )
    swept = await sweep(repository.engine, policy, is_dry_run=dry_run)
    for job_id, why in sorted(swept.left.items()):
        say(f"job {job_id} can't be deleted: {why}")
    jobs = f"{len(swept.deleted)} job{'' if len(swept.deleted) == 1 else 's'}"
    if dry_run:
        for job_id in swept.deleted:
            click.echo(job_id)
        say(f"would delete {jobs}")
    else:
        dropped = await drop_tombstones(repository.engine, tombstones)
        say(f"deleted {jobs}" + (f", forgot {dropped} that were deleted before" if dropped else ""))
    return ExitCode.FAILED if swept.left else ExitCode.SUCCESS
