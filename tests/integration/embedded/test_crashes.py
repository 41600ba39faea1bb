"""Any process may be killed at any time: what was acknowledged is kept, and no process stays behind."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from redis.asyncio import Redis

from ci_eventstore.embedded import EmbeddedServer
from tests.integration.embedded.children import Child
from tests.integration.embedded.clients import client_of
from tests.integration.embedded.processes import kill, processes_in, servers_of, watchdogs_of
from tests.integration.embedded.writer_program import BATCH, TEXT
from tests.servers import wait_until

Start = Callable[..., Child]
ROUNDS = 3
ENTRIES_PER_ROUND = 4000


async def numbers_in(directory: Path) -> list[int]:
    """Return the numbers of all entries that the writer has left behind."""
    server, found = EmbeddedServer(directory), [0]
    async with client_of(server) as client:
        while page := await client.xrange("log", f"({found[-1]}-1", count=500):
            found += [int(identity.split(b"-")[0]) for identity, _ in page]
    server.release()
    return found[1:]


async def wait_for_worst_moment(server: EmbeddedServer, progress: asyncio.Task[int]) -> None:
    """Wait until the server has acknowledged a batch that it hasn't written yet; if it never does so, for progress."""
    async with client_of(server) as client:
        while not progress.done():
            unwritten = (await client.info("persistence"))["aof_buffer_length"]
            if unwritten > 2 * BATCH * len(TEXT):
                return


@pytest.mark.parametrize("victims_of", [servers_of, watchdogs_of])
async def test_nothing_acknowledged_is_lost_under_load(
    directory: Path, server: EmbeddedServer, start: Start, victims_of: Callable[[Path], list[int]]
) -> None:
    """A writer goes on after its server or watchdog was killed; every entry is there that it was told is stored."""
    writer, acknowledged = start("writer_program"), 0
    for _ in range(ROUNDS):
        progress = asyncio.create_task(asyncio.to_thread(writer.number_from, acknowledged + ENTRIES_PER_ROUND))
        await wait_for_worst_moment(server, progress)
        (victim,) = victims_of(directory)
        kill(victim)
        acknowledged = await progress
    writer.number_from(acknowledged + BATCH)
    writer.kill()
    numbers = await numbers_in(directory)
    acknowledged = max(map(int, writer.rest()), default=acknowledged)
    assert numbers == list(range(1, len(numbers) + 1))
    assert len(numbers) >= acknowledged
