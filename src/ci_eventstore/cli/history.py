"""`seal`, `segment` and `verify-archive`: logs of jobs that have ended, packed, written to a file, and proven."""

import asyncio
import logging
import signal
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import click

from ci_common.errors import JobNotFoundError
from ci_eventstore.cli.output import say
from ci_eventstore.cli.store import find_job, store_options, uses_store
from ci_eventstore.cli.usage import ExitCode, duration_option, examples
from ci_eventstore.connection.absence import names_of
from ci_eventstore.diagnosis.findings import plural
from ci_eventstore.errors import SegmentDamagedError, StoreError
from ci_eventstore.events.sealed_log import references_in
from ci_eventstore.history.sealer import Sealer
from ci_eventstore.history.sweeping import Sweep
from ci_eventstore.repository import RedisJobRepository
from ci_eventstore.segments.segment import segments_of
from ci_eventstore.segments.tail import DIGEST_BYTES
from ci_eventstore.tasks import begin

logger = logging.getLogger("ci_eventstore.history")

#: Of programs that seal beside their own work.
seal_after_option = duration_option(
    "--seal-after", "Pack the logs of jobs that have ended and weren't written to for this long, as `seal` does."
)


@asynccontextmanager
async def sealing(repository: RedisJobRepository, after_seconds: float | None) -> AsyncIterator[None]:
    """Seal jobs meanwhile, if a time is given."""
    if after_seconds is None:
        yield
        return
    engine = repository.engine
    sealer = Sealer(engine.nodes, engine.reader.source, engine.keys)
    async with working(sealer.run(after_seconds), "sealing jobs"):
        yield


@asynccontextmanager
async def working(work: Coroutine[Any, Any, None], what: str) -> AsyncIterator[None]:
    """Do some work meanwhile, until it is cancelled."""
    task = begin(work, logger, what)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until_stopped(work: Coroutine[Any, Any, None]) -> int:
    """Do some work until Ctrl-C or SIGTERM."""
    task = asyncio.create_task(work)
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    await asyncio.wait([task])
    if not task.cancelled():
        task.result()
    return ExitCode.SUCCESS


def tell_sweep(sweep: Sweep, can_be: str, doing: str) -> int:
    """Say what a sweep has done, in these words, and return the exit code."""
    for job_id, why in sorted(sweep.left.items()):
        say(f"job {job_id} can't be {can_be}: {why}")
    if sweep.busy:
        say(f"another process is {doing} in {sweep.busy} partitions")
    if sweep.unavailable:
        say(f"{names_of(sweep.unavailable)} can't be reached: nothing was {can_be} there")
    say(f"{can_be} {sweep.done} job{'' if sweep.done == 1 else 's'}")
    return ExitCode.FAILED if sweep.left or sweep.unavailable else ExitCode.SUCCESS


@click.command(epilog=examples("seal --once", "seal --once --after 0s", "seal --after 10m"))
@click.option("--once", is_flag=True, help="Seal what is due, then end; 1 is the exit code if a job can't be sealed.")
@duration_option("--after", "Leave jobs alone that were written to less than this long ago.", default="1h")
@uses_store
async def seal(repository: RedisJobRepository, once: bool, after: float) -> int:
    """Pack the logs of jobs that have ended.

    A sealed log takes a fraction of its memory, and reads as before. What is written to a sealed job is packed with the
    rest the next time. Several of these may run. A job that can't be sealed is named and tried again later; `verify`
    says what is wrong with it. Without --once this goes on until Ctrl-C or SIGTERM.
    """
    engine = repository.engine
    sealer = Sealer(engine.nodes, engine.reader.source, engine.keys)
    if not once:
        return await until_stopped(sealer.run(after))
    return tell_sweep(await sealer.sweep(after), "sealed", "sealing")


@click.command(epilog=examples("jobs segment 3f9c > 3f9c.log.zst"))
@click.argument("job")
@uses_store
async def segment(repository: RedisJobRepository, job: str) -> int:
    """Write a sealed log to standard output.

    It is what lies in the store, byte for byte. `verify-archive` proves it with the root that `jobs show` prints; what
    was written to the job since it was sealed isn't in it.
    """
    job_id = await find_job(repository, job)
    state = await repository.engine.jobs.state(job_id)
    if state is None:
        raise JobNotFoundError(job_id)
    if state.log is None:
        raise StoreError(f"job {job_id!r} isn't sealed: `ci-eventstore seal --once --after 0s` seals what has ended")
    keys, sealed = repository.engine.keys.job(job_id), repository.engine.reader.source.sealed
    for reference in references_in(job_id, state.log):
        data = await sealed.data(keys, reference)
        if len(data) != reference.size:
            raise SegmentDamagedError(reference.name, f"{len(data)} of its {reference.size} bytes are there")
        click.echo(data, nl=False)
    return ExitCode.SUCCESS


@click.command("verify-archive", epilog=examples("verify-archive 3f9c.log.zst --root 472ef4b6…"))
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--root", metavar="HASH", help="The log's root, as `jobs show` printed it.")
@store_options
def verify_archive(file: Path, root: str | None) -> int:
    """Prove a sealed log in a file.

    Without --root it says whether the file is consistent: nothing is missing from it or damaged by accident. With the
    root it says whether it is complete and unaltered, for nobody can make another file of that root. Else it says
    which block isn't as it was, and exits with 1. No store is needed.
    """
    try:
        wanted = None if root is None else bytes.fromhex(root)
    except ValueError:
        wanted = b""
    if wanted is not None and len(wanted) != DIGEST_BYTES:
        raise click.BadParameter(f"a root is {2 * DIGEST_BYTES} hex digits", param_hint="--root")
    try:
        with file.open("rb") as opened:
            found = list(segments_of(opened, wanted))
    except SegmentDamagedError as error:
        click.echo(f"{file}: {error}")
        return ExitCode.FAILED
    events, newest = sum(one.tail.events for one in found), found[0]
    how_much = f"{plural(events, 'event')} in {plural(len(found), 'segment')}"
    click.echo(f"job {newest.tail.job_id}: {how_much}, root {newest.root.hex()}")
    click.echo("consistent" if wanted is None else "complete and unaltered")
    return ExitCode.SUCCESS
