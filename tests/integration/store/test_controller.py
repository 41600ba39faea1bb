"""`Controller`: jobs are claimed, run and ended, whatever happens to the handler, the controller or the lease."""

import asyncio
import time
from collections.abc import Callable
from contextlib import AsyncExitStack

import pytest

from ci_common.errors import LeaseLostError
from ci_common.models import Job
from ci_eventstore.connection.nodes import Nodes
from ci_eventstore.controllers import ClaimedJob, Controller, ControllerSettings
from ci_eventstore.repository import RedisJobRepository
from tests import claims
from tests.servers import RealServer
from tests.waiting import wait_until

QUICK = ControllerSettings(lease_seconds=1.0, poll_seconds=0.2, grace_seconds=0.2, concurrency=4, max_attempts=3)


async def submit(repository: RedisJobRepository, *job_ids: str) -> None:
    for job_id in job_ids:
        await repository.create_job(Job(id=job_id, status="queued"))


async def run_until(
    controller: Controller, handler: Callable[[ClaimedJob], object], repository: RedisJobRepository, *ended: str
) -> None:
    """Run a controller until jobs have ended."""

    async def watch() -> None:
        while True:
            jobs = [await repository.get_job_summary(job_id) for job_id in ended]
            if all(job is not None and job.end_time is not None for job in jobs):
                controller.stop()
                return
            await asyncio.sleep(0.02)

    async with controller, asyncio.timeout(30):
        watcher = asyncio.create_task(watch())
        await controller.run(handler)  # type: ignore[arg-type]
        await watcher


async def log_of(repository: RedisJobRepository, job_id: str) -> tuple[str, bool | None, str]:
    job = await repository.get_job(job_id)
    assert job is not None
    return str(job.status), job.success, "".join(event.data or "" for event in job.events if event.type == "log")


async def test_jobs_are_run_to_their_ends(repository: RedisJobRepository) -> None:
    """With what the handler returns as their result, and what it writes as their log."""
    await submit(repository, "good", "bad")

    async def handler(job: ClaimedJob) -> bool:
        await job.write(f"running {job.job.id}\n")
        return job.job.id == "good"

    await run_until(Controller(repository, settings=QUICK), handler, repository, "good", "bad")
    assert await log_of(repository, "good") == ("completed", True, "running good\n")
    assert await log_of(repository, "bad") == ("completed", False, "running bad\n")


async def test_an_exception_is_in_the_log_without_secrets(repository: RedisJobRepository) -> None:
    """The job fails; the traceback says where, and masks what must not be told."""
    await submit(repository, "j")

    async def handler(job: ClaimedJob) -> None:
        await job.write("begin\n")
        raise ValueError("the password is hunter2!")

    await run_until(Controller(repository, settings=QUICK, secrets=["hunter2!"]), handler, repository, "j")
    status, success, log = await log_of(repository, "j")
    assert (status, success) == ("failed", False)
    assert log.startswith("begin\nTraceback (most recent call last):\n")
    assert "in handler\n" in log
    assert log.endswith("ValueError: the password is ***\n[the handler raised ValueError]\n")
    assert "hunter2" not in log


async def test_jobs_can_be_taken_one_by_one(repository: RedisJobRepository) -> None:
    """Without a handler: an async iterator, and `async with` for each job."""
    await submit(repository, "1", "2", "3")
    async with Controller(repository, settings=QUICK) as controller:
        async for job in controller.claims():
            async with job:
                await job.complete(success=job.job.id != "2")
            if job.job.id == "3":
                controller.stop()
    assert [(await log_of(repository, job_id))[1] for job_id in "123"] == [True, False, True]


async def test_no_more_than_so_many_at_a_time(repository: RedisJobRepository) -> None:
    """Of many jobs, as many run at once as may, and all are run."""
    names = [f"j{number}" for number in range(40)]
    await submit(repository, *names)
    running, most = 0, 0

    async def handler(job: ClaimedJob) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.005)
        running -= 1

    await run_until(Controller(repository, settings=QUICK), handler, repository, *names)
    assert most == 4


async def test_a_stopped_controller_gives_its_jobs_back(repository: RedisJobRepository) -> None:
    """After a time of grace; they can be claimed at once, and the next attempt says so in the log."""
    await submit(repository, "long")
    started = asyncio.Event()

    async def endless(job: ClaimedJob) -> None:
        await job.write("working\n")
        started.set()
        await asyncio.sleep(3600)

    async with Controller(repository, settings=QUICK) as controller:
        running = asyncio.create_task(controller.run(endless))
        await started.wait()
        controller.stop()
        await running
    job = await repository.get_job_summary("long")
    assert job is not None
    assert job.status == "queued"

    async def short(job: ClaimedJob) -> None:
        await job.write("again\n")

    await run_until(Controller(repository, settings=QUICK), short, repository, "long")
    assert await log_of(repository, "long") == ("completed", True, "working\n[begun again: it was given back]\nagain\n")


async def test_a_cancelled_job_stops_its_handler(repository: RedisJobRepository) -> None:
    """At once, and ends with the line of who cancelled it."""
    await submit(repository, "j")
    started, seen = asyncio.Event(), []

    async def handler(job: ClaimedJob) -> None:
        started.set()
        try:
            await asyncio.sleep(3600)
        finally:
            seen.append(job.cancelled.is_set())

    settings = ControllerSettings(lease_seconds=60, poll_seconds=60)
    canceller = asyncio.create_task(started.wait())
    canceller.add_done_callback(lambda _: asyncio.ensure_future(repository.cancel_job("j", "because")))
    await run_until(Controller(repository, settings=settings), handler, repository, "j")
    assert await log_of(repository, "j") == ("cancelled", False, "[cancelled: because]\n")
    assert seen == [True]


async def test_a_new_job_is_started_at_once(repository: RedisJobRepository) -> None:
    """An idle controller is woken, however seldom it looks for itself."""
    async with Controller(repository, settings=ControllerSettings(poll_seconds=3600)) as controller:
        claims = controller.claims()
        for number in range(5):
            waiting = asyncio.ensure_future(anext(claims))
            await asyncio.sleep(0.1)
            await submit(repository, f"j{number}")
            async with asyncio.timeout(5), await waiting as job:
                assert job.job.id == f"j{number}"
        await claims.aclose()


async def test_a_lost_lease_stops_the_handler_and_its_writes(repository: RedisJobRepository, server: Nodes) -> None:
    """The next attempt begins with a line that names the lost controller; the log of the first stays."""
    await submit(repository, "j")
    attempts: list[str] = []

    async def handler(job: ClaimedJob) -> None:
        attempts.append(f"begun {job.attempts}")
        await job.write(f"attempt {job.attempts} works\n")
        if job.attempts == 1:
            await wait_until(lambda: True)
            await asyncio.sleep(0.2)
            await server.read("HINCRBY", "{ci:0}:clock", "now", 3_600_000)
            try:
                await asyncio.sleep(3600)
            finally:
                attempts.append(f"lost {job.lost.is_set()}")
                with pytest.raises(LeaseLostError):
                    await job.writer.update_status("queued")

    async with AsyncExitStack() as stack:
        # The keeper of this one is slower than the other controller.
        slow = ControllerSettings(lease_seconds=20, poll_seconds=60)
        first = await stack.enter_async_context(Controller(repository, name="first", settings=slow))
        running = asyncio.create_task(first.run(handler))
        await wait_until(lambda: attempts == ["begun 1"])
        await run_until(Controller(repository, name="second", settings=QUICK), handler, repository, "j")
        assert first._keeper is not None
        first._keeper.look()
        await wait_until(lambda: "lost True" in attempts)
        first.stop()
        await running
    assert await log_of(repository, "j") == (
        "completed",
        True,
        "attempt 1 works\n[attempt 2: controller first was lost]\nattempt 2 works\n",
    )


async def test_a_job_that_kills_its_controllers_is_given_up(repository: RedisJobRepository, server: Nodes) -> None:
    """After so many attempts it fails, and its log says why."""
    await submit(repository, "poison")
    for number in range(1, 4):
        [claimed] = await claims.claim(repository, "default", f"victim-{number}", 1, 1.0)
        assert claimed.attempts == number
        await server.read("HINCRBY", "{ci:0}:clock", "now", 10_000)

    async def handler(job: ClaimedJob) -> None:
        raise AssertionError("it must not be run again")

    await run_until(Controller(repository, settings=QUICK), handler, repository, "poison")
    reason = "[given up: it was tried 3 times, the last time by victim-3, which was lost]\n"
    assert await log_of(repository, "poison") == ("failed", False, reason)


async def test_a_cancel_ends_a_job_whose_controller_is_gone(repository: RedisJobRepository, server: Nodes) -> None:
    """At once if its lease has run out, though no controller is there."""
    await submit(repository, "j")
    await claims.claim(repository, "default", "gone", 1, 1.0)
    await server.read("HINCRBY", "{ci:0}:clock", "now", 10_000)
    await repository.cancel_job("j", "first")
    assert await log_of(repository, "j") == ("cancelled", False, "[cancelled: first]\n")


async def test_a_handler_that_blocks_the_event_loop_keeps_its_job(
    repository: RedisJobRepository, valkey: RealServer
) -> None:
    """Leases are renewed from another thread, so that blocking for several leases costs nothing."""
    await submit(repository, "j")

    async def handler(job: ClaimedJob) -> None:
        until = time.monotonic() + 3 * QUICK.lease_seconds
        while time.monotonic() < until:
            time.sleep(0.05)  # noqa: ASYNC251 - this is what is tested

    async def not_again(job: ClaimedJob) -> None:
        raise AssertionError("the job was lost")

    loop = asyncio.get_running_loop()

    async def rival() -> None:
        async with RedisJobRepository.from_url(valkey.url) as other, Controller(other, settings=QUICK) as it:
            loop.call_later(0, lambda: None)
            task = asyncio.create_task(it.run(not_again))
            await asyncio.sleep(3 * QUICK.lease_seconds)
            it.stop()
            await task

    async with Controller(repository, settings=QUICK) as controller:
        running = asyncio.create_task(controller.run(handler))
        await asyncio.to_thread(asyncio.run, rival())
        await wait_until(lambda: not controller.running)
        controller.stop()
        await running
    assert await log_of(repository, "j") == ("completed", True, "")


async def test_consumers_that_are_gone_are_removed(repository: RedisJobRepository, server: Nodes) -> None:
    """A controller that has signed off isn't in the group any more; one that holds a job stays."""
    await submit(repository, "a", "b")
    await claims.claim(repository, "default", "holder", 1, 30.0)

    async def handler(job: ClaimedJob) -> None:
        pass

    await run_until(Controller(repository, name="leaver", settings=QUICK), handler, repository, "b")
    consumers = await server.read("XINFO", "CONSUMERS", "{ci:0}:dispatch:default", "controllers")
    assert [consumer[1] for consumer in consumers] == [b"holder"]


@pytest.mark.parametrize("name", ["", "with blank", "{x}"])
async def test_a_name_that_cant_be_is_refused(repository: RedisJobRepository, name: str) -> None:
    """Before anything is claimed."""
    if name:
        with pytest.raises(Exception, match="controller"):
            Controller(repository, name=name)


async def test_a_job_that_is_lost_before_it_is_entered(repository: RedisJobRepository) -> None:
    """Its handler is stopped at its first pause."""
    await submit(repository, "j")
    [claimed] = await claims.claim(repository, "default", "it", 1, 30.0)
    job = ClaimedJob(repository, claimed)
    job.interrupt(lost=True)
    async with asyncio.timeout(5), job:
        await asyncio.sleep(3600)
    assert job.is_over
    assert (await log_of(repository, "j"))[0] == "running"


async def test_a_cancel_while_a_job_is_entered(repository: RedisJobRepository, server: Nodes) -> None:
    """The line of the attempt is written, and the job ends as cancelled."""
    await submit(repository, "j")
    await claims.claim(repository, "default", "first", 1, 1.0)
    await server.read("HINCRBY", "{ci:0}:clock", "now", 10_000)
    [claimed] = await claims.claim(repository, "default", "second", 1, 30.0)
    await repository.cancel_job("j", "now")
    job = ClaimedJob(repository, claimed)
    asyncio.get_running_loop().call_soon(lambda: job.interrupt(cancelled=True))
    async with asyncio.timeout(5), job:
        await asyncio.sleep(3600)
    expected = "[attempt 2: controller first was lost]\n[cancelled: now]\n"
    assert await log_of(repository, "j") == ("cancelled", False, expected)
