"""What a command prints becomes events: at once, in order, each character whole; and when that fails, it is said."""

import asyncio
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ci_common import JobEvent
from ci_common.errors import JobNotFoundError
from ci_eventstore.cli.held_job import JobLog
from ci_eventstore.connection.outage_log import Outages
from ci_eventstore.errors import LogNotStoredError
from ci_eventstore.events.caller import Call, JobCaller, Ledger
from ci_eventstore.writer.log_writer import LogWriter, WriterSettings
from ci_eventstore.writer.losses import note_of
from tests.waiting import wait_until


class SlowStore:
    """Keeps each append waiting until it is let through, and may refuse it."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.gate = asyncio.Semaphore(0)
        self.refuses = False
        self.caller = JobCaller("it", Ledger())
        self.outages = Outages()

    async def append(self, event: JobEvent, call: Call) -> None:
        """Keep the text."""
        await self.gate.acquire()
        if self.refuses:
            raise JobNotFoundError("it")
        self.texts.append(event.data or "")

    async def has_call(self, token: str, number: int) -> bool:
        """Tell that nothing is lost."""
        return True

    def let_through(self, appends: int) -> None:
        """Let so many appends end."""
        for _ in range(appends):
            self.gate.release()

    def log(self, *, spool: int = 1000, directory: Path | None = None) -> JobLog:
        """Return a log that goes into this store."""
        settings = WriterSettings(pause_seconds=0, spool_characters=spool, rescue_directory=directory)
        return JobLog(LogWriter("it", self, settings=settings))


def only_file_of(directory: Path) -> Path:
    [path] = directory.iterdir()
    return path


@pytest.fixture
def store() -> SlowStore:
    return SlowStore()


async def test_what_arrives_during_an_append_goes_out_together(store: SlowStore) -> None:
    """The first piece goes alone and at once, the following ones as one event."""
    async with store.log() as log:
        await log.write(b"one ")
        await asyncio.sleep(0)
        for piece in (b"two ", b"three ", b"four"):
            await log.write(piece)
        store.let_through(2)
    assert store.texts == ["one ", "two three four"]


async def test_who_writes_waits_when_the_spool_is_full(store: SlowStore) -> None:
    """It goes on as soon as the store has taken something."""
    async with store.log(spool=10) as log:
        await log.write(b"first")
        await asyncio.sleep(0)
        writing = asyncio.create_task(log.write(b"more than ten"))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(writing), 0.05)
        store.let_through(2)
        await writing
    assert "".join(store.texts) == "firstmore than ten"


async def test_after_a_failure_all_output_goes_into_the_rescue_file(
    store: SlowStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nobody waits, the warning comes while the command runs, and log and file together are what was printed."""
    async with store.log(spool=10, directory=tmp_path) as log:
        warning = asyncio.create_task(log.report())
        store.let_through(2)
        await log.write("é\nx".encode())
        await wait_until(lambda: store.texts != [])
        store.refuses = True
        await log.write(b"lost")
        await warning
        for _ in range(5):
            await log.write(b"much more than fits, and half a character: \xe2\x82")
        assert b"much more" in only_file_of(tmp_path).read_bytes(), "text doesn't gather in memory until the end"
    path = only_file_of(tmp_path)
    rest = b"lost" + b"much more than fits, and half a character: \xe2\x82" * 5
    assert (store.texts, path.read_bytes(), stat.S_IMODE(path.stat().st_mode)) == (["é\nx"], rest, 0o600)
    assert capsys.readouterr().err == (
        "ci-eventstore: warning: the rest of the output is not stored in the log of job it, "
        f"but kept in {path}; the command goes on: there is no job 'it'\n"
    )
    assert log.failure is not None
    assert (log.failure.path, log.failure.size_bytes) == (str(path), len(rest))
    assert f"the last {len(rest)} bytes" in note_of(log.failure)


async def test_without_a_place_for_a_rescue_file_that_is_said(
    store: SlowStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In the warning, and in the note that the log gets."""
    store.refuses = True
    store.let_through(1)
    async with store.log(directory=tmp_path / "nowhere") as log:
        await log.write(b"lost")
        await log.report()
        await log.write(b" more")
    assert "nor could it be kept in a local file" in capsys.readouterr().err
    assert log.failure is not None
    assert note_of(log.failure) == (
        "\n[the last 9 bytes of the output are missing here: the store failed; they are lost]\n"
    )


async def test_in_a_hurry_a_store_without_an_answer_is_given_up(store: SlowStore, tmp_path: Path) -> None:
    """What is on its way isn't waited for, nor is what comes afterwards; the file has it all."""
    async with store.log(directory=tmp_path) as log:
        await log.write(b"one ")
        await asyncio.sleep(0)
        await log.write(b"two ")
        log.hurry(0.05)
        await log.report()
        await log.write(b"three")
    path = only_file_of(tmp_path)
    assert (path.read_bytes(), isinstance(log.failure, LogNotStoredError)) == (b"one two three", True)


async def test_in_a_hurry_a_store_that_answers_gets_everything(store: SlowStore, tmp_path: Path) -> None:
    """The limit is for each chunk, not for all of them."""
    async with store.log(directory=tmp_path) as log:
        log.hurry(0.2)
        for number in range(10):
            await log.write(b"%d" % number)
            await asyncio.sleep(0.05)
            store.let_through(1)
            await wait_until(lambda number=number: len(store.texts) == number + 1)  # type: ignore[misc]
    assert (store.texts, log.failure) == ([str(number) for number in range(10)], None)


@pytest.mark.parametrize(
    ("pieces", "ends"), [([], True), ([b"a\n"], True), ([b"a\n", b"b"], False), ([b"b", b"\n"], True)]
)
async def test_it_knows_whether_a_line_is_unfinished(store: SlowStore, pieces: list[bytes], ends: bool) -> None:
    """Nothing at all counts as the beginning of a line."""
    store.let_through(len(pieces))
    async with store.log() as log:
        for piece in pieces:
            await log.write(piece)
    assert log.ends_a_line is ends


@given(st.lists(st.one_of(st.binary(max_size=8), st.sampled_from(["€".encode()[:2], "€".encode()[2:], b"\xff"]))))
def test_any_pieces_give_the_same_bytes(pieces: list[bytes]) -> None:
    """Whatever the bytes and however they are cut; and no event ends within a character that the next one goes on."""

    async def store_all() -> list[str]:
        store = SlowStore()
        store.let_through(len(pieces) + 1)
        async with store.log() as log:
            for piece in pieces:
                await log.write(piece)
                await asyncio.sleep(0)
        return store.texts

    texts = asyncio.run(store_all())
    whole = b"".join(pieces)
    assert b"".join(text.encode("utf-8", "surrogateescape") for text in texts) == whole
    assert "".join(texts) == whole.decode("utf-8", "surrogateescape")
