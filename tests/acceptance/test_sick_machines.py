"""A controller whose machine can't run jobs beside one whose machine can: no job pays for it."""

import asyncio
import shutil
import zipfile
from pathlib import Path

import pytest

from ci_common.models import Job
from ci_eventstore.repository import RedisJobRepository
from tests.acceptance.command_line import PROGRAM, CommandLine, Running
from tests.acceptance.test_controller import log, start_controller, stop, submit
from tests.needs import OWN_MOUNTS

COUNT = 30


def start_limited(cli: CommandLine, name: str, limit: str, *options: str) -> Running:
    """Start a controller under a limit of the shell's."""
    command = f'ulimit {limit}; exec "$0" "$@"'
    arguments = ["controller", "--name", name, "--lease", "2s", *options]
    running = cli.start_program("bash", "-c", command, PROGRAM, *arguments)
    running.wait_for_error(f"controller {name} takes jobs from")
    return running


async def run_all(cli: CommandLine, names: list[str]) -> list[Job]:
    """Submit jobs of a second each, and return them when they have ended."""
    url, prefix = cli.environment["CI_EVENTSTORE_URL"], cli.environment["CI_EVENTSTORE_PREFIX"]
    command = ("sh", "-c", "sleep 1; echo done")
    async with RedisJobRepository.from_url(url, prefix=prefix) as repository:
        for name in names:
            await repository.create_job(Job(id=name, status="queued", command=command))
        for name in names:
            async for _ in repository.follow_events(name):
                pass
        return [job for name in names if (job := await repository.get_job(name)) is not None]


@pytest.mark.slow
def test_one_without_files_to_spare_gives_its_jobs_to_others(own_cli: CommandLine) -> None:
    """All jobs succeed, though many more were begun at once than there are files for."""
    sick = start_limited(own_cli, "sick", "-n 40", "--concurrency", "20")
    well = start_controller(own_cli, "well", "--concurrency", "4")
    jobs = asyncio.run(run_all(own_cli, [f"j{number}" for number in range(COUNT)]))
    assert [(str(job.status), job.success) for job in jobs] == [("completed", True)] * COUNT
    logs = ["".join(event.data or "" for event in job.events) for job in jobs]
    assert all(text.endswith("done\n") for text in logs)
    told = stop(sick)
    assert "this machine can't run jobs: " in told
    assert "Too many open files" in told
    assert told.count("this machine can't run jobs: ") <= 1 + told.count("this machine can run jobs again")
    assert any("[handed back: controller sick can't run it" in text for text in logs)
    stop(well)


def start_with_little_disk(cli: CommandLine, name: str) -> Running:
    """Start a controller whose temporary folder is a file system of its own, of 256 KiB."""
    script = 'mount -t tmpfs -o size=256k tmpfs "$TMPDIR" && exec "$0" "$@"'
    arguments = ["controller", "--name", name, "--lease", "2s"]
    running = cli.start_program(*OWN_MOUNTS, "sh", "-c", script, PROGRAM, *arguments)
    running.wait_for_error(f"controller {name} takes jobs from")
    return running


async def run_too_big_a_job(cli: CommandLine, project: Path) -> tuple[Job, Job]:
    """Submit a job whose project doesn't fit, and a small one after it; return both when they have ended."""
    with zipfile.ZipFile(project, "w") as archive:
        archive.writestr("big", bytes(1024 * 1024))
    async with cli.repository() as repository:
        await repository.create_job(Job(id="big", status="queued", command=("true",), zip_file_path=str(project)))
        await repository.create_job(Job(id="small", status="queued", command=("echo", "done")))
        for name in ("big", "small"):
            async for _ in repository.follow_events(name):
                pass
        big, small = [await repository.get_job(name) for name in ("big", "small")]
        assert big is not None
        assert small is not None
        return big, small


@pytest.mark.slow
@pytest.mark.needs("mount namespaces")
def test_a_job_that_fills_every_disk_fails_for_it(own_cli: CommandLine, tmp_path: Path) -> None:
    """Three controllers have tried it by then; it has cost the others nothing."""
    sick = [start_with_little_disk(own_cli, f"sick{number}") for number in range(3)]
    big, small = asyncio.run(run_too_big_a_job(own_cli, tmp_path / "project.zip"))
    assert (str(small.status), small.success) == ("completed", True)
    assert str(big.status) == "failed"
    *handed_back, last = [event.data or "" for event in big.events if event.type == "log"]
    assert 2 <= sum(text.count("[handed back: controller sick") for text in handed_back) < 10
    assert "couldn't run it, the last time " in last
    assert "No space left on device" in last
    for running in sick:
        stop(running)


def test_a_work_folder_that_was_removed_is_made_again(own_cli: CommandLine) -> None:
    """As by a cleaner of temporary files: the next job runs as if nothing had happened."""
    controller = start_controller(own_cli, "it")
    submit(own_cli, "first", "--", "true")
    assert log(own_cli, "first") == ""
    temporary = Path(own_cli.environment["TMPDIR"])
    for folder in temporary.iterdir():
        shutil.rmtree(folder)
    submit(own_cli, "second", "--", "echo", "done")
    assert log(own_cli, "second") == "done\n"
    stop(controller)
