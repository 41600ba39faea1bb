"""Each partition is swept by one process at a time, whatever holds that up."""

from ci_eventstore.connection.nodes import Nodes
from ci_eventstore.history.sweeping import Sweep, Turns
from ci_eventstore.keys import Keys, sweeper_key
from ci_eventstore.repository import RedisJobRepository


async def test_who_was_held_up_leaves_another_ones_turn_alone(
    repository: RedisJobRepository, server: Nodes, keys: Keys
) -> None:
    """It was so long in a partition that another process has it by now."""
    key = sweeper_key("{ci:0}", "archiver")

    async def be_held_up(tag: str) -> None:
        await server.read("SET", key, "another's", "PX", 60_000)

    await Turns(repository.engine.nodes, keys, "archiver").go_through(Sweep(), be_held_up)
    assert await server.read("GET", key) == b"another's"
    await server.read("DEL", key)
