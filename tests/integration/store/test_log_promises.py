"""What a `LogWriter` promises: text is taken, stored by `flush`, waits for a full store; and what ends it is told."""

import asyncio
import contextlib
import logging
from pathlib import Path

import pytest

from ci_common.models import Job, JobEvent
from ci_eventstore.connection.nodes import Nodes
from ci_eventstore.controllers.claimed_job import ClaimedJob
from ci_eventstore.errors import LogNotStoredError, LogWriterClosedError
from ci_eventstore.events import caller
from ci_eventstore.keys import Keys
from ci_eventstore.repository import RedisJobRepository
from ci_eventstore.writer import chunk_sender, log_writer
from ci_eventstore.writer.chunk_sender import LOST_LINE
from ci_eventstore.writer.log_writer import WriterSettings
from tests import claims
from tests.servers import RealServer, find_valkey
from tests.waiting import wait_until

#: Nothing is sent by time alone.
PATIENT = WriterSettings(pause_seconds=3600)
DAY_SECONDS = 86_400.0


@pytest.fixture
async def job(repository: RedisJobRepository) -> str:
    await repository.create_job(Job(id="j", status="running"))
    return "j"


@pytest.fixture
def pass_time(monkeypatch: pytest.MonkeyPatch, server: Nodes, keys: Keys) -> "PassTime":
    return PassTime(monkeypatch, server, keys)


class PassTime:
    """Lets time pass for all writers, and for the calls of job j that the server knows."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, server: Nodes, keys: Keys) -> None:
        self._passed = 0.0
        self._server = server
        self._calls = keys.job("j").calls
        start = caller.seconds_since_start()
        # Callers are made after this, with this clock.
        monkeypatch.setattr(caller.JobCaller.__init__, "__defaults__", (lambda: start + self._passed,))

    async def __call__(self, seconds: float) -> None:
        self._passed += seconds
        found = await self._server.read("HGETALL", self._calls)
        for token, entry in zip(found[::2], found[1::2], strict=True):
            number, position, used = entry.split()
            older = b"%s %s %d" % (number, position, int(used) - int(seconds * 1000))
            await self._server.read("HSET", self._calls, token, older)
        if seconds >= DAY_SECONDS:
            await self._server.read("DEL", self._calls)


def texts_in(directory: Path) -> list[str]:
    return [path.read_text() for path in directory.iterdir()]


async def stored(repository: RedisJobRepository) -> str:
    return "".join(event.data or "" for event in await repository.get_events_since("j", 0))


async def test_a_writer_that_was_silent_for_a_day_has_lost_nothing(
    pass_time: PassTime, repository: RedisJobRepository, job: str
) -> None:
    """The server has let go of its token by itself, so it begins under a new one."""
    async with repository.log_writer(job) as writer:
        await writer.write("one\n")
        await writer.flush()
        await pass_time(25 * 3600)
        await writer.write("two\n")
        await writer.flush()
        await pass_time(25 * 3600)
    assert await stored(repository) == "one\ntwo\n"


async def test_a_writer_that_was_silent_beside_many_others_has_lost_nothing(
    pass_time: PassTime, repository: RedisJobRepository, job: str
) -> None:
    """Beside 64 others, tokens that are an hour old make room for new ones."""
    async with repository.log_writer(job) as writer:
        await writer.write("one\n")
        await writer.flush()
        await pass_time(3700)
        for number in range(70):
            async with repository.log_writer(job) as other:
                await other.write(f"{number}\n")
        await writer.write("two\n")
    assert LOST_LINE not in await stored(repository)
    assert (await stored(repository)).endswith("69\ntwo\n")


async def test_appends_after_a_days_silence_go_on(
    pass_time: PassTime, repository: RedisJobRepository, job: str
) -> None:
    """So do status changes, and the end."""
    await repository.add_event(job, JobEvent("log", "one\n"))
    await pass_time(25 * 3600)
    await repository.update_job_status(job, "queued")
    await pass_time(25 * 3600)
    await repository.add_event(job, JobEvent("log", "two\n"))
    assert await stored(repository) == "one\ntwo\n"


async def test_what_was_flushed_is_stored(repository: RedisJobRepository, job: str) -> None:
    """All that was written before, however soon, in as many chunks as it takes; what comes after it waits as before."""
    async with repository.log_writer(job, settings=PATIENT) as writer:
        await writer.flush()
        await writer.write("first\n")
        await writer.flush()
        assert await stored(repository) == "first\n"
        text = "".join(f"{number}\n" for number in range(50_000))
        await writer.write(text)
        await asyncio.gather(writer.flush(), writer.flush())
        assert await stored(repository) == "first\n" + text
        await writer.write("waits\n")
        await asyncio.sleep(0.05)
        assert await stored(repository) == "first\n" + text
    assert await stored(repository) == "first\n" + text + "waits\n"
    with pytest.raises(LogWriterClosedError):
        await writer.flush()


async def test_a_flush_keeps_what_may_be_a_secret(repository: RedisJobRepository, job: str) -> None:
    """Neither the beginning of a secret nor half a character goes out for it."""
    async with repository.log_writer(job, secrets=["hunter2"], settings=PATIENT) as writer:
        await writer.write(b"a hunt")
        await writer.flush()
        assert await stored(repository) == "a "
        await writer.write(b"er2 \xe2\x82")
        await writer.flush()
        assert await stored(repository) == "a *** "
        await writer.write(b"\xac")
    assert await stored(repository) == "a *** €"


async def test_a_flush_that_fails_is_told(repository: RedisJobRepository, tmp_path: Path) -> None:
    """It waits neither for what can't be stored, nor without a word."""
    writer = repository.log_writer("none", settings=WriterSettings(rescue_directory=tmp_path))
    writer.open()
    await writer.write("x")
    with pytest.raises(LogNotStoredError):
        await writer.flush()
    with pytest.raises(LogNotStoredError):
        await writer.write("y")
    with pytest.raises(LogNotStoredError, match="last 2 bytes"):
        await writer.flush()
    with pytest.raises(LogNotStoredError):
        await writer.close()
    assert texts_in(tmp_path) == ["xy"]


async def test_half_a_character_is_replaced(repository: RedisJobRepository, job: str) -> None:
    """Half a surrogate pair ends no sender; a whole one is its character."""
    async with repository.log_writer(job, settings=PATIENT) as writer:
        await writer.write("\ud83d one\n")
        await writer.flush()
        await writer.write("\ud83d\ude00 two\n")
    assert await stored(repository) == "\ufffd one\n😀 two\n"


async def test_a_handler_that_raises_half_a_character_fails(repository: RedisJobRepository) -> None:
    """Its text is in the log, with U+FFFD; the job isn't run again for it."""
    await repository.create_job(Job(id="j", status="queued"))
    [claimed] = await claims.claim(repository, "default", "c1", 1, 30.0)
    async with ClaimedJob(repository, claimed):
        raise ValueError("\ud83d")
    assert "ValueError: \ufffd\n" in await stored(repository)
    job = await repository.get_job_summary("j")
    assert job is not None
    assert job.status == "failed"


async def test_whatever_breaks_the_sender_is_told(
    repository: RedisJobRepository, job: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error that nobody has thought of is told at the next write, and the file has all that isn't stored."""

    async def break_down(self: object, chunk: object) -> None:
        raise ZeroDivisionError

    settings = WriterSettings(pause_seconds=0, rescue_directory=tmp_path)
    writer = repository.log_writer(job, settings=settings)
    writer.open()
    await writer.write("stored\n")
    await writer.flush()
    monkeypatch.setattr(chunk_sender.ChunkSender, "send", break_down)
    with contextlib.suppress(LogNotStoredError):
        await writer.write("one\n")
    await writer.until_over()
    with pytest.raises(LogNotStoredError) as caught:
        await writer.write("two\n")
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    with pytest.raises(LogNotStoredError):
        await writer.close()
    assert texts_in(tmp_path) == ["one\ntwo\n"]
    assert await stored(repository) == "stored\n"


@pytest.mark.parametrize(
    ("place", "is_kept"),
    [
        ("ci_eventstore.job_writer.JobLogSink.append", True),
        ("ci_eventstore.writer.chunk_sender.ChunkSender.send", True),
        ("ci_eventstore.writer.time_limit.TimeLimit.hold", True),
        ("ci_eventstore.writer.log_writer.LogWriter._pause", True),
        # Secrets can't be masked any more, or no file can be written: then nothing is kept.
        ("ci_eventstore.writer.masking.Masker.mask", False),
        ("ci_eventstore.writer.masked_chunks.MaskedChunks.take_masked", False),
    ],
)
async def test_wherever_a_writer_breaks_that_is_told(
    repository: RedisJobRepository, job: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, is_kept: bool
) -> None:
    """By `flush`, `write` and the end, none of which waits for ever; the rest is in the file if that can be."""

    def break_down(*arguments: object) -> None:
        raise ZeroDivisionError

    settings = WriterSettings(pause_seconds=0, rescue_directory=tmp_path)
    writer = repository.log_writer(job, secrets=["hunter2"], settings=settings)
    writer.open()
    await writer.write("stored\n")
    await writer.flush()
    monkeypatch.setattr(place, break_down)
    with contextlib.suppress(LogNotStoredError):
        await writer.write("one\n")
    async with asyncio.timeout(10):
        await writer.until_over()
        for _ in range(2):
            with pytest.raises(LogNotStoredError) as caught:
                await writer.write("two\n")
            assert isinstance(caught.value.__cause__, ZeroDivisionError)
        with pytest.raises(LogNotStoredError):
            await writer.flush()
        with pytest.raises(LogNotStoredError) as caught:
            await writer.close()
    rest = "" if place.endswith("_pause") else "one\n"
    assert texts_in(tmp_path) == ([rest + "two\ntwo\n"] if is_kept else [])
    assert (caught.value.path is not None) is is_kept
    assert await stored(repository) == ("stored\n" if rest else "stored\none\n")


async def test_a_rescue_file_that_breaks_is_told(
    repository: RedisJobRepository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever it is, the writer has given up."""

    def break_down(*arguments: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("ci_eventstore.writer.rescue.RescueFile._append", break_down)
    writer = repository.log_writer("none", settings=WriterSettings(rescue_directory=tmp_path))
    writer.open()
    await writer.write("x")
    async with asyncio.timeout(10):
        with pytest.raises(LogNotStoredError, match="could not be kept in a local file either") as caught:
            await writer.flush()
    assert caught.value.path is None
    with pytest.raises(LogNotStoredError):
        await writer.close()


async def test_a_job_whose_log_is_broken_fails_once(
    repository: RedisJobRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its end is stored, so it isn't run again."""

    async def break_down(self: object, chunk: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(chunk_sender.ChunkSender, "send", break_down)
    await repository.create_job(Job(id="j", status="queued"))
    [claimed] = await claims.claim(repository, "default", "c1", 1, 30.0)
    async with ClaimedJob(repository, claimed) as running:
        await running.write("one\n")
        raise ValueError("the handler's own")
    found = await repository.get_job_summary("j")
    assert found is not None
    assert found.status == "failed"
    assert "bytes of the output are missing here" in await stored(repository)


async def test_a_sender_that_is_cancelled_is_told(repository: RedisJobRepository, job: str, tmp_path: Path) -> None:
    """As when an event loop ends: nobody waits for it, and its text is in the file."""
    writer = repository.log_writer(job, settings=WriterSettings(rescue_directory=tmp_path))
    writer.open()
    await writer.write("one\n")
    assert writer._sender is not None
    writer._sender.cancel()
    await writer.until_over()
    with pytest.raises(LogNotStoredError, match="last 4 bytes"):
        await writer.flush()
    with pytest.raises(LogNotStoredError):
        await writer.close()
    assert texts_in(tmp_path) == ["one\n"]


async def test_a_sender_that_was_cancelled_before_it_began_is_told(
    repository: RedisJobRepository, job: str, tmp_path: Path
) -> None:
    """At the end of an event loop nothing of a task may run; what it should have stored is in the file all the same."""
    writer = repository.log_writer(job, settings=WriterSettings(rescue_directory=tmp_path))
    writer.open()
    assert writer._sender is not None
    writer._sender.cancel()
    writer._take_in("one\n")
    with pytest.raises(LogNotStoredError, match="last 4 bytes"):
        await writer.close()
    assert texts_in(tmp_path) == ["one\n"]


async def test_who_is_cancelled_while_leaving_stores_the_rest(
    repository: RedisJobRepository, server: Nodes, job: str
) -> None:
    """The sender isn't cancelled with who waits for it."""

    async def write_all() -> None:
        async with repository.log_writer(job, settings=PATIENT) as writer:
            await writer.write("one\n")
            await writer.flush()
            await writer.write("two\n")
            await server.read("CLIENT", "PAUSE", "100")

    writing = asyncio.create_task(write_all())
    await asyncio.sleep(0.05)
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    assert await stored(repository) == "one\ntwo\n"


async def test_a_full_store_is_waited_for(
    repository: RedisJobRepository,
    server: Nodes,
    job: str,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Out of memory is an outage, called by its name, once; what was written is stored when there is room."""
    monkeypatch.setattr("ci_eventstore.connection.node.FULL_PATIENCE_SECONDS", 0.1)
    monkeypatch.setattr(chunk_sender, "RETRY_SECONDS", 0.01)
    async with repository.log_writer(job, settings=WriterSettings(pause_seconds=0)) as writer:
        await writer.write("one\n")
        await writer.flush()
        await server.read("CONFIG", "SET", "maxmemory", "1")
        try:
            await writer.write("two\n")
            await wait_until(lambda: "the store is full" in caplog.text)
            await asyncio.sleep(0.3)
        finally:
            await server.read("CONFIG", "SET", "maxmemory", "0")
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == [
        "the log waits: the store is full"
    ]
    assert await stored(repository) == "one\ntwo\n"


async def test_the_end_of_a_writer_tells_what_was_lost(
    repository: RedisJobRepository, server: Nodes, keys: Keys, job: str
) -> None:
    """Though nothing more is written that would find it out."""
    async with repository.log_writer(job) as writer:
        await writer.write("one\n")
        await writer.flush()
        await server.read("DEL", keys.job(job).calls)
    assert await stored(repository) == "one\n" + LOST_LINE


async def test_the_end_of_a_writer_doesnt_wait_to_look_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is stored is stored: a server that is away at the end can't say otherwise."""
    monkeypatch.setattr(chunk_sender, "LOOK_BACK_SECONDS", 0.05)
    monkeypatch.setattr(log_writer, "CANCELLED_SECONDS", 0.05)
    with RealServer(find_valkey()) as own:
        async with RedisJobRepository.from_url(own.url) as repository:
            await repository.create_job(Job(id="j", status="running"))
            async with repository.log_writer("j") as writer:
                await writer.write("one\n")
                await writer.flush()
                own.suspend()
            own.resume()
            assert await stored(repository) == "one\n"
