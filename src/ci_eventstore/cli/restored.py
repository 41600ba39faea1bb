"""`restored`: what an operator says when the store's data was restored from a backup."""

import click

from ci_eventstore.cli.help import examples
from ci_eventstore.cli.messages import say
from ci_eventstore.cli.store import uses_store
from ci_eventstore.repository import RedisJobRepository


@click.command(epilog=examples("restored"))
@uses_store
async def restored(repository: RedisJobRepository) -> None:
    """Say that the store's data was restored from a backup.

    Run it once the server has the older data, before clients come back. The store becomes another incarnation: a client
    that comes back with a position and the incarnation that it belongs to is told to begin again, even if the log has
    grown past that position since. After a failover that may have lost writes it does the same. Running it again does
    no harm: clients begin again once more.
    """
    incarnation = await repository.restored()
    say(f"the store has the incarnation {incarnation} now: clients that come back with another one begin again")
