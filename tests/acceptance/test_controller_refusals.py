"""Controllers while their store refuses writes for a while, or is away: jobs run once, nothing is missing or untrue."""

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from ci_eventstore.events.records import Fact, FactType
from ci_eventstore.repository import RedisJobRepository
from tests.acceptance.command_line import CommandLine, Running
from tests.acceptance.test_controller import start_controller, submit
from tests.claim_history import ClaimHistory, Deed, Got, What, check_claims
from tests.history import Outcome
from tests.integration.store import refusals
from tests.records import records_of
from tests.servers import RealServer, wait_until

#: Longer than the controllers' leases.
REFUSAL_SECONDS = 3.0
OUTAGE_SECONDS = 40.0


@contextlib.asynccontextmanager
async def away(admin: Redis, server: RealServer) -> AsyncIterator[None]:
    await asyncio.to_thread(server.kill)
    try:
        yield
    finally:
        await asyncio.to_thread(server.start)


STATES: dict[str, tuple[Callable[[Redis, RealServer], Any], float]] = {
    "OOM": (refusals.out_of_memory, REFUSAL_SECONDS),
    "NOREPLICAS": (refusals.without_replicas, REFUSAL_SECONDS),
    "MISCONF": (refusals.unable_to_save, REFUSAL_SECONDS),
    "BUSY": (refusals.busy, REFUSAL_SECONDS),
    "READONLY": (refusals.demoted, REFUSAL_SECONDS),
    "LOADING": (refusals.loading, REFUSAL_SECONDS),
    "an outage": (away, OUTAGE_SECONDS),
}


def talker(folder: Path, seconds: float) -> str:
    """Return a job that notes that it runs, and prints ten lines a second."""
    lines = int(seconds * 10)
    return f"echo $CI_EVENTSTORE_JOB_ID >> {folder}/runs; for i in $(seq {lines}); do echo line $i; sleep 0.1; done"


def silent(folder: Path, seconds: float) -> str:
    """Return a job that prints nothing until its end."""
    return f"echo $CI_EVENTSTORE_JOB_ID >> {folder}/runs; sleep {seconds}; echo done"


def expected_log(seconds: float, *, is_silent: bool) -> str:
    return "done\n" if is_silent else "".join(f"line {number}\n" for number in range(1, int(seconds * 10) + 1))


@pytest.mark.slow
@pytest.mark.parametrize(("state", "seconds"), STATES.values(), ids=STATES)
async def test_jobs_run_once_through(
    own_cli: CommandLine, server: RealServer, tmp_path: Path, state: Callable[..., Any], seconds: float
) -> None:
    """Those that print, those that end meanwhile, those that wait; beside a controller that would take lost ones."""
    controllers = [start_controller(own_cli, name, "--lease", "2s", "--concurrency", "4") for name in ("left", "right")]
    # Some end in the middle of it, others after it.
    jobs = {
        f"j{number}": (seconds * part + 2.0, number % 2 == 1) for number, part in enumerate((0.3, 0.5, 1.3, 1.3, 0, 0))
    }
    for job_id, (lasts, is_silent) in jobs.items():
        submit(own_cli, job_id, "--", "sh", "-c", (silent if is_silent else talker)(tmp_path, lasts))
    runs = tmp_path / "runs"
    await asyncio.to_thread(wait_until, lambda: runs.exists() and len(runs.read_text().split()) == 6, "six jobs")
    async with Redis(unix_socket_path=str(server.socket_path)) as admin, state(admin, server):
        await asyncio.sleep(seconds)
    ends = await asyncio.gather(*(asyncio.to_thread(own_cli, "tail", job_id) for job_id in jobs))
    told = [await asyncio.to_thread(end, controller) for controller in controllers]
    for text in told:
        assert not [word for word in ("lost", "couldn't", "Traceback", "given") if word in text], text
        for line in ("leases can't be renewed", "no jobs can be claimed"):
            assert text.count(line) <= 1 + seconds // 60, text
    assert sorted(runs.read_text().split()) == sorted(jobs)
    assert [done.text for done in ends] == [expected_log(lasts, is_silent=quiet) for lasts, quiet in jobs.values()]
    assert await findings(own_cli, jobs) == []


def end(controller: Running) -> str:
    controller.send(signal.SIGTERM)
    ended = controller.end()
    assert ended.code == 0, ended.err
    return ended.err.replace("are taken; running ones have 30s; another signal gives them back now", "")


async def findings(cli: CommandLine, jobs: dict[str, tuple[float, bool]]) -> list[str]:
    """Return what contradicts that each job was claimed, printed and ended once, and by healthy controllers."""
    url, prefix = cli.environment["CI_EVENTSTORE_URL"], cli.environment["CI_EVENTSTORE_PREFIX"]
    async with RedisJobRepository.from_url(url, prefix=prefix) as repository:
        found = [str(difference) for difference in await repository.verify()]
        for job_id, (lasts, is_silent) in jobs.items():
            records = await records_of(repository.engine.reader.source, repository.engine.keys.job(job_id))
            facts = [record for _, record in records if isinstance(record, Fact)]
            owners = [fact.fields["controller"] for fact in facts if fact.type is FactType.CLAIMED]
            lines = expected_log(lasts, is_silent=is_silent).splitlines()
            written = [Deed(owners[0], 1, What.LINE, line, "log", Outcome.ACKNOWLEDGED) for line in lines]
            ended = Deed(owners[0], 1, What.SUCCEED, outcome=Outcome.ACKNOWLEDGED)
            history = ClaimHistory([Got(owners[0], 1, 1)], [*written, ended])
            found += [f"{job_id}: {one}" for one in check_claims(history, [record for _, record in records], lost=())]
    return found
