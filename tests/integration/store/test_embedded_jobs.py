"""Jobs in an embedded server that is killed, and in one whose append-only file was cut."""

import asyncio
import os
import shutil
import signal
from pathlib import Path

import pytest

from ci_common.models import Job, JobEvent, utc_now
from ci_eventstore.connection.deployments import from_url
from ci_eventstore.connection.nodes import Nodes
from ci_eventstore.errors import EmbeddedServerError
from ci_eventstore.repository import RedisJobRepository
from tests.waiting import wait_until


async def server_pid(url: str) -> int:
    """Return the process id of the server at a URL."""
    server = Nodes(from_url(url))
    pid = int((await server.all[0].info())["process_id"])
    await server.close()
    return pid


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")")[1].split()[1])


@pytest.mark.parametrize("victim", ["server", "watchdog"])
async def test_a_job_survives_a_kill_under_load(tmp_path: Path, victim: str) -> None:
    """Writers go on by themselves, and every acknowledged event is there once, in order; so is the job's state."""
    url = f"embedded://{tmp_path}"
    async with RedisJobRepository.from_url(url) as repository:
        await repository.create_job(Job(id="j", status="running"))
        acknowledged: list[str] = []
        stop = asyncio.Event()

        async def write() -> None:
            while not stop.is_set():
                line = f"{len(acknowledged)}\n"
                await repository.add_event("j", JobEvent("log", line))
                acknowledged.append(line)

        writer = asyncio.create_task(write())
        for goal in (100, 200, 300):
            await wait_until(lambda goal=goal: len(acknowledged) >= goal)  # type: ignore[misc]
            pid = await server_pid(url)
            if victim == "watchdog":
                pid = parent_of(pid)
            os.kill(pid, signal.SIGKILL)
        await wait_until(lambda: len(acknowledged) >= 400)
        stop.set()
        await writer
        await repository.complete_job("j", True, utc_now())
        events = await repository.get_events_since("j", 0)
        assert [event.data for event in events[:-1]] == acknowledged
        assert await repository.verify() == []
    async with RedisJobRepository.from_url(url) as repository:
        job = await repository.get_job("j")
        assert job is not None
        assert job.success is True


async def test_a_server_that_cannot_start_says_why(tmp_path: Path) -> None:
    """The error is the embedded server's own, at once, and names what is wrong."""
    (tmp_path / "file").write_text("not a directory")
    with pytest.raises(EmbeddedServerError, match="file"):
        await RedisJobRepository.from_url(f"embedded://{tmp_path}/file").initialize()


async def fill(url: str) -> list[str | None]:
    """Write a job event by event, with state changes in between, and return the data of its events."""
    async with RedisJobRepository.from_url(url) as repository:
        await repository.create_job(Job(id="j", status="queued", user_id="u"))
        await repository.update_job_status("j", "running", container_id="c")
        lines = [f"{number} {'x' * (number * 37 % 200)}\n" for number in range(60)]
        for line in lines:
            await repository.add_event("j", JobEvent("log", line))
        await repository.complete_job("j", True, utc_now())
    return [*lines, None]


@pytest.mark.slow
async def test_a_cut_append_only_file_leaves_a_clean_prefix(tmp_path: Path) -> None:
    """Wherever the file ends, what is loaded is a prefix of what was written, and its projections agree with it."""
    original = tmp_path / "original"
    lines = await fill(f"embedded://{original}")
    [log] = original.glob("appendonlydir/*.incr.aof")
    size = log.stat().st_size
    found = []
    for step in range(12):
        copy = tmp_path / f"copy-{step}"
        shutil.copytree(original, copy)
        os.truncate(copy / log.relative_to(original), size * step // 12 + step)
        async with RedisJobRepository.from_url(f"embedded://{copy}") as repository:
            job = await repository.get_job("j")
            data = [event.data for event in job.events] if job else []
            assert data == lines[: len(data)]
            assert await repository.verify() == []
            found.append(len(data))
    assert found == sorted(found)
    assert len(set(found)) > 6
