"""What is written is what is stored: however it was split, through outages, and without secrets."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ci_common.models import Job
from ci_eventstore.connection import connections, node
from ci_eventstore.connection.nodes import Nodes
from ci_eventstore.errors import LogNotStoredError, LogWriterClosedError
from ci_eventstore.repository import RedisJobRepository
from ci_eventstore.writer import log_writer
from ci_eventstore.writer.chunk_sender import LOST_LINE
from ci_eventstore.writer.log_writer import WriterSettings
from tests.examples import examples
from tests.fault_proxy import Fault, FaultProxy, at
from tests.servers import RealServer, find_valkey
from tests.waiting import wait_until

#: No pauses, so that every write may become an event of its own.
EAGER = WriterSettings(pause_seconds=0)


@pytest.fixture
async def job(repository: RedisJobRepository) -> str:
    await repository.create_job(Job(id="j", status="running"))
    return "j"


@pytest.fixture
async def proxied(
    valkey: RealServer, job: str, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[FaultProxy, RedisJobRepository]]:
    """A repository behind a proxy, both impatient."""
    monkeypatch.setitem(connections.PINNED, "socket_timeout", 0.2)
    monkeypatch.setattr(node, "PATIENCE_SECONDS", 0.3)
    async with FaultProxy(valkey.socket_path) as proxy, RedisJobRepository.from_url(proxy.url) as repository:
        yield proxy, repository


async def stored(repository: RedisJobRepository) -> bytes:
    events = await repository.get_events_since("j", 0)
    return "".join(event.data or "" for event in events).encode("utf-8", "surrogateescape")


def only_file_of(directory: Path) -> tuple[Path, bytes]:
    [path] = directory.iterdir()
    return path, path.read_bytes()


async def test_nothing_is_written_to_a_writer_that_is_not_open(repository: RedisJobRepository, job: str) -> None:
    """Before it was entered and after it was left, nothing would send what it takes."""
    writer = repository.log_writer(job)
    with pytest.raises(LogWriterClosedError):
        await writer.write("early")
    async with writer:
        await writer.write("in time")
    with pytest.raises(LogWriterClosedError):
        await writer.write("late")
    assert await stored(repository) == b"in time"


pieces = st.lists(st.binary(max_size=12) | st.text("aß€😀\n", max_size=6).map(str.encode), max_size=12)


@settings(max_examples=examples(60), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pieces=pieces, awaits=st.lists(st.booleans(), min_size=12, max_size=12))
async def test_any_split_of_any_bytes_is_the_same_log(
    repository: RedisJobRepository, server: Nodes, pieces: list[bytes], awaits: list[bool]
) -> None:
    """Cut anywhere, also inside characters, with the sender running in between or not, the bytes come back."""
    await server.read("FLUSHALL")
    await repository.create_job(Job(id="j", status="running"))
    async with repository.log_writer("j", settings=EAGER) as writer:
        for piece, is_awaited in zip(pieces, awaits, strict=False):
            await writer.write(piece)
            if is_awaited:
                await asyncio.sleep(0)
    assert await stored(repository) == b"".join(pieces)
    for event in await repository.get_events_since("j", 0):
        assert event.data


@settings(max_examples=examples(40), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cuts=st.lists(st.integers(0, 60), max_size=6), secret=st.sampled_from(["s3cr€t-value", "xxy", "one\ntwo"]))
async def test_no_secret_reaches_the_server(
    repository: RedisJobRepository, server: Nodes, cuts: list[int], secret: str
) -> None:
    """However it is split, no secret is found in any byte of the server's data, packed or unpacked."""
    await server.read("FLUSHALL")
    await repository.create_job(Job(id="j", status="running"))
    raw = f"x {secret} xx{secret}{secret}\n{secret}".encode()
    edges = [0, *sorted(min(cut, len(raw)) for cut in cuts), len(raw)]
    async with repository.log_writer("j", secrets=[secret], settings=EAGER) as writer:
        for start, end in itertools.pairwise(edges):
            await writer.write(raw[start:end])
            await asyncio.sleep(0)
    log = (await stored(repository)).decode()
    assert secret not in log
    assert log.count("***") >= 3
    for key in [key async for page in server.scan("*") for key in page]:
        assert secret.encode() not in await server.read("DUMP", key)


async def test_the_beginning_of_a_secret_is_never_released_by_a_timer(repository: RedisJobRepository, job: str) -> None:
    """What may become a secret waits, however long nothing comes, while what stands before it goes out."""
    async with repository.log_writer(job, secrets=["hunter2"], settings=EAGER) as writer:
        await writer.write("password: hunt")
        following = repository.follow_events(job)
        assert (await anext(following)).data == "password: "
        await asyncio.sleep(0.05)
        assert await stored(repository) == b"password: "
        await writer.write("ing\n")
        assert (await anext(following)).data == "hunting\n"
        await following.aclose()


async def test_the_first_text_goes_at_once_and_the_rest_together(repository: RedisJobRepository, job: str) -> None:
    """A job that has begun is seen to have; lines that follow closely share an event; a long text makes several."""
    async with repository.log_writer(job, settings=WriterSettings(pause_seconds=3600)) as writer:
        await writer.write("first\n")
        following = repository.follow_events(job)
        assert (await anext(following)).data == "first\n"
        for number in range(100):
            await writer.write(f"{number}\n")
        await asyncio.sleep(0.02)
        assert len(await repository.get_events_since(job, 0)) == 1
        await writer.write("x" * 100 + "\n" + "y" * 70_000)
        await anext(following)
        await following.aclose()
    sizes = [len(event.data or "") for event in await repository.get_events_since(job, 0)]
    assert max(sizes) <= 64 * 1024
    assert sum(sizes) == 6 + 290 + 101 + 70_000


@pytest.mark.parametrize("fault", list(Fault), ids=lambda fault: fault.value)
async def test_an_outage_loses_and_doubles_nothing(
    proxied: tuple[FaultProxy, RedisJobRepository], repository: RedisJobRepository, fault: Fault
) -> None:
    """The store is away for longer than a call waits, again and again; the log is what was written, in order."""
    proxy, behind = proxied
    lines = [f"line {number}\n" for number in range(300)]
    async with behind.log_writer("j", settings=EAGER) as writer:
        for number, line in enumerate(lines):
            if number in (50, 150):
                proxy.plan = at(fault, b"EVALSHA", times=3)
            await writer.write(line)
            if number % 10 == 0:
                await asyncio.sleep(0.001)
    assert proxy.faults >= 3
    await proxy.delivered()
    assert (await stored(repository)).decode() == "".join(lines)


async def test_a_full_spool_blocks_the_producer(
    proxied: tuple[FaultProxy, RedisJobRepository], repository: RedisJobRepository
) -> None:
    """While the store is away memory stays bounded: `write` waits, and goes on when the store is back."""
    proxy, behind = proxied
    proxy.plan = at(Fault.CUT_BEFORE, b"EVALSHA", times=1_000_000)
    spool = 300_000
    written = 0

    async def produce() -> None:
        nonlocal written
        async with behind.log_writer("j", settings=replace(EAGER, spool_characters=spool)) as writer:
            for number in range(100):
                await writer.write(f"{number:09}\n" * 1000)
                written += 10_000

    producer = asyncio.create_task(produce())
    await wait_until(lambda: written >= spool)
    await asyncio.sleep(0.1)
    assert written < spool + 200_000
    proxy.plan = lambda command: None
    await producer
    assert len(await stored(repository)) == 1_000_000


async def test_a_store_that_stays_away_is_told_and_the_rest_is_kept(
    proxied: tuple[FaultProxy, RedisJobRepository], repository: RedisJobRepository, tmp_path: Path
) -> None:
    """After its patience the writer names a file; the log and the file together are what was written."""
    proxy, behind = proxied
    impatient = replace(EAGER, patience_seconds=0.1, rescue_directory=tmp_path)
    lines = [f"{number}\n" for number in range(50)]

    async def write_all() -> None:
        async with behind.log_writer("j", settings=impatient) as writer:
            await writer.write(lines[0])
            await wait_until(lambda: writer._chunks._caller.number == 1)
            proxy.plan = at(Fault.CUT_BEFORE, b"EVALSHA", times=1_000_000)
            for line in lines[1:]:
                await writer.write(line)

    with pytest.raises(LogNotStoredError) as caught:
        await write_all()
    kept, rest = only_file_of(tmp_path)
    assert (caught.value.path, caught.value.size_bytes) == (str(kept), len(rest))
    assert (await stored(repository)) + rest == "".join(lines).encode()


async def test_a_cancelled_writer_keeps_the_rest_in_a_file(
    proxied: tuple[FaultProxy, RedisJobRepository],
    repository: RedisJobRepository,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whoever is cancelled while the store is away doesn't wait for as long as the writer would."""
    proxy, behind = proxied
    monkeypatch.setattr(log_writer, "CANCELLED_SECONDS", 0.1)
    patient = replace(EAGER, patience_seconds=3600, rescue_directory=tmp_path)
    proxy.plan = at(Fault.CUT_BEFORE, b"EVALSHA", times=1_000_000)

    async def write_all() -> None:
        async with behind.log_writer("j", settings=patient) as writer:
            await writer.write("one\n")
            await wait_until(lambda: writer._chunks._caller.number == 1)
            await writer.write(b"two\n\xe2\x82")
            is_written.set()
            await asyncio.Event().wait()

    is_written = asyncio.Event()
    writing = asyncio.create_task(write_all())
    await is_written.wait()
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    _, rest = only_file_of(tmp_path)
    assert (await stored(repository), rest) == (b"", b"one\ntwo\n\xe2\x82")


async def test_a_blocked_producer_is_told_that_the_store_stays_away(
    proxied: tuple[FaultProxy, RedisJobRepository], repository: RedisJobRepository, tmp_path: Path
) -> None:
    """A full spool blocks `write`, which then raises; each byte that was handed over is in the store or in the file."""
    proxy, behind = proxied
    spool = 300_000
    impatient = replace(EAGER, spool_characters=spool, patience_seconds=1.0, rescue_directory=tmp_path)
    pieces = [f"{number:09}\n".encode() * 1000 + b"\xff\xe2\x82\xac\n" for number in range(200)]
    handed_over: list[bytes] = []

    async def produce() -> None:
        async with behind.log_writer("j", settings=impatient) as writer:
            for piece in pieces:
                if len(handed_over) == 20:
                    await wait_until(lambda: writer._chunks._caller.number > 0)
                    proxy.plan = at(Fault.CUT_BEFORE, b"EVALSHA", times=1_000_000)
                handed_over.append(piece)
                await writer.write(piece)

    with pytest.raises(LogNotStoredError) as caught:
        await produce()
    kept, rest = only_file_of(tmp_path)
    assert len(rest) > spool
    assert len(handed_over) < len(pieces)
    assert (caught.value.path, caught.value.size_bytes) == (str(kept), len(rest))
    in_store = await stored(repository)
    assert in_store
    assert in_store + rest == b"".join(handed_over)


async def test_a_job_that_isnt_there_is_told(repository: RedisJobRepository, tmp_path: Path) -> None:
    """A definite refusal isn't tried again."""
    with pytest.raises(LogNotStoredError) as caught:
        async with repository.log_writer("none", settings=WriterSettings(rescue_directory=tmp_path)) as writer:
            await writer.write("x")
    assert "there is no job" in str(caught.value.__cause__)


async def test_lost_acknowledged_events_are_said_in_the_log(
    repository: RedisJobRepository, server: Nodes, job: str
) -> None:
    """Where the server forgot what it had acknowledged, the log has a line that says so, and goes on."""
    async with repository.log_writer(job, settings=EAGER) as writer:
        await writer.write("one\n")
        await wait_until(lambda: writer._chunker.characters == 0)
        await asyncio.sleep(0.05)
        await server.read("DEL", "{ci:0}:calls:j")
        await writer.write("two\n")
    assert (await stored(repository)).decode() == "one\n" + LOST_LINE + "two\n"


@pytest.mark.slow
async def test_a_killed_server_under_a_writer() -> None:
    """The log of a server that was killed and came back is what was written."""
    with RealServer(find_valkey(), "appendfsync always") as own:
        async with RedisJobRepository.from_url(own.url) as repository:
            await repository.create_job(Job(id="j", status="running"))
            lines = [f"line {number}\n" for number in range(2000)]
            async with repository.log_writer("j", settings=WriterSettings(pause_seconds=0.001)) as writer:
                for number, line in enumerate(lines):
                    await writer.write(line)
                    if number % 500 == 250:
                        own.kill()
                        await asyncio.to_thread(own.start)
            assert (await stored(repository)).decode() == "".join(lines)
            assert await repository.verify() == []
