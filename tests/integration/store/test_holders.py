"""Jobs that end with the process that has made them: nobody else runs them, and a look ends those of the dead."""

import asyncio
from collections.abc import Callable

import pytest

from ci_common.errors import JobAlreadyExistsError, JobClaimedError, LeaseLostError
from ci_common.models import Job, JobEvent
from ci_eventstore.controllers import ClaimedJob, Controller
from ci_eventstore.keys import NO_QUEUE, queue_everywhere
from ci_eventstore.queues.claimed import CANCELLER, Claim
from ci_eventstore.queues.holders import hold as begin_lease
from ci_eventstore.queues.lease_keeper import LeaseKeeper
from ci_eventstore.repository import RedisJobRepository
from tests import claims

LEASE = 1.0
LOST = "[ci-eventstore run was lost (run-1): what its command printed last may be missing]\n"


async def hold(repository: RedisJobRepository, job_id: str = "j") -> Claim:
    """Create a held job."""
    return await repository.engine.holders.create(Job(id=job_id, status="running"), "run-1", LEASE)


async def look_until(repository: RedisJobRepository, predicate: Callable[[str], bool], job_id: str = "j") -> None:
    """Look each quarter of a lease until a job's status is as it should be."""
    async with asyncio.timeout(20 * LEASE):
        while True:
            await repository.engine.holders.end_lost()
            job = await repository.get_job_summary(job_id)
            assert job is not None
            if predicate(str(job.status)):
                return
            await asyncio.sleep(LEASE / 4)


async def log_of(repository: RedisJobRepository, job_id: str = "j") -> str:
    """Return a job's log."""
    return "".join(event.data or "" for event in await repository.get_events_since(job_id, 0))


async def test_a_held_job_is_its_holders(repository: RedisJobRepository) -> None:
    """Nobody else writes to it; the queue that it is said to be in doesn't count it, and no controller gets it."""
    claim = await hold(repository)
    with pytest.raises(JobClaimedError):
        await repository.add_event("j", JobEvent("log", "x"))
    with pytest.raises(JobClaimedError):
        await repository.update_job_status("j", "failed")
    with pytest.raises(JobAlreadyExistsError):
        await hold(repository)
    assert (await claims.overview(repository, "default")).running == 0
    assert await claims.claim(repository, "default", "c", 10, LEASE) == []
    assert await repository.verify() == []
    await repository.writer("j", claim).append([JobEvent("log", "x\n"), JobEvent("complete", success=True)])
    assert await repository.engine.holders.end_lost() is None
    assert await repository.verify() == []


async def test_the_job_of_a_dead_holder_fails(repository: RedisJobRepository) -> None:
    """Its log says why, on a line of its own; should the holder come back, it is refused."""
    claim = await hold(repository)
    await repository.writer("j", claim).append([JobEvent("log", "unfinished")])
    assert await repository.engine.holders.end_lost() == LEASE
    await look_until(repository, lambda status: status == "failed")
    assert await log_of(repository) == f"unfinished\n{LOST}"
    with pytest.raises(LeaseLostError):
        await repository.writer("j", claim).append([JobEvent("log", "x")])
    assert await claims.claim(repository, "default", "c", 10, LEASE) == []
    assert await repository.verify() == []


async def test_a_controller_looks_for_them_as_it_runs(repository: RedisJobRepository) -> None:
    """It needs no jobs of its own for that, and nobody who calls it has to think of it."""
    await hold(repository)

    async def handle(job: ClaimedJob) -> None:
        raise AssertionError("there is no job to run")

    async with Controller(repository) as controller:
        running = asyncio.create_task(controller.run(handle))
        async with asyncio.timeout(20 * LEASE):
            while await repository.page_jobs(status="running"):  # noqa: ASYNC110 - the store has no event to wait for
                await asyncio.sleep(LEASE / 4)
        controller.stop()
        await running
    assert await log_of(repository) == LOST
    assert await repository.verify() == []


async def test_many_look_and_one_ends_it(repository: RedisJobRepository) -> None:
    """The line comes once."""
    await hold(repository)
    looking = [look_until(repository, lambda status: status == "failed") for _ in range(5)]
    await asyncio.gather(*looking)
    assert await log_of(repository) == LOST
    assert await repository.verify() == []


async def test_a_renewed_lease_does_not_run_out(repository: RedisJobRepository) -> None:
    """However often anybody looks."""
    claim = await hold(repository)
    keeper: LeaseKeeper = repository.keep_leases(LEASE, lambda claim, answer: None)
    keeper.start()
    keeper.hold(NO_QUEUE, claim)
    for _ in range(12):
        await repository.engine.holders.end_lost()
        await asyncio.sleep(LEASE / 4)
    assert [job.status for job in await repository.list_jobs()] == ["running"]
    await keeper.stop()


async def test_a_cancel_is_a_request(repository: RedisJobRepository) -> None:
    """The holder ends the job; should it be dead, whoever looks does."""
    await hold(repository)
    await repository.cancel_job("j", "enough")
    job = await repository.get_job_summary("j")
    assert job is not None
    assert job.status == "running"
    await look_until(repository, lambda status: status == "cancelled")
    assert await log_of(repository) == "[cancelled: enough]\n"
    assert await repository.verify() == []


async def test_who_dies_while_ending_it_leaves_that_to_others(repository: RedisJobRepository) -> None:
    """The job then ends when that one's lease has run out."""
    await hold(repository)
    holders = repository.engine.holders
    claimed = None
    async with asyncio.timeout(20 * LEASE):
        while claimed is None:
            await asyncio.sleep(LEASE / 4)
            [keys] = queue_everywhere(repository.engine.keys, NO_QUEUE)
            await begin_lease(repository.engine.nodes, keys, "j", 1.0)
            claimed = await claims.claim_expired(repository, "j", NO_QUEUE, CANCELLER, LEASE)
    await look_until(repository, lambda status: status == "failed")
    assert "ci-eventstore run was lost: what" in await log_of(repository)
    assert await holders.end_lost() is None


async def test_a_lease_without_a_job_is_removed(repository: RedisJobRepository) -> None:
    """As one that died between both leaves it, and one that stands for another's job; that one is left alone."""
    [keys] = queue_everywhere(repository.engine.keys, NO_QUEUE)
    await repository.create_job(Job(id="other", status="queued"))
    [other] = await claims.claim(repository, "default", "c", 1, 60.0)
    for job_id in ("never", "other"):
        await begin_lease(repository.engine.nodes, keys, job_id, 1.0)
    async with asyncio.timeout(20 * LEASE):
        while await repository.engine.holders.end_lost() is not None:  # noqa: ASYNC110 - to look is what ends it
            await asyncio.sleep(LEASE / 4)
    await repository.writer("other", other.claim).complete(True, other.job.created_at)
    assert await repository.verify() == []


async def test_leases_are_made_again_by_rebuild(repository: RedisJobRepository) -> None:
    """A lost set of leases is a difference; afterwards the job of a dead holder ends as before."""
    await hold(repository)
    [keys] = queue_everywhere(repository.engine.keys, NO_QUEUE)
    await repository.engine.nodes.read("DEL", keys.leases)
    assert [difference.place for difference in await repository.verify()] == ["queue lease"]
    await repository.rebuild()
    assert await repository.verify() == []
    assert await repository.engine.holders.end_lost() is not None


async def test_who_may_only_read_is_told(repository: RedisJobRepository) -> None:
    """That a holder gives no sign of life can be seen without a look, and changes nothing."""
    await hold(repository)
    lost_jobs = repository.engine.lost_jobs
    assert await lost_jobs.silence("j") is None
    async with asyncio.timeout(20 * LEASE):
        while (found := await lost_jobs.silence("j")) is None:  # noqa: ASYNC110 - time is what brings it about
            await asyncio.sleep(LEASE / 4)
    assert found[0] == "run-1"
    job = await repository.get_job_summary("j")
    assert job is not None
    assert job.status == "running"
