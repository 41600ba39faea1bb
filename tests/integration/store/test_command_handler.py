"""`CommandHandler`: whatever happens to a job's task, nothing of it is left on the machine."""

import asyncio
import os
import re
import resource
import signal
import tempfile
import zipfile
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from ci_common.models import Job
from ci_eventstore.controllers import ClaimedJob, CommandHandler, WorkFolder
from ci_eventstore.errors import MachineError
from ci_eventstore.processes import last_output
from ci_eventstore.repository import RedisJobRepository
from tests import claims
from tests.acceptance.command_line import is_alive
from tests.cancelling import cancel_at_each_step
from tests.leftovers import children, descriptors, nothing_is_left
from tests.waiting import wait_until


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[WorkFolder]:
    """A controller's folder."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with WorkFolder() as folder:
        yield folder


@pytest.fixture
def take(repository: RedisJobRepository) -> Callable[..., Awaitable[ClaimedJob]]:
    """Submit a job and claim it."""
    count = 0

    async def take(*command: str, zip_file_path: Path | None = None) -> ClaimedJob:
        nonlocal count
        count += 1
        path = None if zip_file_path is None else str(zip_file_path)
        await repository.create_job(Job(id=f"j{count}", status="queued", command=command, zip_file_path=path))
        [claimed] = await claims.claim(repository, "default", "c", 1, 60.0)
        return ClaimedJob(repository, claimed)

    return take


Take = Callable[..., Awaitable[ClaimedJob]]


def job_folders(folder: Path) -> list[Path]:
    """Return the folders of jobs, of all controllers."""
    return list(folder.rglob("job-*"))


async def log_of(repository: RedisJobRepository, job: ClaimedJob) -> str:
    """Return the log of a job."""
    events = await repository.get_events_since(job.job.id, 0)
    return "".join(event.data or "" for event in events)


@pytest.mark.slow
@pytest.mark.parametrize("times", [1, 3], ids=["once", "three times"])
async def test_cancelled_at_each_wait(take: Take, folder: WorkFolder, tmp_path: Path, times: int) -> None:
    """No process, no descriptor, no folder is left, however often the task is cancelled."""
    with zipfile.ZipFile(tmp_path / "p.zip", "w") as archive:
        archive.writestr("file", "text")
    handler = CommandHandler(folder, environment={"PATH": os.environ["PATH"]})
    jobs: list[ClaimedJob] = []

    async def run() -> None:
        job = jobs.pop()
        try:
            await handler(job)
        finally:
            await job._close_log()

    async def next_job(waits: int) -> None:
        assert job_folders(tmp_path) == [], f"cancelled at wait {waits}"
        assert handler._running == {}
        await nothing_is_left(before, f"cancelled at wait {waits}")
        jobs.append(await take("sh", "-c", "cat file; sleep 0.05 & wait", zip_file_path=tmp_path / "p.zip"))

    before = descriptors(), children()
    jobs.append(await take("true"))
    await run()
    before = descriptors(), children()
    await next_job(0)
    assert await cancel_at_each_step(run, next_job, times=times) > 6


async def test_what_a_machine_cannot_do_is_told_apart(
    take: Take, folder: WorkFolder, repository: RedisJobRepository
) -> None:
    """Without a descriptor left nothing can be started here; a command that isn't there is missing everywhere."""
    handler = CommandHandler(folder)
    job = await take("true")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")), hard))
    try:
        with pytest.raises(MachineError, match=r"no (process|folder).*Too many open files"):
            await handler(job)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert handler._running == {}
    async with await take("there-is-no-such-command") as missing:
        assert await handler(missing) is False
    log = await log_of(repository, missing)
    assert log == "['there-is-no-such-command' can't be started: No such file or directory]\n"


async def test_a_removed_work_folder_fails_no_job(take: Take, folder: WorkFolder) -> None:
    """It is made again."""
    handler = CommandHandler(folder)
    assert folder._path is not None
    folder._path.rmdir()
    async with await take("pwd") as job:
        assert await handler(job)


async def test_a_fifo_as_a_project_fails_the_job_at_once(
    take: Take, folder: WorkFolder, tmp_path: Path, repository: RedisJobRepository
) -> None:
    """Nobody ever writes to it."""
    os.mkfifo(tmp_path / "fifo")
    async with asyncio.timeout(20), await take("true", zip_file_path=tmp_path / "fifo") as job:
        assert await CommandHandler(folder)(job) is False
    assert "is not a regular file" in await log_of(repository, job)


@pytest.mark.slow  # It takes over a second of a CPU.
async def test_unpacking_can_be_cancelled(take: Take, folder: WorkFolder, tmp_path: Path) -> None:
    """A big project stops a controller no longer than it takes to unpack one more piece."""
    with zipfile.ZipFile(tmp_path / "big.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(300):
            archive.writestr(f"{number}", bytes(1024 * 1024))
    job = await take("true", zip_file_path=tmp_path / "big.zip")
    running = asyncio.ensure_future(CommandHandler(folder)(job))
    await wait_until(lambda: bool(list(tmp_path.rglob("job-*/*"))))
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert job_folders(tmp_path) == []


SLOW_FILTER = "exec > >(while read line; do sleep 0.1; echo $line; done); printf '%s\\n' 1 2 3 4 5 6 7 8 9"


@pytest.fixture
def short_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    """Output is waited for for less long."""
    monkeypatch.setattr(last_output, "QUIET_SECONDS", 0.5)


@pytest.mark.slow
async def test_output_behind_a_commands_end_is_stored(
    take: Take, folder: WorkFolder, repository: RedisJobRepository, short_silence: None
) -> None:
    """As long as it comes: what the command has printed goes through a filter that takes its time."""
    async with await take("bash", "-c", SLOW_FILTER) as job:
        assert await CommandHandler(folder)(job)
    assert await log_of(repository, job) == "1\n2\n3\n4\n5\n6\n7\n8\n9\n"


@pytest.mark.slow
async def test_what_is_killed_for_its_output_is_named(
    take: Take, folder: WorkFolder, repository: RedisJobRepository, short_silence: None
) -> None:
    """It printed nothing any more, but could have; what has left the group is named as well, and goes on."""
    async with await take("sh", "-c", "sleep 1000 & setsid sleep 999 & printf end") as job:
        assert await CommandHandler(folder)(job)
    found = re.fullmatch(
        r"end\n\[the command has ended, and nothing came for 2s: its output is cut off here; "
        r"killed, as they could still print: sleep \((\d+)\); "
        r"what these print from here on isn't stored: sleep \((\d+)\)\]\n",
        await log_of(repository, job),
    )
    assert found is not None
    os.kill(int(found[2]), signal.SIGKILL)
    await wait_until(lambda: not is_alive(int(found[1])))


async def test_output_that_cannot_be_carried_on_fails_the_job(
    take: Take, folder: WorkFolder, repository: RedisJobRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also after the command's end: a log that lacks something for an unknown reason is no success."""
    async with await take("sh", "-c", "echo one; (sleep 0.3; echo two) &") as job:
        write = job.write

        async def write_all_but_one(data: str | bytes) -> None:
            if data == b"two\n":
                raise ZeroDivisionError
            await write(data)

        monkeypatch.setattr(job, "write", write_all_but_one)
        with pytest.raises(ZeroDivisionError):
            await CommandHandler(folder)(job)
        raise ZeroDivisionError
    found = await repository.get_job_summary(job.job.id)
    assert found is not None
    assert found.status == "failed"


@pytest.mark.parametrize("how", ["cancel", "hurry"])
async def test_whoever_ends_a_job_ends_the_wait_for_its_output(
    take: Take, folder: WorkFolder, tmp_path: Path, how: str
) -> None:
    """At once, though the output goes on."""
    handler = CommandHandler(folder)
    job = await take("sh", "-c", f"(while :; do echo; sleep 0.1; done) & touch {tmp_path}/ended")
    running = asyncio.ensure_future(handler(job))
    await wait_until(lambda: (tmp_path / "ended").exists() and any(pump.is_to_wait for pump in handler._pumps))
    if how == "cancel":
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            async with asyncio.timeout(10):
                await running
    else:
        handler.hurry()
        async with asyncio.timeout(10):
            assert await running
    await job._close_log()
    assert handler._pumps == set()


async def test_a_command_sees_nothing_of_the_store(
    take: Take, folder: WorkFolder, repository: RedisJobRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of this program's variables it has its job's id only."""
    monkeypatch.setenv("CI_EVENTSTORE_URL", "redis://:hunter2@example.com")
    monkeypatch.setenv("CI_EVENTSTORE_PREFIX", "other")
    handler = CommandHandler(folder)
    async with await take("env") as job:
        assert await handler(job)
    log = await log_of(repository, job)
    assert [line for line in log.splitlines() if "CI_EVENTSTORE" in line] == [f"CI_EVENTSTORE_JOB_ID={job.job.id}"]
    assert "hunter2" not in log
