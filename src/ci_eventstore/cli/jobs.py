"""`jobs`: list, show and cancel jobs."""

from datetime import datetime

import click

from ci_common.errors import JobNotFoundError, RepositoryError, UserNotFoundError
from ci_common.models import Job, JobStatus, utc_now
from ci_common.transitions import ENDED
from ci_eventstore.cli.lazy_group import LazyGroup
from ci_eventstore.cli.output import (
    NOTHING,
    command_line,
    duration,
    echo_json,
    json_option,
    local_time,
    properties,
    result,
    result_in_full,
    say,
    table,
)
from ci_eventstore.cli.store import find_job, find_user, uses_store
from ci_eventstore.cli.usage import examples
from ci_eventstore.connection.absence import names_of
from ci_eventstore.errors import ArchiveUnavailableError, ConfigurationError, StoreUnavailableError
from ci_eventstore.events.sealed_log import references_in
from ci_eventstore.history.retention import rules_in_force
from ci_eventstore.history.rules import outlook
from ci_eventstore.job_fields import JOB_FIELDS, job_json
from ci_eventstore.jobs.state import JobState
from ci_eventstore.repository import RedisJobRepository

#: What `jobs show` begins with, in this order.
FIRST = (
    "job", "name", "command", "status", "result", "user", "queue", "project", "created", "started", "ended", "took",
    "container",
)  # fmt: skip
#: What is said of a log that was deleted, and of a long one.
DELETED = "it was deleted; what was written later is there"
OUTGROWN = "it has outgrown its budget: a line in it says what is left out"
OUTGROWN_SO_FAR = (
    "it has outgrown its budget: its beginning is kept, and its end, which `tail --no-follow` shows so far"
)


#: What else there is in this group.
ELSEWHERE = {
    "archive": "archive:archive_one",
    "grep": "grep:grep",
    "segment": "history:segment",
    "unarchive": "archive:unarchive",
}


@click.group(
    cls=LazyGroup,
    elsewhere=ELSEWHERE,
    epilog=examples("jobs list --status running", "jobs show 3f9c", "jobs cancel 3f9c --reason 'wrong branch'"),
)
def jobs() -> None:
    """List, show, cancel, keep and delete jobs."""


@jobs.command(
    "list", epilog=examples("jobs list", "jobs list --user ada@example.com --status failed", "jobs list --json")
)
@click.option("--user", metavar="USER", help="Only this user's jobs: an id or an email.")
@click.option("--status", type=click.Choice([status.value for status in JobStatus]), help="Only jobs of this status.")
@click.option("--limit", type=click.IntRange(min=1), default=20, help="Show at most N jobs.")
@click.option("--before", metavar="JOB", help="Only jobs created before this one: the next page.")
@json_option
@uses_store
async def list_jobs(
    repository: RedisJobRepository, user: str | None, status: str | None, limit: int, before: str | None, as_json: bool
) -> None:
    """List jobs, the newest first.

    STATUS is where a job stands in its life, RESULT how its command ended: a completed job has passed or failed. A
    partition that can't be reached is named on standard error, and its jobs are missing from the list.
    """
    user_id = None if user is None else await _owner_id(repository, user)
    before_id = None if before is None else await find_job(repository, before)
    await repository.engine.holders.look_once()
    listed = await repository.page_available_jobs(user_id, status, limit + 1, before_id)
    found, page = listed.jobs, listed.jobs[:limit]
    if listed.unavailable:
        say(f"{names_of(listed.unavailable)} can't be reached: the jobs there are missing from this list")
    if as_json:
        echo_json([job_json(job) for job in page])
        return
    if page:
        titles = ("ID", "STATUS", "RESULT", "CREATED", "TOOK", "USER", "NAME")
        click.echo(table(titles, list(map(_row, page))))
    else:
        say("there are no such jobs")
    if len(found) > limit:
        say(f"there are more: add --before {page[-1].id}")


@jobs.command(epilog=examples("jobs show 3f9c", "jobs show 3f9c --json"))
@click.argument("job")
@json_option
@uses_store
async def show(repository: RedisJobRepository, job: str, as_json: bool) -> None:
    """Show one job."""
    job_id = await find_job(repository, job)
    await repository.engine.holders.look_once()
    found = await repository.get_job_summary(job_id)
    if found is None:
        raise JobNotFoundError(job_id)
    silence = None if found.status in ENDED else await repository.engine.lost_jobs.silence(job_id)
    if silence is not None:
        say(f"{silence[0]} has this job, but hasn't renewed its lease, which ran out {silence[1]:.0f}s ago")
    state = await repository.engine.jobs.state(job_id)
    root = None if state is None or state.log is None else await _root(repository, job_id, state.log)
    is_kept = state is not None and bool(state.is_kept)
    prospect = None if state is None else await _prospect(repository, job_id, state)
    if as_json:
        more = {
            "incarnation": await repository.incarnation(job_id),
            "root": root,
            "kept": is_kept,
            "retention": prospect,
        }
        echo_json({**job_json(found), **more})
    else:
        kept = [("kept", "retention leaves it alone")] if is_kept else []
        kept += [] if prospect is None else [("retention", prospect)]
        click.echo(properties(job_properties(found) + ([] if root is None else [("sealed, root", root)]) + kept))


async def _prospect(repository: RedisJobRepository, job_id: str, state: JobState) -> str | None:
    """Return what the store's rules will do with a job, None if it keeps none."""
    try:
        rules = await rules_in_force(repository.engine)
    except (ConfigurationError, StoreUnavailableError) as error:
        # Another version's, or those of a partition that is away, which is no reason to show nothing.
        return f"not known: {error}"
    return outlook(rules, job_id, state) if rules else None


@jobs.command(epilog=examples("jobs cancel 3f9c", "jobs cancel 3f9c --reason 'wrong branch'"))
@click.argument("job")
@click.option("--reason", metavar="TEXT", help="The reason, for the job's log.")
@uses_store
async def cancel(repository: RedisJobRepository, job: str, reason: str | None) -> None:
    """Cancel a job.

    The controller or the `ci-eventstore run` that has the job stops its command; a controller's job ends when its
    command has ended. If the controller doesn't respond, this waits for its lease to run out, and ends the job itself.
    Cancelling a cancelled job does nothing; a job that ended otherwise can't be cancelled.
    """
    job_id = await find_job(repository, job)
    lost_jobs = repository.engine.lost_jobs
    sign = await lost_jobs.sign_of_life(job_id)
    await repository.cancel_job(job_id, reason)
    try:
        await lost_jobs.settle(job_id, sign)
    except RepositoryError as error:
        say(f"whether its controller is alive can't be seen: {error}")
    found = await repository.get_job_summary(job_id)
    if found is None or found.status == JobStatus.CANCELLED:
        click.echo(f"job {job_id} is cancelled")
    elif found.status in ENDED:
        click.echo(f"job {job_id} has just ended by itself: {found.status}")
    else:
        click.echo(f"job {job_id} is being cancelled by the process that runs it")


async def _root(repository: RedisJobRepository, job_id: str, log: str) -> str | None:
    """Return the root of a sealed log, which stands for all of it; None while it lies in an archive that is away."""
    keys, last = repository.engine.keys.job(job_id), references_in(job_id, log)[-1]
    try:
        return (await repository.engine.reader.source.sealed.reader(keys, last)).root.hex()
    except ArchiveUnavailableError as error:
        say(f"the root of its log can't be read: {error}")
        return None


@jobs.command(epilog=examples("jobs keep 3f9c", "jobs keep 3f9c --unkeep"))
@click.argument("job")
@click.option("--unkeep", is_flag=True, help="Let retention delete the job again.")
@uses_store
async def keep(repository: RedisJobRepository, job: str, unkeep: bool) -> None:
    """Keep a job for good: retention leaves it alone.

    It may still be running. `jobs delete` deletes it all the same.
    """
    job_id = await find_job(repository, job)
    await repository.keep_job(job_id, is_kept=not unkeep)
    click.echo(f"job {job_id} is {'no longer ' if unkeep else ''}kept")


@jobs.command(epilog=examples("jobs delete 3f9c", "jobs delete 3f9c 77aa 0b1d"))
@click.argument("job", nargs=-1, required=True)
@uses_store
async def delete(repository: RedisJobRepository, job: tuple[str, ...]) -> None:
    """Delete jobs that have ended, with their logs.

    Nothing brings them back. As long as their tombstones are kept (`retention --tombstones`), no other job can have
    their ids, and asking for one says that the job was deleted. A job that waits or runs has to be cancelled first.
    """
    for beginning in job:
        job_id = await find_job(repository, beginning)
        was_there = await repository.delete_job(job_id)
        click.echo(f"job {job_id} is deleted" if was_there else f"job {job_id} was deleted before")


@jobs.command("delete-log", epilog=examples("jobs delete-log 3f9c", "jobs delete-log 3f9c 77aa 0b1d"))
@click.argument("job", nargs=-1, required=True)
@uses_store
async def delete_log(repository: RedisJobRepository, job: tuple[str, ...]) -> None:
    """Delete the logs of jobs that have ended; the jobs stay.

    Nothing brings a log back; asking for it says that it was deleted. The job's status, times and command stay. A job
    that waits or runs has to be cancelled first.
    """
    for beginning in job:
        job_id = await find_job(repository, beginning)
        was_there = await repository.delete_log(job_id)
        click.echo(f"the log of job {job_id} {'is' if was_there else 'was'} deleted{'' if was_there else ' before'}")


async def _owner_id(repository: RedisJobRepository, user: str) -> str:
    """Return the id of a user who has an account, or at least a job; UserNotFoundError."""
    try:
        return (await find_user(repository, user)).id
    except UserNotFoundError:
        if await repository.page_jobs(user, limit=1):
            return user
        raise


def _row(job: Job) -> tuple[str, ...]:
    name = job.name or command_line(job.command)
    created = local_time(job.created_at)
    return (job.id, str(job.status), result(job), created, _took(job), job.user_id or NOTHING, name)


def _took(job: Job) -> str:
    return duration(job.start_time, job.end_time or utc_now())


def job_properties(job: Job) -> list[tuple[str, str]]:
    """Return what is shown of a job to people, names and values."""
    outgrown = OUTGROWN if job.status in ENDED else OUTGROWN_SO_FAR
    known = {
        **{field.label: _shown(getattr(job, name)) for name, field in JOB_FIELDS.items() if field.label},
        "job": job.id,
        "status": str(job.status),
        "result": result_in_full(job),
        "took": _took(job),
        **({"log": outgrown} if job.log_truncated else {}),
        **({"log": DELETED} if job.log_deleted else {}),
    }
    return [(label, known.pop(label)) for label in FIRST] + list(known.items())


def _shown(value: object) -> str:
    """Write the value of a field for people."""
    if isinstance(value, datetime):
        return local_time(value)
    return command_line(value) if isinstance(value, list) else NOTHING if value is None else str(value)
