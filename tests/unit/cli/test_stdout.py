"""Standard output whose reader is slow, stuck or gone."""

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from ci_eventstore.cli.output import StandardOutput
from tests.waiting import wait_until

#: More than a pipe holds.
MUCH = os.urandom(300_000)


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """The reading and the writing end of a pipe."""
    ends = os.pipe()
    yield ends
    for end in ends:
        os.close(end)


async def test_a_slow_reader_gets_everything_and_holds_up_nothing(pipe: tuple[int, int]) -> None:
    """While it doesn't read, other tasks go on; the descriptor stays in blocking mode for those who share it."""
    reading, writing = pipe
    writer = asyncio.create_task(StandardOutput(writing).write(MUCH))
    await asyncio.sleep(0)
    assert not writer.done()
    assert os.get_blocking(writing)
    read = b""
    while len(read) < len(MUCH):
        read += await asyncio.to_thread(os.read, reading, 50_000)
    await writer
    assert read == MUCH


async def test_a_stuck_reader_is_abandoned(pipe: tuple[int, int]) -> None:
    """A write that waits, and every later one, ends with BrokenPipeError."""
    _, writing = pipe
    output = StandardOutput(writing)
    writer = asyncio.create_task(output.write(MUCH))
    await asyncio.sleep(0)
    output.abandon()
    with pytest.raises(BrokenPipeError):
        await writer
    with pytest.raises(BrokenPipeError):
        await output.write(b"more")


async def test_a_reader_that_has_gone_is_told() -> None:
    """Also to a write that was waiting for it."""
    reading, writing = os.pipe()
    writer = asyncio.create_task(StandardOutput(writing).write(MUCH))
    await asyncio.sleep(0)
    os.close(reading)
    await wait_until(writer.done)
    os.close(writing)
    with pytest.raises(BrokenPipeError):
        await writer


def test_files_are_written_too(tmp_path: Path) -> None:
    """Though no event loop can watch them."""
    path = tmp_path / "file"
    with path.open("wb") as file:
        asyncio.run(StandardOutput(file.fileno()).write(MUCH))
    assert path.read_bytes() == MUCH
