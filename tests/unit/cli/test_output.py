"""What a command prints becomes events: at once, in order, each character whole."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ci_common import JobEvent, MemoryJobRepository
from ci_common.errors import JobNotFoundError
from ci_eventstore.cli import output
from ci_eventstore.cli.output import OutputAppender
from tests.waiting import wait_until


class SlowRepository(MemoryJobRepository):
    """Keeps each append waiting until it is let through, and may refuse it."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.gate = asyncio.Semaphore(0)
        self.refuses = False

    async def add_event(self, job_id: str, event: JobEvent) -> None:
        """Keep the text."""
        await self.gate.acquire()
        if self.refuses:
            raise JobNotFoundError(job_id)
        self.texts.append(event.data or "")

    def let_through(self, appends: int) -> None:
        """Let so many appends end."""
        for _ in range(appends):
            self.gate.release()


@pytest.fixture
def repository() -> SlowRepository:
    return SlowRepository()


async def test_what_arrives_during_an_append_goes_out_together(repository: SlowRepository) -> None:
    """The first piece goes alone and at once, the following ones as one event."""
    log = OutputAppender(repository, "it")
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(log.send())
        await log.write(b"one ")
        await wait_until(repository.gate.locked)
        await asyncio.sleep(0)
        for piece in (b"two ", b"three ", b"four"):
            await log.write(piece)
        repository.let_through(2)
        await log.close()
    assert repository.texts == ["one ", "two three four"]


async def test_a_writer_waits_when_the_buffer_is_full(
    repository: SlowRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It goes on as soon as the store has taken something."""
    monkeypatch.setattr(output, "BUFFER_BYTES", 10)
    log = OutputAppender(repository, "it")
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(log.send())
        await log.write(b"first")
        await asyncio.sleep(0)
        writer = tasks.create_task(log.write(b"more than ten"))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(writer), 0.05)
        repository.let_through(2)
        await writer
        await log.close()
    assert "".join(repository.texts) == "firstmore than ten"


async def test_after_a_failure_nothing_is_stored_and_nobody_waits(
    repository: SlowRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The appender says how far the log is complete, and takes further output without keeping it."""
    monkeypatch.setattr(output, "BUFFER_BYTES", 10)
    log = OutputAppender(repository, "it")
    async with asyncio.TaskGroup() as tasks:
        sender = tasks.create_task(log.send())
        repository.let_through(2)
        await log.write("é\nx".encode())
        await wait_until(lambda: repository.texts != [])
        repository.refuses = True
        await log.write(b"lost")
        await sender
        for _ in range(5):
            await log.write(b"much more than fits")
        await log.close()
    assert (repository.texts, log.stored_bytes, log.stored_lines) == (["é\nx"], 4, 1)
    assert isinstance(log.failure, JobNotFoundError)


@pytest.mark.parametrize(
    ("pieces", "ends"), [([], True), ([b"a\n"], True), ([b"a\n", b"b"], False), ([b"b", b"\n"], True)]
)
async def test_it_knows_whether_a_line_is_unfinished(
    repository: SlowRepository, pieces: list[bytes], ends: bool
) -> None:
    """Nothing at all counts as the beginning of a line."""
    log = OutputAppender(repository, "it")
    for piece in pieces:
        await log.write(piece)
    assert log.ends_a_line is ends


@given(st.lists(st.one_of(st.binary(max_size=8), st.sampled_from(["€".encode()[:2], "€".encode()[2:], b"\xff"]))))
def test_any_pieces_give_the_same_bytes(pieces: list[bytes]) -> None:
    """Whatever the bytes and however they are cut; and no event ends within a character that the next one goes on."""

    async def store() -> list[str]:
        repository = SlowRepository()
        repository.let_through(len(pieces) + 1)
        log = OutputAppender(repository, "it")
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(log.send())
            for piece in pieces:
                await log.write(piece)
                await asyncio.sleep(0)
            await log.close()
        return repository.texts

    texts = asyncio.run(store())
    whole = b"".join(pieces)
    assert b"".join(text.encode("utf-8", "surrogateescape") for text in texts) == whole
    assert "".join(texts) == whole.decode("utf-8", "surrogateescape")
