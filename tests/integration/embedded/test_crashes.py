"""Any process may be killed at any time: what was acknowledged is kept, and no process stays behind."""

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from ci_eventstore.embedded import EmbeddedServer
from ci_eventstore.embedded.file_lock import FileLock
from tests.integration.embedded.children import Child
from tests.integration.embedded.clients import client_of
from tests.integration.embedded.processes import freeze, has_open, kill, processes_in, servers_of, watchdogs_of
from tests.integration.embedded.writer_program import BATCH, TEXT
from tests.servers import wait_until

Start = Callable[..., Child]
# Processes are killed all along.
pytestmark = [pytest.mark.slow, pytest.mark.needs("/proc")]

ROUNDS = 3
ENTRIES_PER_ROUND = 3000
#: How many lines to go on for the next death; with 1, which takes two minutes, each line has its turn.
EVERY = {"user": 20, "watchdog": 12}


async def numbers_in(directory: Path) -> list[int]:
    """Return the numbers of all entries that the writer has left behind."""
    server, found = EmbeddedServer(directory), [0]
    async with client_of(server) as client:
        while page := await client.execute_command("XRANGE", "log", f"({found[-1]}-1", "+", "COUNT", 500):
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


async def test_the_starter_may_die(directory: Path, server: EmbeddedServer, start: Start) -> None:
    """The server doesn't depend on the process that started it, as long as another uses it."""
    starter = start()
    assert starter.ask("use") == "ok"
    found = servers_of(directory)
    async with client_of(server) as client:
        await client.set("key", "value")
        starter.kill()
        assert await client.get("key") == b"value"
    assert servers_of(directory) == found


def test_a_start_outlives_its_starter(directory: Path, start: Start) -> None:
    """Who comes while the server of a dead starter still begins gets that one, and no second watchdog waits beside."""
    directory.mkdir()
    holder = FileLock.take(directory / "users.lock", shared=True)
    assert holder is not None
    starter = start().send("use")
    wait_until(lambda: bool(watchdogs_of(directory)), "the watchdog")
    (watchdog,) = watchdogs_of(directory)
    freeze(watchdog)
    starter.kill()
    second = start().send("use")
    wait_until(lambda: has_open(second.pid, directory / "users.lock"), "the second user")
    os.kill(watchdog, signal.SIGCONT)
    assert second.answer() == "ok"
    assert (watchdogs_of(directory), len(servers_of(directory))) == ([watchdog], 1)
    holder.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
async def test_a_watchdog_that_is_asked_to_end_ends_its_server(
    directory: Path, server: EmbeddedServer, number: signal.Signals
) -> None:
    """The server closes its file properly; the next connection has another one."""
    async with client_of(server) as client:
        await client.set("key", "value")
        (watchdog,), (old,) = watchdogs_of(directory), servers_of(directory)
        wait_until(lambda: has_open(watchdog, directory / "users.lock"), "the watchdog to watch")
        os.kill(watchdog, number)
        wait_until(lambda: not processes_in(directory), "the end of both")
        assert "ready to exit" in (directory / "server.log").read_text()
        await client.connection_pool.disconnect()
        assert await client.get("key") == b"value"
    assert servers_of(directory) != [old]


async def test_all_may_be_killed_at_once(directory: Path, start: Start) -> None:
    """When users, watchdog and server die together, the next user finds everything."""
    writer = start("writer_program")
    acknowledged = writer.number_from(10 * BATCH)
    victims = [writer.pid, *watchdogs_of(directory), *servers_of(directory)]
    assert len(victims) == 3
    for victim in victims:
        os.kill(victim, signal.SIGKILL)
    wait_until(lambda: not processes_in(directory), "the end of all")
    numbers = await numbers_in(directory)
    acknowledged = max(map(int, writer.rest()), default=acknowledged)
    assert numbers == list(range(1, len(numbers) + 1))
    assert len(numbers) >= acknowledged


@pytest.mark.parametrize("who", EVERY)
def test_death_at_any_line_does_no_harm(directory: Path, start: Start, who: str) -> None:
    """Whoever dies between two lines of its program, at the start or at the end, the next start works and ends well."""
    found = start("every_line_program", who, str(EVERY[who])).rest()
    assert found[-1] == "done"
    assert len(found) > 5
