"""`queues`: what waits, what runs, and who runs it."""

import asyncio
import sys
from dataclasses import asdict
from typing import Any

import click

from ci_common.models import to_rfc3339, utc_now
from ci_eventstore.cli.output import NOTHING, duration, echo_json, json_option, say, table
from ci_eventstore.cli.store import uses_store
from ci_eventstore.cli.usage import examples
from ci_eventstore.connection.absence import names_of
from ci_eventstore.queues.overview import QueueOverview, read_overviews
from ci_eventstore.repository import RedisJobRepository

WATCH_SECONDS = 1.0
#: Moves a terminal's cursor to the top left, and clears what is below.
CLEAR = "\033[H\033[2J"


@click.command(epilog=examples("queues", "queues --watch", "queues --json"))
@click.option("--watch", is_flag=True, help="Refresh every second, until Ctrl-C.")
@json_option
@uses_store
async def queues(repository: RedisJobRepository, watch: bool, as_json: bool) -> None:
    """Show all queues: how many jobs wait and run, and where.

    OLDEST is how long the first waiting job has waited. CONTROLLERS lists each controller that has taken a job and not
    ended since, with the number of jobs that it holds; a lost controller stays listed for an hour. A partition that
    can't be reached is named on standard error: its jobs aren't counted.
    """
    if watch and as_json:
        raise click.UsageError("--watch and --json can't be used together")
    nodes, keys = repository.engine.nodes, repository.engine.keys
    while True:
        found = await read_overviews(nodes, keys)
        if as_json:
            echo_json([_as_dict(queue) for queue in found.queues])
        elif watch and sys.stdout.isatty():
            click.echo(CLEAR, nl=False)
        if found.queues and not as_json:
            click.echo(table(("QUEUE", "WAITING", "OLDEST", "RUNNING", "CONTROLLERS"), list(map(_row, found.queues))))
        elif not as_json:
            say("there are no queues yet")
        if found.unavailable:
            say(f"{names_of(found.unavailable)} can't be reached: the jobs there aren't counted")
        if not watch:
            return
        sys.stdout.flush()
        await asyncio.sleep(WATCH_SECONDS)


def _row(queue: QueueOverview) -> tuple[str, ...]:
    controllers = ", ".join(f"{name} ({held})" for name, held in queue.controllers.items()) or NOTHING
    oldest = duration(queue.oldest_created_at, utc_now())
    return (queue.name, str(queue.waiting), oldest, str(queue.running), controllers)


def _as_dict(queue: QueueOverview) -> dict[str, Any]:
    shown = asdict(queue)
    return {"queue": shown.pop("name"), **shown, "oldest_created_at": to_rfc3339(queue.oldest_created_at)}
