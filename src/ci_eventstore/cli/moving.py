"""`copy`, `export-store` and `import-store`: bring what a store holds into another one, or into a file and back."""

import asyncio
import os
from contextlib import nullcontext
from importlib import import_module
from pathlib import Path

import click

from ci_common.repository import JobRepository
from ci_eventstore.cli.output import say, showing_progress
from ci_eventstore.cli.replay import replaced
from ci_eventstore.cli.store import StoreAddress, uses_address, uses_store
from ci_eventstore.cli.usage import ExitCode, examples
from ci_eventstore.connection.deployments import from_url
from ci_eventstore.connection.nodes import Nodes
from ci_eventstore.diagnosis.findings import plural
from ci_eventstore.errors import ConfigurationError, StoreFormatError
from ci_eventstore.history.copied_stores import StoreSource, StoreTarget
from ci_eventstore.history.copying import Copier, CopyReport
from ci_eventstore.history.copying_by_contract import copy_accounts, copy_jobs
from ci_eventstore.history.freezing import frozen
from ci_eventstore.history.store_file import StoreFile, StoreFileSource
from ci_eventstore.keys import Keys
from ci_eventstore.repository import RedisJobRepository
from ci_eventstore.settings import GivenSettings
from ci_eventstore.store_format import find_partitions


@click.command(
    epilog=examples(
        "copy --from embedded:///var/lib/ci --to redis://server --partitions 16",
        "copy --from redis://old --to redis://new --to-prefix ci-2",
        "copy --from redis://old --to redis://new --freeze",
        "copy --from our_ci.adapter:open_jobs --to redis://new",
    )
)
@click.option(
    "--from",
    "source_url",
    metavar="URL",
    required=True,
    help="The store that is copied; it is only read. Or MODULE:CALLABLE, which returns a `JobRepository` of any kind.",
)
@click.option("--to", "target_url", metavar="URL", required=True, help="The store that it is copied to.")
@click.option("--prefix", metavar="NAME", default="ci", help="The name of the store that is copied.")
@click.option("--to-prefix", metavar="NAME", help="The name of the other one.  [default: the same]")
@click.option(
    "--partitions",
    type=click.IntRange(1, 1024),
    help="How many partitions the other store gets, if it is new.  [default: as many]",
)
@click.option(
    "--freeze",
    "is_frozen",
    is_flag=True,
    help="Have the first server hold back all writes until the copy is done, those of its other stores too.",
)
def copy(
    source_url: str, target_url: str, prefix: str, to_prefix: str | None, partitions: int | None, is_frozen: bool
) -> int:
    """Bring what a store holds into another one.

    Jobs with their logs, tombstones, users and API keys; jobs that wait get their places in their queues. Jobs that run
    are left out, and named. It may be interrupted at any time and run again: it copies what is new or longer. At the
    end both stores are compared, each entry of each job; the exit code is 1 if something differs or was left out. Stop
    controllers first, or jobs that wait in both stores may run twice.
    """
    return asyncio.run(_copy((source_url, prefix), (target_url, to_prefix or prefix), partitions, is_frozen=is_frozen))


async def _copy(
    source_at: tuple[str, str], target_at: tuple[str, str], partitions: int | None, *, is_frozen: bool
) -> int:
    if "://" not in source_at[0]:
        if is_frozen:
            raise ConfigurationError("--freeze is for a store with a URL: only its server can hold writes back")
        return await _copy_by_contract(_repository_of(source_at[0]), target_at, partitions)
    found = await _partitions(*source_at)
    if found is None:
        raise ConfigurationError(f"there is no store {source_at[1]!r} to copy from")
    wanted = partitions or await _partitions(*target_at) or found
    async with (
        RedisJobRepository.from_url(source_at[0], prefix=source_at[1], partitions=found, access="read") as source,
        RedisJobRepository.from_url(target_at[0], prefix=target_at[1], partitions=wanted) as target,
    ):
        nodes = source.engine.nodes
        freeze = frozen(nodes, target.engine.nodes) if is_frozen else nullcontext()
        with showing_progress("jobs copied and compared") as progress:
            copier = Copier(StoreSource(source.engine), StoreTarget(target.engine), progress)
            async with freeze:
                await copy_accounts(source, target, copier.report)
                await copier.copy()
        return _tell(copier.report)


async def _copy_by_contract(source: JobRepository, target_at: tuple[str, str], partitions: int | None) -> int:
    report = CopyReport()
    async with (
        source,
        RedisJobRepository.from_url(target_at[0], prefix=target_at[1], partitions=partitions) as target,
    ):
        await copy_accounts(source, target, report)
        await copy_jobs(source, target, report)
        return _tell(report)


def _repository_of(name: str) -> JobRepository:
    """Return what the callable of that name returns; ConfigurationError."""
    module, _, attribute = name.partition(":")
    try:
        found = getattr(import_module(module), attribute)()
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        raise ConfigurationError(f"--from {name}: it is no URL, and no MODULE:CALLABLE: {error}") from error
    if not isinstance(found, JobRepository):
        raise ConfigurationError(f"--from {name}: it returns a {type(found).__name__}, not a JobRepository")
    return found


async def _partitions(url: str, prefix: str) -> int | None:
    deployment = from_url(url)
    nodes = Nodes(deployment)
    try:
        return await find_partitions(nodes, Keys(prefix))
    finally:
        await nodes.close()
        deployment.release()


def _regular(context: click.Context, parameter: click.Parameter, file: Path) -> Path:
    if file.exists() and not file.is_file():
        raise click.BadParameter(f"{file} is no regular file, and an export is read back to compare it")
    return file


@click.command("export-store", epilog=examples("export-store ci.store", "export-store /backup/ci.store --prefix ci-2"))
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False), callback=_regular)
@uses_store
async def export_store(repository: RedisJobRepository, file: Path) -> int:
    """Write all that a store holds to one file.

    Jobs with their logs, tombstones, users and the hashes of API keys, as `copy` brings them to another store; jobs
    that run are left out, and named. docs/format.md describes the file, for other programs. It has its name once it is
    whole and was compared with the store; the exit code is 1 if something differs or was left out.
    """
    engine = repository.engine
    with replaced(file) as descriptor, os.fdopen(descriptor, "r+b", closefd=False) as opened:
        written = StoreFile(opened, engine.keys.prefix, await engine.incarnation.read())
        for user in await repository.list_users():
            written.take_account(user)
        for key in await repository.list_api_keys():
            written.take_account(key)
        with showing_progress("jobs written and compared") as progress:
            copier = Copier(StoreSource(engine), written, progress)
            await copier.bring()
            source = StoreFileSource(opened)
            source.check()
            compared = Copier(source, StoreTarget(engine), progress, copier.report)
            await compared.compare()
    return _tell(copier.report, "written", "the file", "the store")


@click.command("import-store", epilog=examples("import-store ci.store", "import-store ci.store --partitions 16"))
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--partitions",
    type=click.IntRange(1, 1024),
    help="How many partitions the store gets, if it is new.  [default: one]",
)
@uses_address
async def import_store(address: StoreAddress, file: Path, partitions: int | None) -> int:
    """Bring what a file of export-store holds into a store.

    The file is read through first: if a byte of it isn't as it was written, or something is missing, nothing is
    imported. The rest is as for `copy`: it may be interrupted and run again, brings what is new or longer, names what
    the store has otherwise, and compares all at the end.
    """
    with file.open("rb") as opened:
        source = StoreFileSource(opened)
        try:
            source.check()
            accounts = await source.accounts()
        except StoreFormatError as error:
            raise StoreFormatError(f"{file}: {error}; nothing was imported") from error
        settings: GivenSettings = {**address.settings(), "partitions": partitions}
        async with RedisJobRepository.from_url(address.find_url(), **settings) as repository:
            with showing_progress("jobs imported and compared") as progress:
                copier = Copier(source, StoreTarget(repository.engine), progress)
                await copy_accounts(accounts, repository, copier.report)
                await copier.copy()
            return _tell(copier.report, "imported", "the file", "the store")


def _tell(report: CopyReport, done: str = "copied", source: str = "the source", target: str = "the target") -> int:
    for what, why in sorted(report.left.items()):
        say(f"{what} isn't {done}: {why}")
    for job_id in sorted(report.different):
        say(f"job {job_id} differs: if it was written to meanwhile, copy again")
    jobs, stones = plural(report.copied, "job"), plural(report.deleted, "tombstone")
    say(f"{done} {jobs} and {stones}; already there: {plural(report.already, 'job')}")
    say(f"compared {plural(report.compared, 'job')}, {len(report.different)} of them different")
    say(f"digest of {source} {report.source_digest:040x}")
    say(f"digest of {target} {report.target_digest:040x}")
    return ExitCode.SUCCESS if report.is_whole else ExitCode.FAILED
