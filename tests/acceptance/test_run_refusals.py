"""`run` while its store refuses writes for a while, or is away: nothing is run twice, missing or untrue."""

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from ci_common.models import Outcome
from tests.acceptance.command_line import CommandLine, Running
from tests.acceptance.test_controller_refusals import STATES
from tests.servers import RealServer, wait_until

pytestmark = pytest.mark.slow


def start(own_cli: CommandLine, job_id: str, script: str) -> Running:
    """Start `run` with a lease that is shorter than what happens to the store."""
    running = own_cli.start("run", "--id", job_id, "--lease", "2s", "--", "sh", "-c", script)
    assert running.job_id() == job_id
    return running


def printed(seconds: float) -> str:
    """Return ten lines a second."""
    return "".join(f"line {number}\n" for number in range(1, int(seconds * 10) + 1))


@pytest.mark.parametrize(("state", "seconds"), STATES.values(), ids=STATES)
async def test_a_run_goes_on_through(
    own_cli: CommandLine, server: RealServer, tmp_path: Path, state: Callable[..., Any], seconds: float
) -> None:
    """Beside a controller that looks: one that prints all the time, and two that end meanwhile, one of them silent."""
    controller = own_cli.start("controller", "--lease", "2s", "--name", "looking")
    controller.wait_for_error("takes jobs from")
    long = seconds + 3.0
    count = f"echo run >> {tmp_path}/runs; for i in $(seq {int(long * 10)}); do echo line $i; sleep 0.1; done"
    jobs = {
        "long": start(own_cli, "long", count),
        "silent": start(own_cli, "silent", f"echo run >> {tmp_path}/runs; sleep {1 + seconds / 2}"),
        "failing": start(own_cli, "failing", f"echo run >> {tmp_path}/runs; sleep {1 + seconds / 2}; exit 3"),
    }
    runs = tmp_path / "runs"
    await asyncio.to_thread(wait_until, lambda: runs.exists() and len(runs.read_text().split()) == 3, "three commands")
    async with Redis(unix_socket_path=str(server.socket_path)) as admin, state(admin, server):
        await asyncio.sleep(seconds)
    ended = {job_id: await asyncio.to_thread(running.end) for job_id, running in jobs.items()}
    assert {job_id: one.code for job_id, one in ended.items()} == {"long": 0, "silent": 0, "failing": 3}
    for one in ended.values():
        for word in ("lost", "someone else", "could not", "not stored", "Traceback"):
            assert word not in one.err
    logs = {job_id: (await asyncio.to_thread(own_cli, "tail", job_id)).text for job_id in jobs}
    assert logs == {"long": printed(long), "silent": "", "failing": f"[{Outcome(exit_code=3)}]\n"}
    assert ended["long"].text == logs["long"]
    assert runs.read_text() == "run\n" * 3
    assert [name for name in os.listdir(own_cli.environment["TMPDIR"]) if name.endswith(".log")] == []
    async with own_cli.repository() as repository:
        found = {job.id: (str(job.status), job.exit_code) for job in await repository.list_jobs()}
        assert found == {"long": ("completed", 0), "silent": ("completed", 0), "failing": ("completed", 3)}
        assert await repository.verify() == []
