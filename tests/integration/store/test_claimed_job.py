"""A job in the hands of a controller: what comes at the wrong moment, and who has it when its controller is gone."""

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from ci_common.errors import LeaseLostError
from ci_common.models import Job
from ci_eventstore.connection.nodes import Nodes
from ci_eventstore.controllers import ClaimedJob, Controller, ControllerSettings
from ci_eventstore.errors import LogWriterClosedError, OutcomeUnknownError
from ci_eventstore.events.append import APPEND, APPEND_LOGS
from ci_eventstore.queues import lease_keeper
from ci_eventstore.queues.completions import COMPLETE, Completions
from ci_eventstore.queues.lease_keeper import RENEW
from ci_eventstore.repository import RedisJobRepository
from tests import claims
from tests.examples import slow
from tests.fault_proxy import Fault, FaultProxy, always, at_script, is_call
from tests.integration.store.chaos_controller_program import Order
from tests.integration.store.fleet import open_fleet
from tests.integration.store.test_claim_faults import expire
from tests.servers import RealServer
from tests.waiting import wait_until

LEASE_MS = 1000
QUICK = ControllerSettings(lease_seconds=LEASE_MS / 1000, poll_seconds=0.2, grace_seconds=0.2)


async def clock(server: Nodes) -> int:
    """Return for how many milliseconds the partition was served."""
    return int(await server.read("HGET", "{ci:0}:clock", "now") or 0)


async def take(repository: RedisJobRepository, job_id: str = "j") -> ClaimedJob:
    """Submit a job and claim it."""
    await repository.create_job(Job(id=job_id, status="queued"))
    [claimed] = await claims.claim(repository, "default", "c1", 1, 30.0)
    return ClaimedJob(repository, claimed)


async def status_of(repository: RedisJobRepository) -> tuple[str, int]:
    """Return the job's status and the number of its attempts."""
    state = await repository.engine.jobs.state("j")
    assert state is not None
    return str(state.status), state.attempts


@pytest.mark.parametrize("why", ["lost", "cancelled"])
async def test_a_job_that_was_interrupted_before_it_began_isnt_run(repository: RedisJobRepository, why: str) -> None:
    """A controller that stood still between its claim and the handler begins nothing that isn't its own any more."""
    job = await take(repository)
    job.interrupt(lost=why == "lost", cancelled=why == "cancelled")
    reached: list[str] = []
    async with job:
        await asyncio.sleep(0.1)
        reached.append("more than the first wait")
    assert (job.is_over, reached) == (True, [])
    assert await status_of(repository) == (("cancelled" if why == "cancelled" else "running"), 1)


async def test_times_are_in_the_order_of_events(repository: RedisJobRepository) -> None:
    """The last line is stored when the job is completed, and no later than it ends."""
    async with await take(repository) as job:
        await job.log.write("first\n")
        await job.log.write("unfinished")
        await job.complete()
    events = await repository.get_events_since("j", 0)
    assert [event.type for event in events] == ["log", "log", "complete"]
    times = [event.timestamp for event in events if event.timestamp is not None]
    assert times == sorted(times)
    with pytest.raises(LogWriterClosedError):
        await job.write("late")


async def test_a_cancel_at_the_very_end_hits_nobody_else(repository: RedisJobRepository) -> None:
    """The job ends as cancelled, and the task that ran it goes on."""
    job = await take(repository)
    task = asyncio.current_task()
    assert task is not None
    async with job:
        job.interrupt(cancelled=True)
    assert await status_of(repository) == ("cancelled", 1)
    assert task.cancelling() == 0


async def test_a_cancel_from_outside_isnt_swallowed(repository: RedisJobRepository) -> None:
    """A task that is cancelled by whoever runs it, at the same time as its job, ends as cancelled."""
    job = await take(repository)

    async def run() -> None:
        async with job:
            job.interrupt(cancelled=True)
            outside.cancel()
            await asyncio.sleep(30)

    outside = asyncio.create_task(run())
    await asyncio.wait({outside})
    assert outside.cancelled()
    assert await status_of(repository) == ("cancelled", 1)


async def test_a_timeout_around_an_end_doesnt_leave_it_half_done(
    repository: RedisJobRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a handler, too: the job has ended when the timeout is told."""
    complete, runs = Completions.complete, list[str]()

    async def be_slow(self: Completions, *arguments: Any) -> bool:
        await asyncio.sleep(0.2)
        return await complete(self, *arguments)

    async def handler(job: ClaimedJob) -> None:
        runs.append(job.job.id)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await job.complete()
        controller.stop()

    monkeypatch.setattr(Completions, "complete", be_slow)
    await repository.create_job(Job(id="j", status="queued"))
    async with asyncio.timeout(20), Controller(repository, settings=QUICK) as controller:
        await controller.run(handler)
    assert (runs, await status_of(repository)) == (["j"], ("completed", 1))


async def test_a_cancel_while_the_job_is_being_completed_doesnt_leave_it(repository: RedisJobRepository) -> None:
    """An interrupt in the moment before the end leaves no job that nobody ends."""
    job = await take(repository)
    async with job:
        job.interrupt(cancelled=True)
        await job.complete()
    assert await status_of(repository) in (("cancelled", 1), ("completed", 1))


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("leases", [2, slow(8)])
@pytest.mark.parametrize("at", ["its end", *map(slow, ("its work", "its release"))])
async def test_a_healthy_controller_keeps_its_job_through_an_outage(own: RealServer, at: str, leases: int) -> None:
    """However many leases it takes: the job isn't lost, be it in the middle, about to end or about to be released."""
    runs: list[str | None] = []
    resumed = asyncio.Event()

    async def handler(job: ClaimedJob) -> None:
        runs.append(job.lost_by)
        if len(runs) == 1:
            own.suspend()
            if at == "its work":
                await resumed.wait()
            if at == "its release":
                await job.release()

    async with RedisJobRepository.from_url(own.url) as repository, Controller(repository, settings=QUICK) as controller:
        await repository.create_job(Job(id="j", status="queued"))
        running = asyncio.create_task(controller.run(handler))
        await wait_until(lambda: bool(runs))
        await asyncio.sleep(leases * QUICK.lease_seconds)
        own.resume()
        resumed.set()
        async with asyncio.timeout(20):
            while (await status_of(repository))[0] != "completed":  # noqa: ASYNC110 - it is the server's
                await asyncio.sleep(0.02)
        controller.stop()
        await running
        assert await repository.verify() == []
    assert runs == ([None, None] if at == "its release" else [None])


@pytest.mark.slow  # It takes over a second of a CPU.
@pytest.mark.usefixtures("impatient")
async def test_a_controller_that_cant_renew_stops_its_job(own: RealServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a time of patience, since others may have it then."""
    monkeypatch.setattr(lease_keeper, "PATIENCE_LEASES", 2)
    monkeypatch.setattr(lease_keeper, "PATIENCE_SECONDS", 1.0)
    stopped: list[bool] = []

    async def handler(job: ClaimedJob) -> None:
        own.suspend()
        try:
            await asyncio.sleep(3600)
        finally:
            stopped.append(job.lost.is_set())

    async with RedisJobRepository.from_url(own.url) as repository, Controller(repository, settings=QUICK) as controller:
        await repository.create_job(Job(id="j", status="queued"))
        running = asyncio.create_task(controller.run(handler))
        await wait_until(lambda: bool(stopped))
        own.resume()
        controller.stop()
        await running
    assert stopped == [True]


ENDS: dict[str, Callable[[ClaimedJob], Coroutine[Any, Any, None]]] = {
    "completed": lambda job: job.complete(),
    "failed": lambda job: job.fail("no disk"),
    "cancelled": lambda job: job.cancel(),
    "queued": lambda job: job.release(),
}


async def end_unheard(job: ClaimedJob, end: str, proxy: FaultProxy, fault: Fault, then: Callable[[], Any]) -> None:
    """End a job by calls that break; once the first was given up, do something, and let the next through."""
    given_up = asyncio.Event()
    job.storage._outage.failed = lambda *_: given_up.set()  # type: ignore[method-assign]
    breaks = always(fault)
    # The log is stored before the end, and would wait itself.
    proxy.plan = lambda command: None if is_call(command, APPEND_LOGS) else breaks(command)
    ending = asyncio.create_task(ENDS[end](job))
    await given_up.wait()
    await then()
    proxy.plan = always(None)
    await ending


@pytest.mark.slow  # Each takes a second.
@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("is_noticed", [False, True], ids=["", "and the lease keeper saw that the claim is gone"])
@pytest.mark.parametrize("end", ENDS)
async def test_an_end_that_took_effect_isnt_called_lost(
    own: RealServer, proxy: FaultProxy, end: str, is_noticed: bool
) -> None:
    """No answer came, and then the claim is gone: because of this end, as the store says. Nobody is told otherwise."""
    async with RedisJobRepository.from_url(own.url) as observer, RedisJobRepository.from_url(proxy.url) as repository:
        # The server knows the scripts by then.
        await ENDS[end](await take(repository, "before"))
        job = await take(repository)

        async def notice() -> None:
            if is_noticed:
                job.lost.set()

        await end_unheard(job, end, proxy, Fault.CUT_AFTER, notice)
        assert (await status_of(observer))[0] == end
        assert job.storage.unstored_end is None
        assert await observer.verify() == []


@pytest.mark.parametrize("end", ENDS)
async def test_an_end_without_an_answer_in_time_is_unknown(own: RealServer, proxy: FaultProxy, end: str) -> None:
    """It may have taken effect, as here; nobody is told that nothing was changed."""
    async with RedisJobRepository.from_url(own.url) as observer, RedisJobRepository.from_url(proxy.url) as repository:
        await ENDS[end](await take(repository, "before"))
        job = await take(repository)
        ends = (APPEND, COMPLETE)
        proxy.plan = lambda command: Fault.STALL if any(is_call(command, script) for script in ends) else None
        job.hurry(0.3)
        with pytest.raises(OutcomeUnknownError):
            await ENDS[end](job)
        proxy.plan = always(None)
        assert (await status_of(observer))[0] == end


@pytest.mark.slow  # Each takes a second.
@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("end", [end for end in ENDS if end != "queued"])
async def test_an_end_that_came_too_late_is_lost(own: RealServer, proxy: FaultProxy, end: str) -> None:
    """No call arrived, and another controller has ended the job otherwise since: it isn't this end that is there."""
    async with RedisJobRepository.from_url(own.url) as observer, RedisJobRepository.from_url(proxy.url) as repository:
        await ENDS[end](await take(repository, "before"))
        job = await take(repository)

        async def take_over() -> None:
            await expire(observer.engine.nodes, "j")
            [claimed] = await claims.claim(observer, "default", "c2", 1, 30.0)
            await ClaimedJob(observer, claimed).complete()

        with pytest.raises(LeaseLostError):
            await end_unheard(job, end, proxy, Fault.CUT_BEFORE, take_over)
        assert await status_of(observer) == ("completed", 2)


@pytest.mark.slow
async def test_a_connection_that_hangs_costs_no_lease(own: RealServer, proxy: FaultProxy) -> None:
    """The lease is renewed over another one, long before the first counts as dead."""
    async with RedisJobRepository.from_url(own.url) as other, RedisJobRepository.from_url(proxy.url) as repository:
        await repository.create_job(Job(id="j", status="queued"))

        async def handler(job: ClaimedJob) -> None:
            proxy.plan = at_script(RENEW, Fault.HALF_OPEN)
            try:
                await asyncio.sleep(4 * QUICK.lease_seconds)
                assert not job.lost.is_set()
            finally:
                controller.stop()
                rival.stop()

        async def not_again(job: ClaimedJob) -> None:
            raise AssertionError("the job was taken")

        async with Controller(repository, settings=QUICK) as controller, Controller(other, settings=QUICK) as rival:
            running = asyncio.create_task(controller.run(handler))
            await wait_until(lambda: bool(controller.running))
            await asyncio.gather(running, rival.run(not_again))
        assert proxy.faults == 1
        assert await status_of(other) == ("completed", 1)
        assert await other.verify() == []


@pytest.mark.parametrize("leases", [3, slow(10)])
async def test_a_job_of_many_leases_stays_with_its_controller(
    repository: RedisJobRepository, server: Nodes, leases: int
) -> None:
    """Another one looks for it all the time, and never gets it."""
    await repository.create_job(Job(id="j", status="queued"))

    async def handler(job: ClaimedJob) -> None:
        until = await clock(server) + leases * LEASE_MS
        try:
            while await clock(server) < until:  # noqa: ASYNC110 - it is the server's
                await asyncio.sleep(0.05)
        finally:
            first.stop()
            rival.stop()

    async def not_again(job: ClaimedJob) -> None:
        raise AssertionError("the job was taken")

    async with Controller(repository, settings=QUICK) as first, Controller(repository, settings=QUICK) as rival:
        running = asyncio.create_task(first.run(handler))
        await wait_until(lambda: bool(first.running))
        await asyncio.gather(running, rival.run(not_again))
    assert await status_of(repository) == ("completed", 1)


@pytest.mark.slow
async def test_a_job_is_taken_over_within_two_leases(
    valkey: RealServer, repository: RedisJobRepository, server: Nodes, tmp_path: Path
) -> None:
    """Counted by the partition's clock, from the kill of its controller to the beginning of its next attempt."""
    order = Order(valkey.url, "", "", 1, QUICK.lease_seconds, answer_seconds=10.0, pause_seconds=3600.0)
    taken_at: list[int] = []

    async def handler(job: ClaimedJob) -> None:
        taken_at.append(await clock(server))
        assert job.lost_by == "c1"
        successor.stop()

    async with open_fleet(1, order, tmp_path, valkey.url) as (controllers, _):
        await repository.create_job(Job(id="j", status="queued"))
        async with asyncio.timeout(30):
            while await status_of(repository) != ("running", 1):  # noqa: ASYNC110 - it is another process's
                await asyncio.sleep(0.02)
        async with Controller(repository, settings=QUICK) as successor:
            running = asyncio.create_task(successor.run(handler))
            await asyncio.sleep(2 * QUICK.lease_seconds)
            controllers.kill("c1")
            killed_at = await clock(server)
            await running
    assert await status_of(repository) == ("completed", 2)
    assert taken_at[0] - killed_at <= 2 * LEASE_MS
