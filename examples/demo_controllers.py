"""The part of the demo in which controllers run jobs, one is cancelled, and a controller is killed."""

import asyncio
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

from demo_steps import TOOL, expect, tool

from ci_common.models import User, utc_now
from ci_eventstore import RedisJobRepository
from ci_eventstore.processes.command import is_alive

#: The first time it tells its process id and doesn't end; the second time it does.
INTERRUPTED = "if [ -e {0} ]; then echo finished; else echo $$ > {0}.new; mv {0}.new {0}; echo begun; sleep 1000; fi"


def submit(job_id: str, user: str, *options: str, script: str) -> None:
    """Put a job into a queue with the command line program, and show how."""
    arguments = ["submit", "--id", job_id, "--user", user, *options, "--", "sh", "-c", script]
    shown = script if len(script) < 40 else f"{script[:39]}…"
    print(f"   $ ci-eventstore {' '.join(arguments[:-1])} '{shown}'")
    if tool(*arguments).decode() != f"{job_id}\n":
        expect(False, f"submit printed the id {job_id}")


def start_controller(name: str, *queues: str) -> "subprocess.Popen[bytes]":
    """Start a controller that has two jobs at a time, and loses them after a second without a sign of life."""
    options = [word for queue in queues for word in ("--queue", queue)]
    command = ["controller", "--name", name, "--lease", "1s", "--concurrency", "2", *options]
    print(f"   $ ci-eventstore {' '.join(command)} &")
    return subprocess.Popen([*TOOL, *command], stderr=subprocess.DEVNULL)


async def wait_for(predicate: Callable[[], bool], what: str) -> None:
    """Wait until something is so, or end the demo if it never is."""
    for _ in range(1000):
        if predicate():
            return
        await asyncio.sleep(0.02)
    expect(False, what)


async def show_controllers(url: str, folder: Path) -> None:
    """Submit jobs, have two controllers run them, and disturb both."""
    async with RedisJobRepository.from_url(url) as repository:
        for user in ("ada", "bob"):
            await repository.create_user(User(id=user, name=user, email=f"{user}@example.com", created_at=utc_now()))
    for number in (1, 2, 3):
        submit(f"ada-{number}", "ada", script=f"echo this is ada, number {number}")
    submit("bob-1", "bob", script="echo this is bob; exit 3")
    submit("bob-2", "bob", "--queue", "slow", "--name", "interrupted", script=INTERRUPTED.format(folder / "process"))
    submit("ada-4", "ada", "--queue", "slow", script="echo waiting; sleep 1000")
    print(tool("queues").decode(), end="")
    doomed = start_controller("doomed", "slow")
    try:
        await wait_for((folder / "process").exists, "bob-2 has begun")
        await wait_for(lambda: b"waiting" in tool("tail", "ada-4", "--no-follow"), "ada-4 has begun")
        tool("jobs", "cancel", "ada-4", "--reason", "not today")
        expect(
            tool("tail", "ada-4") == b"waiting\n[cancelled: not today]\n", "ada-4 was cancelled, its command stopped"
        )
        group = os.getpgid(int((folder / "process").read_text()))
        steady = start_controller("steady", "default", "slow")
    finally:
        doomed.kill()
        doomed.wait()
    print(f"   killed the controller doomed, process {doomed.pid}")
    try:
        await compare(url, group)
    finally:
        steady.terminate()
        steady.wait()
    print(tool("jobs", "list").decode(), end="")
    expect(steady.returncode == 0, "the other controller ended when it was told to")


async def compare(url: str, group: int) -> None:
    """Wait for the jobs' ends, and compare what they did with what they should have."""
    expected = b"begun\n[attempt 2: controller doomed was lost]\nfinished\n"
    expect(tool("tail", "bob-2") == expected, "bob-2 was run again by the other controller, and its log says why")
    await wait_for(lambda: not is_alive(group), "the killed controller's command has ended")
    expect(not is_alive(group), "what the killed controller ran is gone as well")
    logs = [tool("tail", f"ada-{number}").decode() for number in (1, 2, 3)]
    expect(logs == [f"this is ada, number {number}\n" for number in (1, 2, 3)], "ada's jobs were run once each")
    expect(tool("tail", "bob-1") == b"this is bob\n[exit code 3]\n", "so was bob's, which failed")
    async with RedisJobRepository.from_url(url) as repository:
        jobs = {job.id: job for job in await repository.list_jobs()}
        begun = [str(jobs[job_id].start_time) for job_id in ("ada-1", "bob-1", "ada-3")]
        expect(begun == sorted(begun), "bob, who came last, didn't wait for all that ada had submitted before")
        expect(await repository.verify() == [], "verify finds no difference")
