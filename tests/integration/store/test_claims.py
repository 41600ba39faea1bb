"""Queues and claims: who gets which job, who may write to it, and what becomes of it when its controller is gone."""

import asyncio
from collections.abc import Sequence

import pytest

from ci_common.errors import JobClaimedError, LeaseLostError
from ci_common.models import Job, JobEvent, utc_now
from ci_eventstore.connection.nodes import Nodes
from ci_eventstore.keys import Keys
from ci_eventstore.queues.claimed import Claim, Claimed
from ci_eventstore.repository import RedisJobRepository
from tests import claims
from tests.servers import RealServer

LEASE = 30.0


async def submit(repository: RedisJobRepository, *jobs: str) -> None:
    """Create jobs; the first letter of an id is the owner's."""
    for job_id in jobs:
        await repository.create_job(Job(id=job_id, status="queued", user_id=None if job_id[0] == "-" else job_id[0]))


async def take(repository: RedisJobRepository, count: int = 1, controller: str = "c1") -> list[Claimed]:
    return await claims.claim(repository, "default", controller, count, LEASE)


async def take_one(repository: RedisJobRepository, controller: str = "c1") -> Claimed:
    [claimed] = await take(repository, 1, controller)
    return claimed


async def pass_time(server: Nodes, seconds: float) -> None:
    """Let the partition's clock go on."""
    await server.read("HINCRBY", "{ci:0}:clock", "now", int(seconds * 1000))


def ids(claimed: Sequence[Claimed]) -> list[str]:
    return [one.job.id for one in claimed]


async def group_of(server: Nodes) -> dict[bytes, object]:
    [reply] = await server.read("XINFO", "GROUPS", "{ci:0}:dispatch:default")
    return dict(zip(reply[::2], reply[1::2], strict=True))


async def test_a_claim_is_a_running_job(repository: RedisJobRepository, server: Nodes) -> None:
    """It has left the queue, its ticket is pending in the consumer group, and its state says who has it."""
    await submit(repository, "a1")
    claimed = await take_one(repository)
    assert (claimed.job.status, claimed.attempts, claimed.claim.epoch, claimed.lost_by) == ("running", 1, 1, None)
    job = await repository.get_job("a1")
    assert job is not None
    assert (job.status, job.start_time) == ("running", claimed.job.start_time)
    assert [found.id for found in await repository.page_jobs(None, "queued", 9)] == []
    assert [found.id for found in await repository.page_jobs("a", "running", 9)] == ["a1"]
    group = await group_of(server)
    assert (group[b"name"], group[b"pending"], group[b"consumers"]) == (b"controllers", 1, 1)
    assert await take(repository) == []
    await repository.writer("a1", claimed.claim).complete(True, utc_now())
    assert (await group_of(server))[b"pending"] == 0
    assert await server.read("XLEN", "{ci:0}:dispatch:default") == 0
    assert await server.read("ZCARD", "{ci:0}:leases:default") == 0


@pytest.mark.parametrize("batch", [1, 2, 5, 300])
async def test_users_are_served_in_turn(repository: RedisJobRepository, batch: int) -> None:
    """One of each, then the next of each, whatever anyone has waiting; a user's own in the order of creation."""
    await submit(
        repository, *(f"a{n:03}" for n in range(40)), *(f"b{n}" for n in range(5)), *(f"-{n}" for n in range(3))
    )
    order: list[str] = []
    while claimed := await take(repository, batch):
        order += ids(claimed)
    expected = [
        f"{user}{n:03}" if user == "a" else f"{user}{n}" for n in range(5) for user in "ab-" if user != "-" or n < 3
    ]
    assert order == expected + [f"a{n:03}" for n in range(5, 40)]


async def test_controllers_that_claim_at_the_same_time_all_get_jobs(repository: RedisJobRepository) -> None:
    """Whoever finds that another one was faster looks again, as long as jobs wait."""
    for number in range(6):
        await repository.create_job(Job(id=f"j{number}", status="queued", user_id=f"u{number}"))
    claimed = await asyncio.gather(*(take(repository, 1, f"c{number}") for number in range(6)))
    assert sorted(map(len, claimed)) == [1] * 6


async def test_a_released_job_is_next_again(repository: RedisJobRepository) -> None:
    """It goes back to its place in its user's line; what was given back in order was no attempt."""
    await submit(repository, "a1", "a2", "a3", "b1")
    first, _ = await take(repository, 1), await take(repository, 1)
    await repository.writer("a1", first[0].claim).update_status("queued")
    order = [await take_one(repository, "c2") for _ in range(3)]
    assert [(one.job.id, one.attempts) for one in order] == [("a1", 1), ("a2", 1), ("a3", 1)]


async def test_cancelled_jobs_leave_the_queue(repository: RedisJobRepository, server: Nodes) -> None:
    """Their user's next one is served instead; with the last one, the ticket goes too."""
    await submit(repository, "a1", "a2", "b1")
    await repository.cancel_job("a1")
    await repository.cancel_job("b1")
    assert ids(await take(repository, 9)) == ["a2"]
    assert await server.read("HGETALL", "{ci:0}:tickets:default") == []


async def test_controllers_of_the_contract_take_jobs_too(repository: RedisJobRepository) -> None:
    """A job that was moved to running without a claim isn't claimed as well; put back, it is."""
    await submit(repository, "a1", "a2")
    await repository.update_job_status("a1", "running", container_id="x")
    assert ids(await take(repository, 9)) == ["a2"]
    await repository.update_job_status("a1", "queued")
    assert ids(await take(repository, 9)) == ["a1"]


WRITES = {
    "line": lambda writer: writer.append([JobEvent("log", "zombie\n")]),
    "lines": lambda writer: writer.append([JobEvent("log", "zombie\n")] * 2000),
    "status": lambda writer: writer.update_status("running", container_id="zombie"),
    "completion": lambda writer: writer.complete(True, utc_now()),
    "event": lambda writer: writer.append([JobEvent("complete", success=True)]),
    "release": lambda writer: writer.update_status("queued"),
    "failure": lambda writer: writer.update_status("failed"),
}


@pytest.mark.parametrize("has_ended", [False, True])
@pytest.mark.parametrize("which", ["old claim", "wrong token", "wrong epoch", "no claim"])
@pytest.mark.parametrize("what", WRITES)
async def test_a_zombie_writes_nothing(
    repository: RedisJobRepository, server: Nodes, what: str, which: str, has_ended: bool
) -> None:
    """Whoever hasn't the job's claim is refused, and nothing changes, though another controller has it or had it."""
    await submit(repository, "a1")
    old = await take_one(repository)
    await pass_time(server, LEASE + 1)
    new = await take_one(repository, "c2")
    assert (new.lost_by, new.attempts, new.claim.epoch) == ("c1", 2, 2)
    if has_ended:
        if which == "no claim":
            return
        await repository.writer("a1", new.claim).complete(True, utc_now())
    before = await repository.get_job("a1")
    zombies = {
        "old claim": old.claim,
        "wrong token": Claim("a1", new.claim.epoch, old.claim.token),
        "wrong epoch": Claim("a1", old.claim.epoch, new.claim.token),
    }
    zombie = repository.writer("a1", zombies.get(which))
    with pytest.raises(LeaseLostError if which in zombies else JobClaimedError):
        await WRITES[what](zombie)
    if which in zombies:
        assert await claims.renew(repository, "default", [zombies[which]], LEASE) == {zombies[which]: "lost"}
    assert await repository.get_job("a1") == before


async def test_a_renewed_lease_lasts(repository: RedisJobRepository, server: Nodes) -> None:
    """However long it takes, as long as its controller renews it."""
    await submit(repository, "a1")
    claimed = await take_one(repository)
    for _ in range(10):
        await pass_time(server, LEASE * 0.9)
        assert await take(repository, 9, "c2") == []
        assert await claims.renew(repository, "default", [claimed.claim], LEASE) == {claimed.claim: "held"}
    await pass_time(server, LEASE)
    assert ids(await take(repository, 9, "c2")) == ["a1"]


async def test_leases_dont_run_while_the_server_is_away(repository: RedisJobRepository, server: Nodes) -> None:
    """However far the server's clock jumps, ahead or back, a lease loses half of it at most."""
    await submit(repository, "a1")
    await take_one(repository)
    for jump in (3_600_000, -3_600_000):
        await server.read("HINCRBY", "{ci:0}:clock", "seen", jump)
        assert await take(repository, 9, "c2") == []


async def test_a_running_job_is_cancelled_by_its_controller(repository: RedisJobRepository) -> None:
    """It is asked to at its next renewal, and ends the job with the line of who asked."""
    await submit(repository, "a1")
    claimed = await take_one(repository)
    await repository.cancel_job("a1", "no longer needed")
    await repository.cancel_job("a1", "another reason")
    assert (await repository.get_job_summary("a1")).status == "running"  # type: ignore[union-attr]
    assert await claims.renew(repository, "default", [claimed.claim], LEASE) == {claimed.claim: "cancel"}
    await repository.writer("a1", claimed.claim).append([JobEvent("log", "stopping\n")])
    await repository.writer("a1", claimed.claim).cancel()
    job = await repository.get_job("a1")
    assert job is not None
    assert job.status == "cancelled"
    assert [event.data for event in job.events] == ["stopping\n", "[cancelled: no longer needed]\n", None]


async def test_a_cancelled_job_of_a_lost_controller_says_so_to_the_next(
    repository: RedisJobRepository, server: Nodes, valkey: RealServer
) -> None:
    """Whoever takes it over knows that it is only to be ended, where those who cancelled it are gone."""
    await submit(repository, "a1")
    await take_one(repository)
    async with RedisJobRepository.from_url(valkey.url) as other:
        await other.cancel_job("a1")
    await pass_time(server, LEASE + 1)
    assert (await take_one(repository, "c2")).is_cancelled


async def test_a_claim_survives_the_loss_of_the_group(repository: RedisJobRepository, server: Nodes) -> None:
    """A group that is gone is made again; tickets that were taken before do no harm."""
    await submit(repository, "a1", "a2", "b1")
    first = await take_one(repository)
    await server.read("XGROUP", "DESTROY", "{ci:0}:dispatch:default", "controllers")
    assert sorted(ids(await take(repository, 9))) == ["a2", "b1"]
    await repository.writer("a1", first.claim).complete(True, utc_now())


async def test_nothing_waits_for_ever_behind_a_queue_that_was_deleted(
    repository: RedisJobRepository, server: Nodes
) -> None:
    """Rebuild puts the jobs that the streams call queued back into their line, and claimed ones under a lease."""
    await submit(repository, "a1", "a2", "b1")
    held = await take_one(repository)
    for key in ("dispatch", "backlog", "tickets", "leases"):
        await server.read("DEL", f"{{ci:0}}:{key}:default")
    assert len(await repository.verify()) == 7
    await repository.rebuild()
    assert await repository.verify() == []
    assert sorted(ids(await take(repository, 9))) == ["a2", "b1"]
    await repository.writer("a1", held.claim).complete(True, utc_now())


@pytest.mark.parametrize("name", ["c" * 256, "ü" * 256])
async def test_the_longest_name_of_a_controller_may_claim(repository: RedisJobRepository, name: str) -> None:
    """However many bytes its characters have; the claim can be read from the stream again."""
    await submit(repository, "a1", "a2")
    assert ids(await take(repository, 2, name)) == ["a1", "a2"]
    assert await repository.verify() == []


async def test_no_partition_is_served_before_the_others(valkey: RealServer, server: Nodes) -> None:
    """Who claims one job at a time gets jobs of several, though each of them has more; and all jobs in the end."""
    async with RedisJobRepository.from_url(valkey.url, prefix="parts", partitions=4) as repository:
        await submit(repository, *(f"a{number}" for number in range(120)))
        firsts = [await take_one(repository) for _ in range(12)]
        tags = {Keys("parts", 4).job(one.job.id).tag for one in firsts}
        assert len(tags) > 1
        rest = await take(repository, 200)
        assert len({*ids(firsts), *ids(rest)}) == 120
        assert set((await claims.renew(repository, "default", [one.claim for one in rest], LEASE)).values()) == {"held"}
        for one in [*firsts, *rest]:
            await repository.writer(one.job.id, one.claim).complete(True, utc_now())
        assert await repository.verify() == []
        assert (await claims.overview(repository, "default")).running == 0
