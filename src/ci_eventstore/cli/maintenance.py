"""`verify`, `rebuild`, `restored` and `upgrade`: look after the whole store."""

import asyncio
import sys
from collections.abc import Sequence
from dataclasses import asdict

import click

from ci_eventstore.cli.output import echo_json, json_option, say, showing_progress
from ci_eventstore.cli.store import StoreAddress, find_job, uses_address, uses_store
from ci_eventstore.cli.usage import ExitCode, examples
from ci_eventstore.connection.deployments import default_url, from_url
from ci_eventstore.diagnosis.findings import plural
from ci_eventstore.errors import ArchiveUnavailableError
from ci_eventstore.history.archive_rebuild import delete_again
from ci_eventstore.history.archiver import Archiver
from ci_eventstore.projection.differences import Difference
from ci_eventstore.repository import RedisJobRepository
from ci_eventstore.settings import Settings
from ci_eventstore.store_format import FORMAT_VERSION
from ci_eventstore.upgrade.upgrade import Dialog, Stage, cancel
from ci_eventstore.upgrade.upgrade import upgrade as upgrade_store

fast_option = click.option(
    "--fast", is_flag=True, help="Don't walk through all keys of the server: what stands in no index isn't found."
)
MARKED = (
    "the store stays marked, and no program opens it: run `ci-eventstore upgrade` again to go on; with --cancel it "
    "goes back to the old version, if nothing is converted yet"
)


@click.command(epilog=examples("verify", "verify 3f9c", "verify --deep", "verify --json"))
@click.argument("job", required=False)
@click.option("--deep", is_flag=True, help="Read sealed logs from their beginnings, not their last states alone.")
@fast_option
@json_option
@uses_store
async def verify(repository: RedisJobRepository, job: str | None, as_json: bool, fast: bool, deep: bool) -> int:
    """Compare hashes and indexes with their logs.

    Looks at one job, or the whole store, which may be in use. Prints a line for each difference, and exits with 1 if
    there are any. On a terminal it shows its progress.
    """
    job_id = None if job is None else await find_job(repository, job)
    with showing_progress("jobs verified") as progress:
        differences = await repository.verify(job_id, progress=progress, fast=fast, deep=deep)
    _echo(differences, as_json)
    if differences:
        say(f"{_count(differences)}: `ci-eventstore rebuild` mends what can be mended")
        return ExitCode.FAILED
    say("no differences")
    return ExitCode.SUCCESS


@click.command(epilog=examples("rebuild", "rebuild 3f9c"))
@click.argument("job", required=False)
@fast_option
@json_option
@uses_store
async def rebuild(repository: RedisJobRepository, job: str | None, as_json: bool, fast: bool) -> int:
    """Mend hashes and indexes that differ from their streams.

    Looks at one job, or the whole store, which may be in use. Prints what it mended, and exits with 1 if something
    can't be mended, such as a job whose stream is gone.
    """
    job_id = None if job is None else await find_job(repository, job)
    with showing_progress("jobs looked at") as progress:
        found = await repository.rebuild(job_id, progress=progress, fast=fast)
    left = set(await repository.verify(job_id, fast=fast) if found else ())
    mended = [difference for difference in found if difference not in left]
    _echo(mended, as_json)
    say(f"mended {_count(mended)}" if found else "there was nothing to mend")
    for difference in sorted(left, key=str):
        say(f"can't be mended: {difference}")
    return ExitCode.FAILED if left else ExitCode.SUCCESS


def _echo(differences: Sequence[Difference], as_json: bool) -> None:
    if as_json:
        echo_json([asdict(difference) for difference in differences])
    for difference in () if as_json else differences:
        click.echo(str(difference))


def _count(differences: Sequence[Difference]) -> str:
    return plural(len(differences), "difference")


@click.command(epilog=examples("restored"))
@uses_store
async def restored(repository: RedisJobRepository) -> int:
    """Tell the store that its data was restored from a backup.

    Run it when the server has the older data, before clients reconnect. It gives the store a new incarnation: a client
    that reconnects with a position and an older incarnation begins again, even if the log has grown past that position
    since. Jobs and logs that were deleted since the backup are deleted again, if the store has an archive, which knows
    that. Run it also after a failover that may have lost writes. Running it twice does no harm: clients only begin
    again once more.
    """
    incarnation = await repository.restored()
    say(f"the store has the incarnation {incarnation} now: clients that reconnect with another one begin again")
    engine = repository.engine
    if await engine.reader.source.sealed.archived.archive(engine.keys.tags[0]) is None:
        return ExitCode.SUCCESS
    try:
        report = await delete_again(engine, await Archiver(engine.nodes, engine.reader.source, engine.keys).find())
    except ArchiveUnavailableError as error:
        say(f"{error}: what was deleted since the backup is there until you have run `ci-eventstore archive rebuild`")
        return ExitCode.FAILED
    for what, why in sorted(report.left.items()):
        click.echo(f"{what}: {why}")
    say(f"deleted {plural(len(report.deleted), 'job')} again; `ci-eventstore archive rebuild` brings what is missing")
    return ExitCode.FAILED if report.left else ExitCode.SUCCESS


@click.command(epilog=examples("upgrade", "upgrade --yes", "upgrade --cancel"))
@click.option("--yes", is_flag=True, help="Don't ask whether there is a backup.")
@click.option(
    "--force", is_flag=True, help="Don't wait until programs of the old version are gone; only if none is running."
)
@click.option(
    "--cancel",
    "is_cancelled",
    is_flag=True,
    help="Give the store back to the old version, if nothing is converted yet.",
)
@uses_address
async def upgrade(address: StoreAddress, yes: bool, force: bool, is_cancelled: bool) -> int:
    """Bring a store of an earlier format version over to this one.

    It marks the store, so that no program opens it, waits until programs of the old version are gone, asks for a
    backup, and converts the store. It may be interrupted at any time: run it again to finish it. Once it has begun to
    convert, only the backup leads back.
    """
    deployment, settings = from_url(address.find_url() or default_url()), Settings(**address.settings())
    if is_cancelled:
        await cancel(deployment, settings.prefix, settings.access)
        say("the store isn't marked any more: programs of the old version open it again")
        return ExitCode.SUCCESS
    if not yes and not sys.stdin.isatty():
        raise click.UsageError("there is no terminal to ask whether there is a backup: make one, then give --yes")
    with showing_progress("keys looked at") as progress:
        dialog = Dialog(lambda: yes or _has_backup(), _say_waiting, progress)
        try:
            stage = await upgrade_store(deployment, settings.prefix, dialog, is_forced=force, access=settings.access)
        except (asyncio.CancelledError, click.Abort):
            say(MARKED)
            raise
    if stage is Stage.DONE:
        say(f"the store has format version {FORMAT_VERSION}")
        return ExitCode.SUCCESS
    say(f"nothing was converted; {MARKED}")
    return ExitCode.FAILED


def _has_backup() -> bool:
    return click.confirm(
        "Is there a backup of the server's data, made since the store is marked? Without it there is no way back",
        err=True,
    )


def _say_waiting(obstacles: Sequence[str]) -> None:
    shown = ", ".join(obstacles[:5]) + (f" and {len(obstacles) - 5} more" if len(obstacles) > 5 else "")
    say(f"waiting until these are gone (--force: go on without): {shown}")
