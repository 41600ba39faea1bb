"""`run` while its store refuses writes for a while, or is away: nothing is run twice, missing or untrue."""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from ci_common.models import Outcome
from tests.acceptance.command_line import CommandLine, Running
from tests.acceptance.conftest import make_command_line
from tests.acceptance.test_controller_refusals import STATES
from tests.servers import RealServer, find_valkey, wait_until

pytestmark = pytest.mark.slow


@pytest.fixture
def refusing() -> Iterator[RealServer]:
    """A server that can be brought into all these states."""
    with RealServer(find_valkey(), "appendfsync always", "enable-debug-command yes") as running:
        yield running


@pytest.fixture
def program(refusing: RealServer, tmp_path: Path) -> Iterator[CommandLine]:
    """The program with a store on that server, and a temporary folder of its own."""
    (tmp_path / "temporary").mkdir()
    environment = {**make_command_line(refusing.url).environment, "TMPDIR": str(tmp_path / "temporary")}
    command_line = CommandLine(environment)
    try:
        yield command_line
    finally:
        command_line.kill_all()


def start(program: CommandLine, job_id: str, script: str) -> Running:
    """Start `run` with a lease that is shorter than what happens to the store."""
    running = program.start("run", "--id", job_id, "--lease", "2s", "--", "sh", "-c", script)
    assert running.job_id() == job_id
    return running


def printed(seconds: float) -> str:
    """Return ten lines a second."""
    return "".join(f"line {number}\n" for number in range(1, int(seconds * 10) + 1))


@pytest.mark.parametrize(("state", "seconds"), STATES.values(), ids=STATES)
async def test_a_run_goes_on_through(
    program: CommandLine, refusing: RealServer, tmp_path: Path, state: Callable[..., Any], seconds: float
) -> None:
    """Beside a controller that looks: one that prints all the time, and two that end meanwhile, one of them silent."""
    controller = program.start("controller", "--lease", "2s", "--name", "looking")
    controller.wait_for_error("takes jobs from")
    long = seconds + 3.0
    count = f"echo run >> {tmp_path}/runs; for i in $(seq {int(long * 10)}); do echo line $i; sleep 0.1; done"
    jobs = {
        "long": start(program, "long", count),
        "silent": start(program, "silent", f"echo run >> {tmp_path}/runs; sleep {1 + seconds / 2}"),
        "failing": start(program, "failing", f"echo run >> {tmp_path}/runs; sleep {1 + seconds / 2}; exit 3"),
    }
    runs = tmp_path / "runs"
    await asyncio.to_thread(wait_until, lambda: runs.exists() and len(runs.read_text().split()) == 3, "three commands")
    async with Redis(unix_socket_path=str(refusing.socket_path)) as admin, state(admin, refusing):
        await asyncio.sleep(seconds)
    ended = {job_id: await asyncio.to_thread(running.end) for job_id, running in jobs.items()}
    assert {job_id: one.code for job_id, one in ended.items()} == {"long": 0, "silent": 0, "failing": 3}
    for one in ended.values():
        for word in ("lost", "someone else", "could not", "not stored", "Traceback"):
            assert word not in one.err
    logs = {job_id: (await asyncio.to_thread(program, "tail", job_id)).text for job_id in jobs}
    assert logs == {"long": printed(long), "silent": "", "failing": f"[{Outcome(exit_code=3)}]\n"}
    assert ended["long"].text == logs["long"]
    assert runs.read_text() == "run\n" * 3
    assert list((tmp_path / "temporary").glob("*.log")) == []
    async with program.repository() as repository:
        found = {job.id: (str(job.status), job.exit_code) for job in await repository.list_jobs()}
        assert found == {"long": ("completed", 0), "silent": ("completed", 0), "failing": ("completed", 3)}
        assert await repository.verify() == []
