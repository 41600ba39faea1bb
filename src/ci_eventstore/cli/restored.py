"""`restored`: what an operator says when the store's data was restored from a backup."""

import click

from ci_eventstore.cli.help import examples
from ci_eventstore.cli.messages import say
from ci_eventstore.cli.store import uses_store
from ci_eventstore.repository import RedisJobRepository


@click.command(epilog=examples("restored"))
@uses_store
async def restored(repository: RedisJobRepository) -> None:
    """Tell the store that its data was restored from a backup.

    Run it when the server has the older data, before clients come back. It gives the store a new incarnation: a client
    that comes back with a position and an older incarnation begins again, even if the log has grown past that position
    since. Run it after a failover that may have lost writes, too. Running it twice does no harm: clients begin again.
    """
    incarnation = await repository.restored()
    say(f"the store has the incarnation {incarnation} now: clients that come back with another one begin again")
