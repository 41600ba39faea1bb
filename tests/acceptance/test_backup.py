"""A backup is made from a server in use and restored into a fresh one, by the commands that docs/operations.md has."""

import asyncio
import os
import re
import subprocess
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from ci_common.models import Job, JobEvent, utc_now
from ci_eventstore import RedisJobRepository
from tests.acceptance.command_line import PROGRAM
from tests.fault_proxy import FaultProxy
from tests.history import Outcome
from tests.integration.store.test_restore import Reader, Writer
from tests.operating.images import ROOT
from tests.servers import RealServer, find_valkey
from tests.waiting import wait_until

_BLOCK = re.compile(r"^```sh\n# (.*)\n((?:.+\n)+?)```$", re.MULTILINE)
#: The commands of the document, by the comment above them.
COMMANDS: Mapping[str, str] = dict(_BLOCK.findall((ROOT / "docs" / "operations.md").read_text()))


async def do(step: str, server: RealServer, backup: Path) -> str:
    """Do what the document says, as its reader would, with a server's client, folder and URL."""
    variables = {
        "CLI": f"redis-cli -s {server.socket_path}",
        "DATA": str(server.folder),
        "BACKUP": str(backup),
        "CI_EVENTSTORE_URL": server.url,
        "PATH": f"{PROGRAM.parent}{os.pathsep}{os.environ['PATH']}",
    }
    command = ["bash", "-euo", "pipefail", "-c", COMMANDS[step]]
    done = await asyncio.to_thread(
        subprocess.run, command, env=variables, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done
    return done.stdout + done.stderr


async def write_on(writer: Writer, is_over: asyncio.Event) -> None:
    """Write for as long as the backup is made, and some lines at least."""
    while not is_over.is_set() or len(writer.history.calls) < 20:
        await writer.write()


async def restore_file(fresh: RealServer, backup: Path) -> None:
    """Start a server on a copied append-only file."""
    await do("file, restore, before the server is started with appendonly yes", fresh, backup)
    await asyncio.to_thread(fresh.start)


async def restore_snapshot(fresh: RealServer, backup: Path) -> None:
    """Start a server on a snapshot, and have it write its append-only file; the next start needs nothing else."""
    await do("snapshot, restore, before the server is started with appendonly no", fresh, backup)
    configuration, fresh.configuration = fresh.configuration, [*fresh.configuration, "appendonly no"]
    await asyncio.to_thread(fresh.start)
    await do("snapshot, restore, after that", fresh, backup)
    fresh.configuration = configuration
    await asyncio.to_thread(fresh.restart)


@pytest.mark.slow
@pytest.mark.needs("redis7")
@pytest.mark.parametrize("kind", ["file", "snapshot"])
async def test_a_backup_of_a_server_in_use(kind: str, tmp_path: Path) -> None:
    """What was acknowledged before the backup is there; a writer and a reader are told once of what came after it."""
    backup = tmp_path / "backup"
    backup.mkdir()
    async with AsyncExitStack() as stack:
        server = stack.enter_context(RealServer(find_valkey()))
        fresh = RealServer(find_valkey())
        stack.callback(fresh.remove)
        proxy = await stack.enter_async_context(FaultProxy(server.socket_path))
        repository = await stack.enter_async_context(RedisJobRepository.from_url(proxy.url))
        await repository.create_job(Job(id="ended", status="running"))
        await repository.add_event("ended", JobEvent("log", "kept\n"))
        await repository.complete_job("ended", True, utc_now())
        await repository.create_job(Job(id="live", status="running"))
        writer, reader = Writer(repository, "live"), Reader(await repository.follow("live"))
        async with asyncio.TaskGroup() as group:
            reading = group.create_task(reader.read())
            is_over = asyncio.Event()
            writing = group.create_task(write_on(writer, is_over))
            await wait_until(lambda: len(writer.history.calls) > 5)
            acknowledged = len(writer.stored)
            await do(f"{kind}, back up", server, backup)
            is_over.set()
            await writing
            await writer.write()
            await wait_until(lambda: reader.position >= len(writer.stored))
            before = len(writer.stored)

            proxy.upstream = server.folder / "nowhere"
            proxy.cut_all()
            await asyncio.to_thread(server.kill)
            await (restore_file if kind == "file" else restore_snapshot)(fresh, backup)
            assert "has the incarnation" in await do("both, at the end", fresh, backup)
            proxy.upstream = fresh.socket_path

            while not writer.told:
                await writer.write()
            await writer.write()
            lost = [call for call in writer.history.calls if call.outcome is Outcome.ABSENT]
            assert acknowledged <= writer.history.calls.index(lost[0]) <= before
            await repository.complete_job("live", True, utc_now())
            await reading
        assert (writer.told, len(reader.dropped)) == (1, 1)
        assert reader.lines == writer.stored
        assert [event.data for event in await repository.get_events_since("ended", 0)] == ["kept\n", None]
        assert await repository.verify() == []
        reader.follower.close()


def test_every_command_of_the_document_is_tried() -> None:
    """No block of it has another name."""
    names = {name for name in COMMANDS if name.partition(",")[0] in {"file", "snapshot", "both"}}
    assert names == {
        "file, back up",
        "file, restore, before the server is started with appendonly yes",
        "snapshot, back up",
        "snapshot, restore, before the server is started with appendonly no",
        "snapshot, restore, after that",
        "both, at the end",
    }
