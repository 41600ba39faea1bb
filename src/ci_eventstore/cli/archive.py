"""`archive`, `jobs archive` and `jobs unarchive`: sealed logs in a folder or a bucket, and back."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import click

from ci_common.errors import JobNotFoundError
from ci_eventstore.archive import Archive
from ci_eventstore.cli.history import tell_sweep, until_stopped, working
from ci_eventstore.cli.output import say
from ci_eventstore.cli.store import find_job, uses_store
from ci_eventstore.cli.usage import ExitCode, duration_option, examples
from ci_eventstore.diagnosis.findings import plural
from ci_eventstore.errors import ArchiveUnavailableError, ConfigurationError, StoreError
from ci_eventstore.history.archive_check import check_archive
from ci_eventstore.history.archive_rebuild import rebuild_from_archive
from ci_eventstore.history.archiver import Archiver
from ci_eventstore.history.archiving import Moved, archive_job, unarchive_job
from ci_eventstore.repository import RedisJobRepository

archive_option = click.option(
    "--archive",
    "archive_url",
    metavar="URL",
    help="Where the archive is: file:///folder, or s3://, gs:// or az:// with a bucket and a prefix. Needed once: the "
    "store remembers it.",
)
#: Of programs that archive beside their own work.
archive_after_option = duration_option(
    "--archive-after", "Move the sealed logs of jobs that ended this long ago to the archive, as `archive sweep` does."
)


def _archiver(repository: RedisJobRepository, url: str | None) -> Archiver:
    engine = repository.engine
    return Archiver(engine.nodes, engine.reader.source, engine.keys, url)


@asynccontextmanager
async def archiving(
    repository: RedisJobRepository, after_seconds: float | None, url: str | None
) -> AsyncIterator[None]:
    """Archive jobs meanwhile, if a time is given; ConfigurationError."""
    if after_seconds is None:
        if url is not None:
            raise ConfigurationError("--archive says where logs go, --archive-after when: give both")
        yield
        return
    archiver = _archiver(repository, url)
    with suppress(ArchiveUnavailableError):
        # Each sweep logs that until it is back.
        await archiver.find()
    async with working(archiver.run(after_seconds), "archiving jobs"):
        yield


@click.group(epilog=examples("archive sweep --archive file:///srv/ci/archive --older-than 7d --once"))
def archive() -> None:
    """Keep sealed logs in a folder or a bucket.

    Archived logs take no memory of the server but a record, and read as before. `jobs archive` and `jobs unarchive`
    move single ones. Credentials of a bucket stand in the environment, as its own programs have them.
    """


@archive.command(
    epilog=examples(
        "archive sweep --archive s3://bucket/ci --older-than 7d",
        "archive sweep --older-than 30d --once",
    )
)
@archive_option
@duration_option("--older-than", "Only jobs that ended this long ago.", required=True)
@click.option("--once", is_flag=True, help="Move what is due, then end; 1 is the exit code if a job can't be archived.")
@uses_store
async def sweep(repository: RedisJobRepository, archive_url: str | None, older_than: float, once: bool) -> int:
    """Move sealed logs to the archive.

    Each is written, read back and compared before the store lets go of it. Only sealed jobs are moved (`seal`). Several
    of these may run, and be stopped at any time. A job that can't be archived is named, and tried again later; `verify
    --deep` says what is wrong with it. Without --once this goes on until Ctrl-C or SIGTERM.
    """
    archiver = _archiver(repository, archive_url)
    if not once:
        await archiver.find()
        return await until_stopped(archiver.run(older_than))
    return tell_sweep(await archiver.sweep(older_than), "archived", "archiving")


@archive.command(epilog=examples("archive check", "archive check --deep", "archive check --remove"))
@click.option("--deep", is_flag=True, help="Read all bytes of archived logs, not their sizes and ends alone.")
@click.option("--remove", is_flag=True, help="Remove the objects that nobody will ask for again.")
@uses_store
async def check(repository: RedisJobRepository, deep: bool, remove: bool) -> int:
    """Compare the archive's objects with the store's records.

    Prints what is missing or damaged, and exits with 1 if there is anything; then what nobody will ask for again, which
    --remove removes: the job's record refers to another segment that has all of it, or it was deleted. Objects of jobs
    that the store doesn't know are named, and stay: `archive rebuild` brings such jobs back.
    """
    there = await _archiver(repository, None).find()
    report = await check_archive(repository.engine, there, is_deep=deep, removes=remove)
    for job_id, why in sorted(report.damaged.items()):
        click.echo(f"job {job_id}: {why}")
    for name in report.orphans:
        click.echo(f"{'removed' if remove else 'not needed any more'}: {name}")
    for name, why in sorted(report.unknown.items()):
        click.echo(f"not known: {name}: {why}")
    jobs, objects = plural(report.jobs, "archived job"), plural(report.objects, "object")
    say(f"looked at {jobs} and {objects}: {plural(len(report.damaged), 'damaged job')}")
    return ExitCode.SUCCESS if report.is_whole else ExitCode.FAILED


@archive.command(epilog=examples("archive rebuild", "archive rebuild --archive s3://bucket/ci"))
@archive_option
@uses_store
async def rebuild(repository: RedisJobRepository, archive_url: str | None) -> int:
    """Bring back what the archive has and the store lacks.

    For a server that was restored from an older backup, or has lost its data. Jobs of whose logs the archive has more
    than the store come back as the archive has them; what was deleted is deleted again. What runs stays as it is, and
    is named. A new server has to be given as many partitions as the lost one had, and --archive URL: from then on it
    alone may write there under the store's name. It may be interrupted and repeated.
    """
    if archive_url is not None:
        # An empty folder isn't the archive that is meant.
        await Archive(archive_url).check()
    there = await _archiver(repository, archive_url).find(takes_over=archive_url is not None)
    report = await rebuild_from_archive(repository.engine, there)
    for what, why in sorted(report.left.items()):
        click.echo(f"{what}: {why}")
    say(f"brought back {plural(len(report.brought), 'job')}, deleted {len(report.deleted)} again")
    return ExitCode.FAILED if report.left else ExitCode.SUCCESS


@click.command("archive", epilog=examples("jobs archive 3f9c", "jobs archive 3f9c --archive file:///srv/ci/archive"))
@click.argument("job")
@archive_option
@uses_store
async def archive_one(repository: RedisJobRepository, job: str, archive_url: str | None) -> int:
    """Move a sealed log to the archive."""
    job_id = await find_job(repository, job)
    engine, there = repository.engine, await _archiver(repository, archive_url).find()
    return _tell(
        await archive_job(engine.nodes, engine.reader.source, there, engine.keys.job(job_id)), job_id, "in the archive"
    )


@click.command(epilog=examples("jobs unarchive 3f9c"))
@click.argument("job")
@uses_store
async def unarchive(repository: RedisJobRepository, job: str) -> int:
    """Bring a log back from the archive.

    It stays sealed, and a copy stays in the archive. A sweep moves it there again.
    """
    job_id = await find_job(repository, job)
    engine = repository.engine
    found = await unarchive_job(engine.nodes, engine.reader.source, engine.keys.job(job_id))
    return _tell(found, job_id, "in the store")


def _tell(found: Moved, job_id: str, where: str) -> int:
    match found:
        case Moved.MISSING:
            raise JobNotFoundError(job_id)
        case Moved.NOT_DUE:
            raise StoreError(
                f"job {job_id!r} isn't sealed: `ci-eventstore seal --once --after 0s` seals what has ended"
            )
        case Moved.CHANGED:
            raise StoreError(f"job {job_id!r} was written to, sealed or moved meanwhile: do it again")
    click.echo(f"the log of job {job_id} is {where}" if found is Moved.MOVED else f"the log of job {job_id} was there")
    return ExitCode.SUCCESS
