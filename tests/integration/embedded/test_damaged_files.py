"""An append-only file may have been cut anywhere, as a crash of the machine does: what is left is a clean beginning."""

import asyncio
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ci_eventstore.embedded import EmbeddedServer
from ci_eventstore.errors import EmbeddedServerError
from tests.examples import slow
from tests.integration.embedded.clients import client_of
from tests.integration.embedded.processes import processes_in
from tests.servers import wait_until

pytestmark = pytest.mark.needs("/proc")

STEPS = 6
#: One step of the history: two writes that must be seen together.
STEP = "redis.call('SET', KEYS[1], ARGV[1]) redis.call('RPUSH', KEYS[2], ARGV[1])"


async def take_steps(server: EmbeddedServer) -> None:
    """Write the whole history."""
    async with client_of(server) as client:
        for step in range(1, STEPS + 1):
            await client.eval(STEP, 2, "last", "all", str(step))


async def steps_seen(server: EmbeddedServer) -> int:
    """Return how many steps of the history are there, all of them whole, and begin a second one behind it."""
    async with client_of(server) as client:
        last, everything = await client.get("last"), await client.lrange("all", 0, -1)
        assert everything == [b"%d" % step for step in range(1, len(everything) + 1)]
        assert last == (everything[-1] if everything else None)
        assert await client.rpush("all", "next") == len(everything) + 1
        return len(everything)


def end(directory: Path, server: EmbeddedServer) -> None:
    """Let go of the server and wait until it has ended."""
    server.release()
    wait_until(lambda: not processes_in(directory), "the end of the server")


@pytest.fixture
def appended(directory: Path, server: EmbeddedServer) -> Path:
    """The file that the server appends to, ended after some steps; it isn't rewritten on the way."""
    asyncio.run(take_steps(server))
    end(directory, server)
    (path,) = directory.glob("appendonlydir/*.incr.aof")
    return path


def cuts(content: bytes) -> Iterator[int]:
    """Return where to cut: at the ends, between two transactions, and at many places inside of one."""
    start, end = (content.rindex(word) for word in (b"*1\r\n$5\r\nMULTI", b"*1\r\n$4\r\nEXEC"))
    yield from (0, 1, start, len(content))
    yield from range(start + 1, end, 17)
    yield from (end, len(content) - 1)


@pytest.mark.slow  # It takes over a second of a CPU.
def test_what_is_left_is_a_prefix(directory: Path, server: EmbeddedServer, appended: Path) -> None:
    """Wherever the file is cut, the server starts, whole steps are left, and it goes on from there."""
    content = appended.read_bytes()
    assert content.count(b"MULTI") == STEPS
    for cut in sorted(set(cuts(content))):
        appended.write_bytes(content[:cut])
        seen = asyncio.run(steps_seen(server))
        assert seen == content[:cut].count(b"$4\r\nEXEC\r\n")
        end(directory, server)


@pytest.mark.parametrize(("keep", "told"), [(0, "is empty"), (20, "Unexpected EOF"), (-1, "Unexpected EOF")])
def test_a_damaged_base_file_is_told(
    directory: Path, server: EmbeddedServer, appended: Path, keep: int, told: str
) -> None:
    """What can't be repaired without loss isn't: the error shows the end of the log, and nothing is changed."""
    (base,) = directory.glob("appendonlydir/*.base.rdb")
    base.write_bytes(base.read_bytes()[:keep])
    before = {path.name: path.read_bytes() for path in appended.parent.iterdir()}
    with pytest.raises(EmbeddedServerError, match=rf"(?s){told}.*\.base\.rdb|\.base\.rdb {told}"):
        server.ensure_running()
    assert {path.name: path.read_bytes() for path in appended.parent.iterdir()} == before
    assert not server.is_in_use


def test_a_damaged_middle_is_told(server: EmbeddedServer, appended: Path) -> None:
    """A file that was changed in its middle isn't cut there: all that comes after it would be gone."""
    content = appended.read_bytes()
    appended.write_bytes(content.replace(b"MULTI", b"\0\0\0\0\0", 2))
    with pytest.raises(EmbeddedServerError, match="append only file"):
        server.ensure_running()


def test_a_lost_manifest_is_told(directory: Path, server: EmbeddedServer, appended: Path) -> None:
    """A manifest that makes no sense isn't taken for an empty one."""
    (manifest,) = directory.glob("appendonlydir/*.manifest")
    manifest.write_text("nonsense\n")
    with pytest.raises(EmbeddedServerError, match=r"manifest"):
        server.ensure_running()


def remove_folder(directory: Path) -> None:
    shutil.rmtree(directory / "appendonlydir")


def remove_manifest(directory: Path) -> None:
    (directory / "appendonlydir" / "appendonly.aof.manifest").unlink()


def empty_manifest(directory: Path) -> None:
    (directory / "appendonlydir" / "appendonly.aof.manifest").write_bytes(b"")


def remove_appended(directory: Path) -> None:
    next(directory.glob("appendonlydir/*.incr.aof")).unlink()


def remove_base(directory: Path) -> None:
    next(directory.glob("appendonlydir/*.base.rdb")).unlink()


@pytest.mark.parametrize("is_noted", [True, slow(False)], ids=["noted", "by an earlier program"])
@pytest.mark.parametrize("damage", [remove_folder, remove_manifest, empty_manifest, remove_appended, remove_base])
def test_data_that_is_gone_is_told(
    directory: Path, server: EmbeddedServer, appended: Path, damage: Callable[[Path], None], is_noted: bool
) -> None:
    """A store isn't begun anew where there was one, and what is left of it isn't changed."""
    if not is_noted:
        (directory / "store").unlink()
    damage(directory)
    left = {path: path.read_bytes() for path in directory.glob("appendonlydir/*")}
    for _ in range(2):
        with pytest.raises(EmbeddedServerError, match=r"appendonly|manifest"):
            server.ensure_running()
    assert {path: path.read_bytes() for path in directory.glob("appendonlydir/*")} == left


def test_a_folder_without_a_store_is_no_loss(directory: Path, server: EmbeddedServer) -> None:
    """What was left by a start that came to nothing doesn't keep a store from beginning; the error says what does."""
    directory.mkdir()
    (directory / "server.log").write_text("it died early")
    (directory / "socket").write_text("/nowhere")
    asyncio.run(take_steps_in(server))
    end(directory, server)
    shutil.rmtree(directory / "appendonlydir")
    with pytest.raises(EmbeddedServerError, match=f"remove {directory}, to begin"):
        server.ensure_running()
    shutil.rmtree(directory)
    asyncio.run(take_steps_in(server))
    end(directory, server)


async def take_steps_in(server: EmbeddedServer) -> None:
    server.ensure_running()
    await take_steps(server)
