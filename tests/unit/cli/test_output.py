"""What the program prints: through a slow or stuck reader, in its own form, and masked."""

import asyncio
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ci_eventstore.cli.output import StandardOutput, saying_warnings_of
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


def test_warnings_are_said_while_something_runs(capsys: pytest.CaptureFixture[str]) -> None:
    """In one line with the program's name; what is less than a warning isn't said, nor what comes later."""
    logger = logging.getLogger("ci_eventstore.writer")
    with saying_warnings_of("ci_eventstore.writer"):
        logger.warning("the store is away,\nthe log waits")
        logger.info("not of interest")
    assert capsys.readouterr().err == "ci-eventstore: the store is away, | the log waits\n"
    assert logger.handlers == []


PROGRAM = """
import logging
from ci_eventstore.cli.output import say
from ci_eventstore.cli.secrecy import mask_standard_error
mask_standard_error(["hunter2-0815", "one line of\\ntwo lines"])
say("a hunter2-0815 in a message")
logging.getLogger("ci_eventstore.writer").warning("one of %s in a log", "hunter2-0815")
try:
    raise ValueError("hunter2-0815")
except ValueError:
    logging.getLogger("asyncio").exception("a task failed")
raise RuntimeError({"a": "one line of\\ntwo lines", "b": "aHVudGVyMi0wODE1"})
"""


@pytest.mark.slow
def test_messages_logs_and_tracebacks() -> None:
    """Also what Python itself says of an exception that nobody handles; slow, since it starts a process."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    said = done.stderr
    assert said.startswith("ci-eventstore: a *** in a message\none of *** in a log\na task failed\nTraceback")
    assert "ValueError: ***" in said
    assert "RuntimeError: {'a': '***', 'b': '***'}" in said
    for secret in ("hunter2", "one line", "two lines", "aHVudGVy"):
        assert secret not in said
