"""Claims, renewals and ends where the network fails: their effect is there once, and nobody loses by it."""

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest

from ci_common.errors import LeaseLostError
from ci_common.models import Job, utc_now
from ci_eventstore.connection import connections
from ci_eventstore.connection.nodes import Nodes
from ci_eventstore.controllers import ClaimedJob, Controller, ControllerSettings
from ci_eventstore.events.append import APPEND, APPEND_LOGS
from ci_eventstore.queues.claim import CLAIM, PEEK
from ci_eventstore.queues.claimed import Claim, Claimed
from ci_eventstore.queues.lease_keeper import RENEW
from ci_eventstore.repository import RedisJobRepository
from tests import claims
from tests.deployments.homes import Home
from tests.fault_proxy import Fault, FaultProxy, at_script, is_call, load
from tests.waiting import wait_until

LEASE = 30.0
CLOCK, LEASES = "{ci:0}:clock", "{ci:0}:leases:default"
HOUR_MS = 3_600_000
#: All but LATE, which has tests of its own.
FAULTS = (Fault.CUT_BEFORE, Fault.CUT_AFTER, Fault.CUT_IN_REPLY, Fault.STALL, Fault.HALF_OPEN)


@pytest.fixture
async def proxy(valkey: Home, server: Nodes, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[FaultProxy]:
    """A proxy whose clients are impatient, before a server that knows the scripts."""
    monkeypatch.setitem(connections.PINNED, "socket_timeout", 0.2)
    await load(server, APPEND, APPEND_LOGS, CLAIM, PEEK, RENEW)
    async with valkey.proxy() as opened:
        yield opened


@pytest.fixture
async def remote(repository: RedisJobRepository, proxy: FaultProxy) -> AsyncIterator[RedisJobRepository]:
    """A repository that talks through the proxy to the server of `repository`."""
    async with RedisJobRepository.from_url(proxy.url) as opened:
        yield opened


async def submit(repository: RedisJobRepository, *jobs: str) -> None:
    for job_id in jobs:
        await repository.create_job(Job(id=job_id, status="queued", user_id=job_id[0]))


async def take(repository: RedisJobRepository, count: int = 1, controller: str = "c1") -> list[Claimed]:
    return await claims.claim(repository, "default", controller, count, LEASE)


async def expire(server: Nodes, job_id: str) -> None:
    """Let a job's lease run out."""
    assert await server.read("ZADD", LEASES, "XX", "CH", 0, job_id) == 1


def told(claimed: Sequence[Claimed]) -> list[tuple[str, int, int, str | None]]:
    return [(one.job.id, one.attempts, one.claim.epoch, one.lost_by) for one in claimed]


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_claim_whose_reply_is_lost_gives_the_same_jobs(
    repository: RedisJobRepository, remote: RedisJobRepository, proxy: FaultProxy, server: Nodes, fault: Fault
) -> None:
    """And costs no attempt, whether the jobs come from the queue or from a lost controller."""
    await submit(repository, "a1", "a2", "b1", "x1")
    assert told(await take(repository, 1, "gone")) == [("a1", 1, 1, None)]
    await expire(server, "a1")
    proxy.plan = at_script(CLAIM, fault)
    claimed = await take(remote, 3)
    assert proxy.faults == 1
    assert told(claimed) == [("a1", 2, 2, "gone"), ("b1", 1, 1, None), ("x1", 1, 1, None)]
    assert (await claims.overview(repository, "default")).running == 3
    assert await server.read("PTTL", "{ci:0}:claims:default") > 0
    for one in claimed:
        await remote.writer(one.job.id, one.claim).complete(True, utc_now())
    assert told(await take(remote, 3)) == [("a2", 1, 1, None)]


async def test_a_claim_that_comes_late_takes_nothing(
    repository: RedisJobRepository, remote: RedisJobRepository, proxy: FaultProxy
) -> None:
    """What was held in the network while its controller asked again, and then for more, gives nobody a job."""
    await submit(repository, "a1", "a2", "a3", "a4")
    proxy.plan = at_script(CLAIM, Fault.LATE)
    assert told(await take(remote)) == [("a1", 1, 1, None)]
    assert told(await take(remote)) == [("a2", 1, 1, None)]
    await proxy.delivered()
    assert (await claims.overview(repository, "default")).running == 2
    assert told(await take(repository, 2)) == [("a3", 1, 1, None), ("a4", 1, 1, None)]


async def test_a_claim_that_comes_late_doesnt_take_what_was_given_back(
    repository: RedisJobRepository, remote: RedisJobRepository, proxy: FaultProxy
) -> None:
    """Nobody waits for its answer any more, so the job would stand still for a lease, and lose an attempt."""
    await submit(repository, "a1", "a2")
    proxy.plan = at_script(CLAIM, Fault.LATE)
    [first] = await take(remote)
    assert told(await take(remote)) == [("a2", 1, 1, None)]
    await end(repository, first.claim, "release")
    await proxy.delivered()
    assert told(await take(repository)) == [("a1", 1, 2, None)]


async def test_cancels_of_lost_jobs_dont_hinder_each_other(
    repository: RedisJobRepository, remote: RedisJobRepository, proxy: FaultProxy, server: Nodes
) -> None:
    """One whose reply is lost while another one is made ends its job too."""
    await submit(repository, "a1", "b1")
    await take(repository, 2)
    await expire(server, "a1")
    await expire(server, "b1")
    proxy.plan = at_script(CLAIM, Fault.STALL)
    first = asyncio.create_task(remote.cancel_job("a1"))
    await wait_until(lambda: proxy.faults == 1)
    await asyncio.gather(first, repository.cancel_job("b1"))
    assert {job.status for job in await repository.list_jobs()} == {"cancelled"}


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_renewal_whose_reply_is_lost_renews(
    repository: RedisJobRepository, remote: RedisJobRepository, proxy: FaultProxy, server: Nodes, fault: Fault
) -> None:
    """It is answered as if nothing had happened."""
    await submit(repository, "a1")
    [claimed] = await take(remote)
    await server.read("HINCRBY", CLOCK, "now", 20_000)
    proxy.plan = at_script(RENEW, fault)
    assert await claims.renew(remote, "default", [claimed.claim], LEASE) == {claimed.claim: "held"}
    assert proxy.faults == 1
    await server.read("HINCRBY", CLOCK, "now", 20_000)
    assert await take(repository, 1, "c2") == []


@pytest.mark.parametrize("becomes", ["completed", "queued", "another's"])
async def test_a_renewal_that_comes_late_revives_nothing(
    repository: RedisJobRepository, remote: RedisJobRepository, proxy: FaultProxy, server: Nodes, becomes: str
) -> None:
    """A job that has ended, waits again or is another controller's has no lease by it, or no longer one."""
    await submit(repository, "a1")
    [claimed] = await take(remote)
    proxy.plan = at_script(RENEW, Fault.LATE)
    assert await claims.renew(remote, "default", [claimed.claim], LEASE) == {claimed.claim: "held"}
    if becomes == "completed":
        await repository.writer("a1", claimed.claim).complete(True, utc_now())
    elif becomes == "queued":
        await repository.writer("a1", claimed.claim).update_status("queued")
    else:
        await expire(server, "a1")
        assert told(await take(repository, 1, "c2")) == [("a1", 2, 2, "c1")]
    lease = await server.read("ZSCORE", LEASES, "a1")
    await server.read("HINCRBY", CLOCK, "now", 10_000)
    await proxy.delivered()
    assert await server.read("ZSCORE", LEASES, "a1") == lease


ENDS = {"complete": "completed", "fail": "failed", "cancel": "cancelled", "release": "queued"}


async def end(repository: RedisJobRepository, claim: Claim, how: str) -> None:
    """End a job under its claim."""
    writer = repository.writer(claim.job_id, claim)
    if how == "complete":
        await writer.complete(True, utc_now())
    elif how == "cancel":
        await writer.cancel()
    else:
        await writer.update_status(ENDS[how])


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("how", ENDS)
async def test_an_end_whose_reply_is_lost_is_there_once(
    repository: RedisJobRepository, remote: RedisJobRepository, proxy: FaultProxy, how: str, fault: Fault
) -> None:
    """The lease goes with it, and a released job is claimed again without having lost an attempt."""
    await submit(repository, "a1")
    [claimed] = await take(remote)
    proxy.plan = at_script(APPEND, fault)
    await end(remote, claimed.claim, how)
    assert proxy.faults == 1
    job = await repository.get_job("a1")
    assert job is not None
    assert (job.status, [event.type for event in job.events].count("complete")) == (ENDS[how], int(how != "release"))
    assert (await claims.overview(repository, "default")).running == 0
    assert told(await take(repository)) == ([("a1", 1, 2, None)] if how == "release" else [])


@pytest.mark.parametrize("how", ENDS)
async def test_an_end_that_comes_late_changes_nothing(
    repository: RedisJobRepository, remote: RedisJobRepository, proxy: FaultProxy, server: Nodes, how: str
) -> None:
    """What was held in the network until another controller had the job is refused there, and told to nobody."""
    await submit(repository, "a1")
    [claimed] = await take(remote)

    def lose(command: Sequence[bytes]) -> Fault | None:
        return hold(command) or cut(command)

    hold, cut = at_script(APPEND, Fault.LATE), at_script(APPEND, Fault.CUT_BEFORE)
    proxy.plan = lose
    await expire(server, "a1")
    [taken] = await take(repository, 1, "c2")
    before = await repository.get_job("a1")
    with pytest.raises(LeaseLostError):
        await end(remote, claimed.claim, how)
    proxy.release.set()
    assert await repository.get_job("a1") == before
    await end(repository, taken.claim, "complete")


@pytest.mark.parametrize("lease_seconds", [1.0, 600.0])
async def test_an_outage_ends_no_lease_whoever_comes_first_afterwards(
    repository: RedisJobRepository, server: Nodes, lease_seconds: float
) -> None:
    """A controller of long leases, and one of short ones, let the clock go on by half of the shortest lease."""
    await submit(repository, "a1")
    [claimed] = await take(repository)
    assert await claims.claim(repository, "default", "c2", 1, 2.0) == []
    await server.read("HINCRBY", CLOCK, "seen", -HOUR_MS)
    assert await claims.claim(repository, "default", "c2", 1, lease_seconds) == []
    await repository.writer("a1", claimed.claim).complete(True, utc_now())


async def test_a_cancel_after_an_outage_takes_no_job_from_its_controller(
    repository: RedisJobRepository, server: Nodes
) -> None:
    """The controller is asked to stop it, as always: the time for which the server was away isn't the controller's."""
    await submit(repository, "a1")
    [claimed] = await claims.claim(repository, "default", "c1", 1, 2.0)
    await server.read("HINCRBY", CLOCK, "seen", -HOUR_MS)
    await repository.cancel_job("a1")
    job = await repository.get_job_summary("a1")
    assert job is not None
    assert job.status == "running"
    assert await claims.renew(repository, "default", [claimed.claim], 2.0) == {claimed.claim: "cancel"}


async def test_jobs_behind_tickets_that_were_forgotten_are_served(
    repository: RedisJobRepository, server: Nodes
) -> None:
    """A new consumer group begins with tickets of jobs that run already: they stand in nobody's way."""
    await submit(repository, "a1", "b1", "c1", "d1")
    assert len(await take(repository, 3)) == 3
    await server.read("XGROUP", "DESTROY", "{ci:0}:dispatch:default", "controllers")
    assert told(await take(repository, 1, "c2")) == [("d1", 1, 1, None)]


async def test_a_queue_without_its_tickets_is_found_and_mended(repository: RedisJobRepository, server: Nodes) -> None:
    """A dispatch stream that is gone is told, and made again: at the latest by the user's next job."""
    await submit(repository, "a1", "b1")
    await server.read("DEL", "{ci:0}:dispatch:default")
    await submit(repository, "a2")
    assert told(await take(repository, 2)) == [("a1", 1, 1, None), ("a2", 1, 1, None)]
    assert [difference.place for difference in await repository.verify()] == ["queue ticket"]
    await server.read("DEL", "{ci:0}:dispatch:default")
    assert [difference.place for difference in await repository.verify()] == ["queue dispatch", "queue ticket"]
    await repository.rebuild()
    assert told(await take(repository, 2)) == [("b1", 1, 1, None)]


@pytest.mark.slow
async def test_jobs_of_an_answer_that_a_stopped_controller_does_not_wait_for(
    repository: RedisJobRepository, remote: RedisJobRepository, server: Nodes, proxy: FaultProxy
) -> None:
    """They wait for their leases, no longer; then another controller runs each of them, once."""
    settings = ControllerSettings(lease_seconds=1, concurrency=2)
    ran = list[tuple[str, int]]()

    async def never(job: ClaimedJob) -> None:
        raise AssertionError("its claim was never heard of")

    async def run(job: ClaimedJob) -> None:
        ran.append((job.job.id, job.attempts))
        if len(ran) == 2:
            other.stop()

    await submit(repository, "a", "b")
    proxy.plan = lambda command: Fault.STALL if is_call(command, CLAIM) else None
    async with Controller(remote, settings=settings) as stopped:
        running = asyncio.create_task(stopped.run(never))
        await wait_until(lambda: proxy.faults > 0)
        stopped.stop()
        async with asyncio.timeout(30):
            await running
    assert sorted(await server.read("ZRANGE", LEASES, 0, -1)) == [b"a", b"b"]
    async with asyncio.timeout(30), Controller(repository, settings=settings) as other:
        await other.run(run)
    assert sorted(ran) == [("a", 2), ("b", 2)]
