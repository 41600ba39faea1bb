"""Handlers that do what they shouldn't, machines that can't run jobs, and who pays for it: never the next job."""

import asyncio
import logging
import signal
import sys
from collections.abc import Callable

import pytest

from ci_common.models import Job
from ci_eventstore.connection.nodes import Nodes
from ci_eventstore.controllers import ClaimedJob, Controller, ControllerSettings, handlers, machine
from ci_eventstore.errors import ConfigurationError, MachineError
from ci_eventstore.queues import lease_keeper
from ci_eventstore.queues.lease_keeper import renew as renew_leases
from ci_eventstore.repository import RedisJobRepository
from ci_eventstore.writer.log_writer import WriterSettings
from tests import claims
from tests.integration.store.test_controller import log_of, run_until, submit
from tests.waiting import wait_until

SETTINGS = ControllerSettings(lease_seconds=1.0, poll_seconds=0.05, grace_seconds=0.1, concurrency=4)
Body = Callable[[], object]


async def await_cancelled() -> None:
    """Wait for a task that somebody has cancelled."""
    task = asyncio.create_task(asyncio.sleep(3600))
    asyncio.get_running_loop().call_soon(task.cancel)
    await task


async def leave() -> None:
    sys.exit(3)


async def interrupt_keyboard() -> None:
    raise KeyboardInterrupt


async def raise_something_else() -> None:
    raise BaseExceptionGroup("several", [SystemExit(1), ValueError("x")])


@pytest.mark.parametrize(
    ("fail", "name"),
    [
        (await_cancelled, "CancelledError"),
        (leave, "SystemExit"),
        (interrupt_keyboard, "KeyboardInterrupt"),
        (raise_something_else, "BaseExceptionGroup"),
    ],
)
async def test_what_ends_a_program_ends_a_job(
    repository: RedisJobRepository, fail: Callable[[], object], name: str
) -> None:
    """It fails with its traceback, is run once, and the controller runs the next one."""
    runs: list[str] = []

    async def handler(job: ClaimedJob) -> None:
        runs.append(job.job.id)
        if job.job.id == "bad":
            await fail()  # type: ignore[misc]

    await submit(repository, "bad", "next")
    await run_until(Controller(repository, settings=SETTINGS), handler, repository, "bad", "next")
    assert sorted(runs) == ["bad", "next"]
    status, success, log = await log_of(repository, "bad")
    assert (status, success) == ("failed", False)
    assert "Traceback (most recent call last)" in log or "Exception Group Traceback" in log
    assert log.endswith(f"[the handler raised {name}]\n")
    assert (await log_of(repository, "next"))[0] == "completed"


async def test_a_real_ctrl_c_isnt_the_jobs(repository: RedisJobRepository, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where Python's own handler raises it, it goes on to the program; the job waits for another controller."""
    await submit(repository, "j")
    [claimed] = await claims.claim(repository, "default", "it", 1, 30.0)
    monkeypatch.setattr(signal, "getsignal", lambda number: signal.default_int_handler)
    with pytest.raises(KeyboardInterrupt):
        async with ClaimedJob(repository, claimed):
            raise KeyboardInterrupt
    assert (await log_of(repository, "j"))[0] == "queued"


async def test_a_handler_that_doesnt_end_is_given_up(
    repository: RedisJobRepository, server: Nodes, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Its lease runs out instead of being renewed, so that another controller gets the job; `run` returns."""
    monkeypatch.setattr(handlers, "HANDLER_SECONDS", 0.3)
    await submit(repository, "j")
    began, free = asyncio.Event(), asyncio.Event()

    async def stubborn(job: ClaimedJob) -> None:
        began.set()
        while not free.is_set():
            try:
                await free.wait()
            except asyncio.CancelledError:
                continue

    async def next_one(job: ClaimedJob) -> None:
        assert job.lost_by == "first"

    async with asyncio.timeout(20), Controller(repository, name="first", settings=SETTINGS) as controller:
        running = asyncio.create_task(controller.run(stubborn))
        await began.wait()
        controller.stop()
        await running
    assert "the handler of job j doesn't end" in caplog.text
    await run_until(Controller(repository, settings=SETTINGS), next_one, repository, "j")
    assert (await log_of(repository, "j"))[0] == "completed"
    free.set()


async def test_a_cancel_that_the_handler_swallows_ends_the_job_all_the_same(
    repository: RedisJobRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its lease runs out when the handler has had its time; the controller runs other jobs."""
    monkeypatch.setattr(handlers, "HANDLER_SECONDS", 0.3)
    await submit(repository, "j")
    began, free = asyncio.Event(), asyncio.Event()

    async def stubborn(job: ClaimedJob) -> None:
        if job.job.id != "j":
            return
        began.set()
        while not free.is_set():
            try:
                await free.wait()
            except asyncio.CancelledError:
                continue

    async with asyncio.timeout(20), Controller(repository, settings=SETTINGS) as controller:
        running = asyncio.create_task(controller.run(stubborn))
        await began.wait()
        await repository.cancel_job("j", "as planned")
        await submit(repository, "next")
        for job_id, status in (("j", "cancelled"), ("next", "completed")):
            while (await log_of(repository, job_id))[0] != status:  # noqa: ASYNC110 - it is the server's
                await asyncio.sleep(0.05)
        free.set()
        controller.stop()
        await running
    assert await log_of(repository, "j") == ("cancelled", False, "[cancelled: as planned]\n")


async def test_a_machine_that_cant_run_jobs_gives_them_to_others(
    repository: RedisJobRepository, caplog: pytest.LogCaptureFixture
) -> None:
    """It takes one in a while, says once why, and the jobs don't pay: they are run by the healthy one, once."""
    caplog.set_level(logging.WARNING)
    names = [f"j{number}" for number in range(12)]
    tried: list[str] = []

    async def sick(job: ClaimedJob) -> None:
        tried.append(job.job.id)
        raise MachineError("no space left on device")

    async def well(job: ClaimedJob) -> None:
        await job.write("done\n")

    async with Controller(repository, name="sick", settings=SETTINGS) as first:
        failing = asyncio.create_task(first.run(sick))
        await submit(repository, *names)
        await wait_until(lambda: bool(tried))
        await run_until(Controller(repository, name="well", settings=SETTINGS), well, repository, *names)
        first.stop()
        await failing
    assert len(tried) < len(names)
    for name in names:
        status, success, log = await log_of(repository, name)
        assert (status, success) == ("completed", True)
        assert log.count("[handed back: controller sick can't run it, no space left on device]\n") == tried.count(name)
        assert log.endswith("[begun again: it was given back]\ndone\n" if name in tried else "done\n")
        state = await repository.engine.jobs.state(name)
        assert state is not None
        assert (state.attempts, state.hand_backs or 0) == (1, tried.count(name))
    assert caplog.text.count("this machine can't run jobs: no space left on device") == 1


async def test_a_job_that_no_machine_can_run_fails(
    repository: RedisJobRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be the one that fills the disks: a third controller that can't run it ends it, with the reason."""
    monkeypatch.setattr(machine, "FIRST_PAUSE_SECONDS", 60.0)
    await submit(repository, "j")

    async def full(job: ClaimedJob) -> None:
        raise MachineError("no space left on device")

    for name in ("a", "b"):
        async with Controller(repository, name=name, settings=SETTINGS) as controller:
            running = asyncio.create_task(controller.run(full))
            async with asyncio.timeout(20):
                while (await log_of(repository, "j"))[2].count(f"controller {name} ") == 0:  # noqa: ASYNC110
                    await asyncio.sleep(0.02)
            controller.stop()
            await running
    await run_until(Controller(repository, name="c", settings=SETTINGS), full, repository, "j")
    status, success, log = await log_of(repository, "j")
    assert (status, success) == ("failed", False)
    reason = "given up: 3 times its controller couldn't run it, the last time no space left on device"
    assert log.endswith(f"[{reason}]\n")


@pytest.mark.slow
async def test_restarts_cost_no_attempts(repository: RedisJobRepository) -> None:
    """40 jobs through 6 restarts of a controller of 64: none fails, none runs twice at once, all are run."""
    settings = ControllerSettings(concurrency=64, poll_seconds=0.05, grace_seconds=0.02, max_attempts=3)
    names = [f"j{number:02}" for number in range(40)]
    await submit(repository, *names)
    alive: set[str] = set()
    is_last = False

    async def handler(job: ClaimedJob) -> None:
        assert job.job.id not in alive
        alive.add(job.job.id)
        try:
            await asyncio.sleep(0 if is_last else 3600)
        finally:
            alive.discard(job.job.id)

    for _ in range(6):
        async with Controller(repository, settings=settings) as controller:
            running = asyncio.create_task(controller.run(handler))
            await wait_until(lambda: len(alive) >= 20)
            controller.stop()
            await running
        assert not alive
    is_last = True
    await run_until(Controller(repository, settings=settings), handler, repository, *names)
    assert {(await log_of(repository, name))[0] for name in names} == {"completed"}


async def test_the_lease_keeper_goes_on_after_any_error(
    repository: RedisJobRepository, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What nobody thought of is logged, and the leases are renewed again."""
    failures = [0]

    async def fail_at_times(*args: object, **more: object) -> object:
        failures[0] += 1
        if failures[0] in (1, 2):
            raise AssertionError("nobody thought of this")
        return await renew_leases(*args, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(lease_keeper, "renew", fail_at_times)
    await submit(repository, "j")

    async def handler(job: ClaimedJob) -> None:
        await wait_until(lambda: failures[0] > 5)
        assert not job.lost.is_set()

    await run_until(Controller(repository, settings=SETTINGS), handler, repository, "j")
    assert (await log_of(repository, "j"))[0] == "completed"
    assert "leases couldn't be renewed" in caplog.text


async def test_if_the_lease_keeper_cant_go_on_its_jobs_are_lost(
    repository: RedisJobRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At once: their handlers are stopped before anybody else has the jobs."""

    async def die(self: object) -> None:
        raise SystemExit

    monkeypatch.setattr(lease_keeper.LeaseKeeper, "_keep_over_one_server", die)
    await submit(repository, "j")
    lost: list[bool] = []

    async def handler(job: ClaimedJob) -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            lost.append(job.lost.is_set())
            controller.stop()

    async with asyncio.timeout(20), Controller(repository, settings=SETTINGS) as controller:
        await controller.run(handler)
    assert lost == [True]


@pytest.mark.parametrize(
    "settings",
    [
        {"poll_seconds": 0},
        {"poll_seconds": -1},
        {"grace_seconds": -1},
        {"grace_seconds": float("nan")},
        {"lease_seconds": float("inf")},
        {"lease_seconds": 0.5},
        {"concurrency": 0},
        {"max_attempts": 0},
    ],
)
def test_settings_that_cant_be_are_refused(settings: dict[str, float]) -> None:
    """A poll of 0 would ask the server without a pause."""
    with pytest.raises(ConfigurationError):
        ControllerSettings(**settings)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "settings", [{"pause_seconds": -1}, {"patience_seconds": float("nan")}, {"spool_characters": 0}]
)
def test_a_writers_settings_that_cant_be_are_refused(settings: dict[str, float]) -> None:
    """Before anything is written."""
    with pytest.raises(ConfigurationError):
        WriterSettings(**settings)  # type: ignore[arg-type]


async def test_a_controller_cant_be_named_as_who_ends_lost_jobs(repository: RedisJobRepository) -> None:
    """`queues` leaves that name out."""
    with pytest.raises(ConfigurationError, match="cancel"):
        Controller(repository, name="cancel")


async def test_a_job_that_is_begun_again_says_why(repository: RedisJobRepository, server: Nodes) -> None:
    """A loss is an attempt, a give-back isn't, and each line names what has happened."""
    await repository.create_job(Job(id="j", status="queued"))
    [claimed] = await claims.claim(repository, "default", "a", 1, 1.0)
    await server.read("HINCRBY", "{ci:0}:clock", "now", 10_000)
    [claimed] = await claims.claim(repository, "default", "b", 1, 30.0)
    async with ClaimedJob(repository, claimed) as job:
        await job.release()
    [claimed] = await claims.claim(repository, "default", "c", 1, 30.0)
    async with ClaimedJob(repository, claimed) as job:
        assert job.attempts == 2
    lines = "[attempt 2: controller a was lost]\n[begun again: it was given back]\n"
    assert await log_of(repository, "j") == ("completed", True, lines)
