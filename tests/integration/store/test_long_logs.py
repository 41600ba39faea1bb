"""A job that prints more than its budget by far, through a `LogWriter`, with a follower, to its end or its death."""

import asyncio
import os
import re
import signal
import sys
from contextlib import aclosing
from pathlib import Path

import pytest

from ci_common.models import Job, JobEvent, utc_now
from ci_eventstore.events.records import Fact
from ci_eventstore.following.records import Followed
from ci_eventstore.repository import RedisJobRepository
from tests.examples import slow
from tests.integration.store.flooding_program import HEAD_BYTES, LINE_BYTES, line
from tests.servers import RealServer
from tests.waiting import wait_until

PROGRAM = Path(__file__).with_name("flooding_program.py")
MEBIBYTE_LINES = 1024 * 1024 // LINE_BYTES
#: How long the log is.
SIZES = pytest.mark.parametrize("mebibytes", [20, slow(200)])
MARKER = re.compile(r"\n\[(\d+) bytes in (\d+) lines are left out here\]\n")


async def follow(repository: RedisJobRepository) -> list[Followed]:
    async with aclosing(repository.follow_records("flood")) as records:
        return [record async for record in records]


def check(records: list[Followed], expected_lines: int | None) -> int:
    """Compare what a follower saw with what was written; return how many lines that were."""
    events = [record for record in records if isinstance(record, JobEvent)]
    assert [event.id for event in events] == list(range(1, len(events) + 1))
    facts = [(str(record.type), place) for place, record in enumerate(records) if isinstance(record, Fact)]
    assert [kind for kind, _ in facts][:2] == ["created", "truncating"]
    notice_at = facts[1][1]
    text = "".join(event.data or "" for event in events if event.type == "log")
    before, lost_bytes, lost_lines, after = MARKER.split(text.removesuffix("[cancelled: its writer is gone]\n"))
    head = [record for record in records[:notice_at] if isinstance(record, JobEvent)]
    assert "".join(event.data or "" for event in head) == before
    assert HEAD_BYTES - 64 * 1024 < len(before) <= HEAD_BYTES
    lines = (len(before) + int(lost_bytes) + len(after)) // LINE_BYTES
    assert before == "".join(map(line, range(len(before) // LINE_BYTES)))
    assert after == "".join(map(line, range(lines - len(after) // LINE_BYTES, lines)))
    assert int(lost_bytes) == int(lost_lines) * LINE_BYTES
    assert len(after) > 1024 * 1024
    assert expected_lines in (None, lines)
    return lines


async def flood(url: str, count: int) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, str(PROGRAM), url, str(count), stdout=asyncio.subprocess.PIPE
    )


@SIZES
async def test_both_ends_of_a_long_log_are_kept(
    repository: RedisJobRepository, valkey: RealServer, mebibytes: int
) -> None:
    """The follower sees beginning, notice, marker and end; the server never holds more than a few mebibytes."""
    lines = mebibytes * MEBIBYTE_LINES
    await repository.create_job(Job(id="flood", status="running"))
    follower = asyncio.create_task(follow(repository))
    writer = await flood(valkey.url, lines)
    assert await writer.wait() == 0
    await repository.complete_job("flood", True, utc_now())
    assert check(await follower, lines) == lines


@SIZES
async def test_the_end_is_kept_when_the_writer_is_killed(
    repository: RedisJobRepository, valkey: RealServer, mebibytes: int
) -> None:
    """What it had been told is stored is counted or there, though someone else ends the job."""
    await repository.create_job(Job(id="flood", status="running"))
    follower = asyncio.create_task(follow(repository))
    writer = await flood(valkey.url, 20_000 * MEBIBYTE_LINES)
    assert writer.stdout is not None
    acknowledged = 0
    while acknowledged < mebibytes * MEBIBYTE_LINES // 4:
        acknowledged = int(await writer.stdout.readline())
    os.kill(writer.pid, signal.SIGKILL)
    await writer.wait()
    rest = (await writer.stdout.read()).split(b"\n")[:-1]
    acknowledged = int(rest[-1]) if rest else acknowledged
    await repository.cancel_job("flood", "its writer is gone")
    assert check(await follower, None) >= acknowledged
    await wait_until(follower.done)
