"""Claimed jobs that are completed together: each for itself, once, whatever happens to the others or to the network."""

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest

from ci_common.errors import LeaseLostError
from ci_common.models import Job, JobEvent, Outcome, utc_now
from ci_eventstore.connection import connections
from ci_eventstore.connection.nodes import Nodes
from ci_eventstore.controllers import ClaimedJob
from ci_eventstore.events.log_index import INDEX_EVENTS
from ci_eventstore.queues.claimed import Claimed
from ci_eventstore.queues.completions import COMPLETE
from ci_eventstore.repository import RedisJobRepository
from tests import claims
from tests.deployments.homes import Home
from tests.fault_proxy import FIRST_PARTITION, Fault, FaultProxy, at_script, load
from tests.waiting import wait_until

LEASE = 30.0
FAULTS = (Fault.CUT_BEFORE, Fault.CUT_AFTER, Fault.CUT_IN_REPLY, Fault.STALL, Fault.HALF_OPEN, Fault.LATE)


@pytest.fixture
async def proxy(valkey: Home, server: Nodes, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[FaultProxy]:
    """A proxy whose clients are impatient, before a server that knows the script."""
    monkeypatch.setitem(connections.PINNED, "socket_timeout", 0.2)
    await load(server, COMPLETE)
    async with valkey.proxy() as opened:
        yield opened


async def take(repository: RedisJobRepository, *jobs: str) -> list[Claimed]:
    """Submit jobs, each of the user whose name it begins with, and claim them; "-" is nobody."""
    for job_id in jobs:
        user_id = None if job_id[0] == "-" else job_id[0]
        await repository.create_job(Job(id=job_id, status="queued", user_id=user_id))
    claimed = await claims.claim(repository, "default", "c1", len(jobs), LEASE)
    assert len(claimed) == len(jobs)
    return claimed


def event() -> JobEvent:
    return JobEvent("complete", success=True, timestamp=utc_now())


async def complete(repository: RedisJobRepository, claimed: Sequence[Claimed]) -> list[bool]:
    """Complete jobs at the same time."""
    completions = repository.engine.completions
    return list(await asyncio.gather(*(completions.complete(one, event()) for one in claimed)))


async def ends(repository: RedisJobRepository, claimed: Sequence[Claimed]) -> list[tuple[str, int]]:
    """Return each job's status, and how many `complete` events it has."""
    found = []
    for one in claimed:
        job = await repository.get_job(one.job.id)
        assert job is not None
        found.append((str(job.status), sum(event.type == "complete" for event in job.events)))
    return found


async def calls(server: Nodes) -> int:
    """Return how many scripts the server of the first partition has run by their SHA-1."""
    statistics = await server.node_of(FIRST_PARTITION).read("INFO", "commandstats")
    line = next((line for line in statistics.split() if b"_evalsha:" in line), b"=0,")
    return int(line.partition(b"=")[2].partition(b",")[0])


async def test_what_ends_at_the_same_time_ends_in_one_step(repository: RedisJobRepository, server: Nodes) -> None:
    """Jobs of several users, and of none."""
    await complete(repository, await take(repository, "before"))
    claimed = await take(repository, "a1", "a2", "b1", "-1", "-2")
    before = await calls(server)
    assert await complete(repository, claimed) == [True] * 5
    assert await calls(server) == before + 1
    assert await ends(repository, claimed) == [("completed", 1)] * 5
    assert await server.read("XLEN", "{ci:0}:dispatch:default") == 0
    assert (await server.read("XPENDING", "{ci:0}:dispatch:default", "controllers"))[0] == 0
    assert await server.read("ZCARD", "{ci:0}:leases:default") == 0


async def test_one_that_is_refused_leaves_the_others_alone(repository: RedisJobRepository, server: Nodes) -> None:
    """Its claim has become another controller's, which keeps it."""
    claimed = await take(repository, "a1", "b1", "c1")
    await server.read("ZADD", "{ci:0}:leases:default", 0, "b1")
    [taken] = await claims.claim(repository, "default", "c2", 1, LEASE)
    jobs = [ClaimedJob(repository, one) for one in claimed]
    results = await asyncio.gather(*(job.complete() for job in jobs), return_exceptions=True)
    assert [type(result) for result in results] == [type(None), LeaseLostError, type(None)]
    assert await ends(repository, claimed) == [("completed", 1), ("running", 0), ("completed", 1)]
    assert await complete(repository, [taken]) == [True]


async def test_a_job_that_is_completed_twice_at_once_ends_once(repository: RedisJobRepository) -> None:
    """The second one in the same step finds it ended."""
    [claimed] = await take(repository, "a1")
    assert await complete(repository, [claimed, claimed]) == [True, False]
    assert await ends(repository, [claimed]) == [("completed", 1)]


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_call_that_fails_on_its_way_has_its_effect_once(
    repository: RedisJobRepository, proxy: FaultProxy, fault: Fault
) -> None:
    """It is repeated, and answered as the first time; a late one does nothing."""
    async with RedisJobRepository.from_url(proxy.url) as remote:
        claimed = await take(remote, "a1", "b1", "c1")
        proxy.plan = at_script(COMPLETE, fault)
        assert await complete(remote, claimed) == [True] * 3
        assert proxy.faults == 1
        await proxy.delivered()
        more = await take(remote, "a2")
        assert await complete(remote, more) == [True]
    assert await ends(repository, [*claimed, *more]) == [("completed", 1)] * 4


async def test_a_call_that_comes_late_does_nothing(repository: RedisJobRepository, proxy: FaultProxy) -> None:
    """Its number is lower than that of the last one, also where a job was claimed again."""
    async with RedisJobRepository.from_url(proxy.url) as remote:
        claimed = await take(remote, "a1")
        proxy.plan = at_script(COMPLETE, Fault.LATE)
        assert await complete(remote, claimed) == [True]
        assert await complete(remote, await take(remote, "a2")) == [True]
        await proxy.delivered()
    assert await ends(repository, claimed) == [("completed", 1)]


async def test_who_is_cancelled_before_it_leaves_takes_only_its_own_out(repository: RedisJobRepository) -> None:
    """The others are completed, its job stays claimed."""
    claimed = await take(repository, "a1", "b1", "c1")
    completions = repository.engine.completions
    tasks = [asyncio.create_task(completions.complete(one, event())) for one in claimed]
    await asyncio.sleep(0)
    tasks[1].cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [results[0], type(results[1]), results[2]] == [True, asyncio.CancelledError, True]
    assert await ends(repository, claimed) == [("completed", 1), ("running", 0), ("completed", 1)]
    await repository.writer("b1", claimed[1].claim).complete(True, utc_now())


async def test_lines_that_are_on_their_way_stay_before_the_end(repository: RedisJobRepository) -> None:
    """The completion goes behind what this process is writing under the claim."""
    [claimed] = await take(repository, "a1")
    job = ClaimedJob(repository, claimed)
    logs = [JobEvent("log", f"{number}\n") for number in range(900)]
    writing = asyncio.create_task(job.writer.append(logs))
    await asyncio.sleep(0)
    assert await complete(repository, [claimed]) == [False]
    await job.complete()
    await writing
    found = await repository.get_events_since("a1", 0)
    assert [event.type for event in found] == ["log"] * 900 + ["complete"]


@pytest.mark.parametrize("logs", [INDEX_EVENTS - 2, INDEX_EVENTS - 1, INDEX_EVENTS])
async def test_a_log_whose_index_has_an_entry_due_ends_as_any_other(repository: RedisJobRepository, logs: int) -> None:
    """`append.lua` writes that entry."""
    [claimed] = await take(repository, "a1")
    job = ClaimedJob(repository, claimed)
    for _ in range(logs):
        await job.writer.append([JobEvent("log", ".")])
    assert await complete(repository, [claimed]) == [logs + 1 < INDEX_EVENTS]
    if logs + 1 >= INDEX_EVENTS:
        await job.complete()
    assert await ends(repository, [claimed]) == [("completed", 1)]


async def test_a_log_that_has_outgrown_its_head_ends_with_its_end(valkey: Home, server: Nodes) -> None:
    """What was kept of it in the ring goes before the `complete` event."""
    async with RedisJobRepository.from_url(valkey.url, max_head_bytes=100) as repository:
        [claimed] = await take(repository, "a1")
        job = ClaimedJob(repository, claimed)
        for _ in range(20):
            await job.writer.append([JobEvent("log", "0123456789\n")])
        await job.complete()
        found = await repository.get_events_since("a1", 0)
        assert [event.type for event in found] == ["log"] * 20 + ["complete"]
        assert await repository.verify() == []
    assert await server.read("EXISTS", "{ci:0}:ring:a1") == 0


async def test_the_last_call_is_forgotten_in_the_end(repository: RedisJobRepository, server: Nodes) -> None:
    """What repeated calls are known by has a time to live."""
    await complete(repository, await take(repository, "a1"))
    found = [key async for page in server.scan("{ci:0}:ends:*") for key in page]
    assert len(found) == 1
    assert 0 < await server.read("PTTL", found[0]) <= 3_600_000


async def test_how_a_command_ended_is_kept(repository: RedisJobRepository) -> None:
    """By jobs that are completed together, each for itself; the streams say the same as the hashes."""
    outcomes = {"a1": Outcome(exit_code=3), "a2": Outcome(signal="SIGTERM"), "a3": None}
    for claimed in await take(repository, *outcomes):
        async with ClaimedJob(repository, claimed) as job:
            job.success, job.outcome = False, outcomes[job.job.id]
    for job_id, outcome in outcomes.items():
        ended = await repository.get_job(job_id)
        assert ended is not None
        assert (ended.exit_code, ended.signal) == ((outcome.exit_code, outcome.signal) if outcome else (None, None))
        assert ended.events[-1].outcome == outcome
    assert await repository.verify() == []


async def test_an_error_that_nobody_thought_of_reaches_those_who_wait(
    repository: RedisJobRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody waits for ever, and later completions go out."""
    claimed = await take(repository, "-1", "-2")

    def break_down(event: JobEvent) -> bytes:
        raise ZeroDivisionError

    with monkeypatch.context() as broken:
        broken.setattr("ci_eventstore.queues.completions.encode_event", break_down)
        with pytest.raises(ZeroDivisionError):
            await complete(repository, claimed)
    assert await complete(repository, claimed) == [True, True]


async def test_a_sender_that_is_cancelled_lets_nobody_wait(repository: RedisJobRepository) -> None:
    """As at the end of an event loop; those that come later go out all the same."""
    claimed = await take(repository, "-1", "-2")
    completions = repository.engine.completions
    tasks = [asyncio.create_task(completions.complete(one, event())) for one in claimed]
    await wait_until(lambda: any(line.caller.number for line in completions._lines.values()))
    [line] = completions._lines.values()
    assert line.sender is not None
    line.sender.cancel()
    done = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(result) for result in done] == [asyncio.CancelledError] * 2
    await completions.drain()
    [later] = await take(repository, "-3")
    assert await complete(repository, [later]) == [True]
