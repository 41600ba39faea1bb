"""`facts`: what happens to jobs, for groups of readers that miss nothing of it."""

import json
import sys
from contextlib import aclosing
from dataclasses import asdict

import click

from ci_common.models import to_rfc3339, utc_now
from ci_eventstore.cli.output import NOTHING, duration, echo_json, json_option, say, table
from ci_eventstore.cli.store import uses_store
from ci_eventstore.cli.usage import ExitCode, examples
from ci_eventstore.errors import StoreUnavailableError
from ci_eventstore.facts.facts import JobFact
from ci_eventstore.repository import RedisJobRepository


@click.group(epilog=examples("facts tail --group notifier", "facts groups", "facts drop notifier"))
def facts() -> None:
    """Show what happens to all jobs; groups of readers miss none."""


@facts.command(epilog=examples("facts tail --group notifier", "facts tail --group notifier --json"))
@click.option("--group", required=True, help="For whom to read: facts that it was shown aren't shown again.")
@json_option
@uses_store
async def tail(repository: RedisJobRepository, group: str, as_json: bool) -> None:
    """Print a line for each fact, as they come.

    The line has the time, what happened, the job's status then, and the job's id. A fact counts as read once it is
    printed. A group begins when somebody first reads for it. "gap" on standard error, or in JSON as {"gap": …} with the
    partition's number, says that the group may have missed earlier facts; each group begins with one. If several
    readers share a group, one at a time reads a partition.
    """
    async with aclosing(repository.subscribe(group)) as batches:
        async for batch in batches:
            if batch.has_gap and as_json:
                click.echo(json.dumps({"gap": batch.partition}))
            elif batch.has_gap:
                say(f"gap: earlier facts of partition {batch.partition} may be lost: list the jobs instead")
            for fact in batch.facts:
                if as_json:
                    click.echo(json.dumps(_as_dict(fact)))
                else:
                    click.echo(f"{to_rfc3339(fact.time)} {fact.kind.name.lower():<11} {fact.status:<9} {fact.job_id}")
            sys.stdout.flush()
            try:
                await batch.acknowledge()
            except StoreUnavailableError as error:
                # The next acknowledgement is for these, too; if the whole store is away, the next look says so.
                say(f"facts of partition {batch.partition} may come again: {error}")


def _as_dict(fact: JobFact) -> dict[str, str | None]:
    return {
        "id": fact.id,
        "time": to_rfc3339(fact.time),
        "fact": fact.kind.name.lower(),
        "status": fact.status.value,
        "job_id": fact.job_id,
    }


@facts.command(epilog=examples("facts groups", "facts groups --json"))
@json_option
@uses_store
async def groups(repository: RedisJobRepository, as_json: bool) -> None:
    """List the groups, and how far each has read.

    BEHIND is the time between the last fact that the group has read and the newest. READING says in how many of its
    partitions a reader has a lease. A group that nobody has read for a day isn't LIVE: facts are no longer kept for it.
    """
    found = await repository.engine.facts.all()
    if as_json:
        shown = [asdict(group) | {"is_live": group.is_live} for group in found]
        times = ("read_until", "looked_at")
        echo_json([group | {name: to_rfc3339(group[name]) for name in times} for group in shown])
    elif found:
        now = utc_now()
        rows = [
            (
                group.name,
                "yes" if group.is_live else "no",
                f"{group.read_now}/{group.partitions}",
                NOTHING if group.read_until is None else f"{group.behind_seconds:.0f}s",
                duration(group.looked_at, now),
            )
            for group in found
        ]
        click.echo(table(("GROUP", "LIVE", "READING", "BEHIND", "LOOKED"), rows))
    else:
        say("there are no groups yet")


@facts.command(epilog=examples("facts drop notifier"))
@click.argument("group")
@uses_store
async def drop(repository: RedisJobRepository, group: str) -> int:
    """Forget a group.

    Its readers end. Without groups, the store keeps no facts.
    """
    if await repository.engine.facts.drop(group):
        say(f"the group {group} is dropped")
        return ExitCode.SUCCESS
    say(f"there is no group {group}")
    return ExitCode.FAILED
