"""A primary and its replica, and what an operator does with them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.integration.store.followers import admin_of
from tests.servers import RealServer

#: A primary and its replica.
Pair = tuple[RealServer, RealServer]


@asynccontextmanager
async def primary_and_replica(binary: Path) -> AsyncIterator[Pair]:
    """Start both, in step; each can be the primary."""
    at_once = "repl-diskless-sync-delay 0"
    with RealServer(binary, at_once, tcp=True) as primary, RealServer(binary, at_once, tcp=True) as replica:
        await replicate(replica, primary)
        yield primary, replica


async def replicate(replica: RealServer, primary: RealServer) -> None:
    """Make a server the replica of another one, and wait until it has everything."""
    async with admin_of(replica) as admin:
        await admin.replicaof("127.0.0.1", primary.port)
    await in_step(primary)


async def in_step(primary: RealServer) -> None:
    """Wait until the replica has everything that was written so far."""
    async with admin_of(primary) as admin:
        await admin.set("touch", "1")
        while await admin.wait(1, 1000) < 1:
            await admin.set("touch", "1")
