"""`verify` and `rebuild`: what is derived from the streams, checked and mended."""

from collections.abc import Sequence
from dataclasses import asdict

import click

from ci_eventstore.cli.display import echo_json, json_option
from ci_eventstore.cli.exits import ExitCode
from ci_eventstore.cli.help import examples
from ci_eventstore.cli.messages import say, showing_progress
from ci_eventstore.cli.store import find_job, uses_store
from ci_eventstore.projection.differences import Difference
from ci_eventstore.repository import RedisJobRepository

fast_option = click.option(
    "--fast", is_flag=True, help="Don't walk through all keys of the server: what stands in no index isn't found."
)


@click.command(epilog=examples("verify", "verify 3f9c", "verify --json"))
@click.argument("job", required=False)
@fast_option
@json_option
@uses_store
async def verify(repository: RedisJobRepository, job: str | None, as_json: bool, fast: bool) -> int:
    """Compare hashes and indexes with their streams.

    Those of one job, or of the whole store. Prints each difference in a line, and exits with 1 if there are any. The
    store may be in use. On a terminal it shows how many jobs it has looked at.
    """
    job_id = None if job is None else await find_job(repository, job)
    with showing_progress("jobs verified") as progress:
        differences = await repository.verify(job_id, progress=progress, fast=fast)
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

    Those of one job, or of the whole store. Prints what was mended, and exits with 1 if something couldn't be, such as
    a job whose stream is gone. The store may be in use.
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
    return "1 difference" if len(differences) == 1 else f"{len(differences)} differences"
