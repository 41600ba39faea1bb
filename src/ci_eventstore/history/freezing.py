"""Hold back all writes to a store's servers: they do it themselves, and not for long if nobody asks them again."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from ci_eventstore.connection.nodes import Nodes, servers_of
from ci_eventstore.errors import ConfigurationError, StoreUnavailableError

#: For how long servers hold writes back unless they are told again.
HOLD_MS = 10_000
RENEWALS = 4


@asynccontextmanager
async def frozen(source: Nodes, target: Nodes | None = None) -> AsyncIterator[None]:
    """Hold writes to the source back, those of all programs and all stores of its servers; then they go on.

    The source must be open: nothing that writes is answered meanwhile, `target` included if it is on the same server,
    which is a ConfigurationError. MissingRightsError without `+client|pause +client|unpause`. StoreUnavailableError in
    the end if writes may have come through.
    """
    if target is not None and await _runs(source) & await _runs(target):
        raise ConfigurationError("both stores are on one server, which would hold back the writes of the copy, too")
    await _hold(source)
    keeper = asyncio.create_task(_keep_holding(source))
    try:
        yield
    finally:
        # Whatever it has sent comes before what ends it.
        keeper.cancel()
        await asyncio.wait([keeper])
        for node in await servers_of(source):
            await node.read("CLIENT", "UNPAUSE")
        if not keeper.cancelled():
            keeper.result()


async def _keep_holding(source: Nodes) -> None:
    """Renew until cancelled; StoreUnavailableError if it was too late."""
    loop = asyncio.get_running_loop()
    held_at = loop.time()
    while True:
        await asyncio.sleep(HOLD_MS / 1000 / RENEWALS)
        now = loop.time()
        await _hold(source)
        if loop.time() - held_at > HOLD_MS / 1000:
            raise StoreUnavailableError("the source was out of reach for too long to hold writes back: copy again")
        held_at = now


async def _hold(source: Nodes) -> None:
    for node in await servers_of(source):
        await node.read("CLIENT", "PAUSE", HOLD_MS, "WRITE")


async def _runs(nodes: Nodes) -> set[str]:
    """Return what distinguishes the servers' processes from all others, as far as the user may know it."""
    return {run for node in await servers_of(nodes) if (run := (await node.info()).get("run_id"))}
