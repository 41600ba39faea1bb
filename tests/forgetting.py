"""A server that forgets its last writes, as after a failover or a restore: all its keys become what they were."""

from collections.abc import Mapping
from typing import NamedTuple

from ci_eventstore.connection.nodes import Nodes


class Kept(NamedTuple):
    """A key's value as the server serializes it, and how long it still lives, in milliseconds; 0 for ever."""

    value: bytes
    ttl_ms: int


Snapshot = Mapping[str, Kept]


async def remember(server: Nodes) -> Snapshot:
    """Return all that the server holds."""
    kept = {}
    for key in [key async for page in server.scan("*") for key in page]:
        value, ttl_ms = await server.read("DUMP", key), await server.read("PTTL", key)
        kept[key] = Kept(value, max(ttl_ms, 0))
    return kept


async def forget(server: Nodes, snapshot: Snapshot) -> None:
    """Go back to what the server held, in one step."""
    script = (
        "redis.call('FLUSHDB') for i = 1, #KEYS do redis.call('RESTORE', KEYS[i], ARGV[2 * i], ARGV[2 * i - 1]) end"
    )
    arguments = [argument for kept in snapshot.values() for argument in (kept.value, kept.ttl_ms)]
    await server.read("EVAL", script, len(snapshot), *snapshot, *arguments)
