"""Retention deletes what its rules take, and nothing else, whoever stops it and whatever is damaged."""

import asyncio
import os
from datetime import timedelta
from functools import partial

import pytest

from ci_common.errors import JobGoneError
from ci_common.models import Job, JobEvent, JobStatus, utc_now
from ci_eventstore.connection.nodes import Nodes
from ci_eventstore.events.log_source import LogSource
from ci_eventstore.history import retention
from ci_eventstore.history.retention import drop_tombstones, keep_rules, rules_in_force, sweep
from ci_eventstore.history.rules import Rule, Selection
from ci_eventstore.jobs.delete import delete_job
from ci_eventstore.jobs.records import read_record
from ci_eventstore.jobs.state import JobState
from ci_eventstore.jobs.tombstones import Reason, read_tombstone
from ci_eventstore.keys import JobKeys, Keys, gone_key
from ci_eventstore.repository import RedisJobRepository
from tests.cancelling import Counted, Steps
from tests.claims import claim
from tests.integration.store.sealing import seal_job
from tests.servers import RealServer

ALL = [Rule(older_than_seconds=0, takes_unsealed=True)]


async def make(repository: RedisJobRepository, job_id: str, age_days: float, status: str = "completed") -> None:
    """Create a job that ended some days ago, or hasn't."""
    end = utc_now() - timedelta(days=age_days)
    is_over = status in ("completed", "failed", "cancelled")
    await repository.create_job(Job(id=job_id, status="running" if is_over else status, user_id="ada"))
    if status == "completed":
        await repository.complete_job(job_id, True, end)
    elif is_over:
        await repository.update_job_status(job_id, status)


async def ids(repository: RedisJobRepository) -> list[str]:
    """Return the jobs that there are."""
    return sorted(job.id for job in await repository.list_jobs())


@pytest.fixture
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few jobs take several pages."""
    monkeypatch.setattr(retention, "PAGE_JOBS", 3)


@pytest.mark.usefixtures("small_pages")
async def test_a_dry_run_says_what_a_sweep_does(repository: RedisJobRepository, server: Nodes, keys: Keys) -> None:
    """Old jobs go, whose logs are sealed; the others stay, and those that run."""
    for n in range(8):
        await make(repository, f"old-{n}", 31 + n)
    for n in range(4):
        await make(repository, f"new-{n}", n)
    for status in ("queued", "running"):
        await make(repository, status, 100, status)
    for n in range(7):
        await seal_job(repository, f"old-{n}")
    rules = [Rule(older_than_seconds=30 * 86_400)]
    before = await ids(repository)
    planned = await sweep(repository.engine, rules, is_dry_run=True)
    assert await ids(repository) == before
    swept = await sweep(repository.engine, rules)
    assert swept == planned
    assert sorted(swept.deleted) == [f"old-{n}" for n in range(7)]
    assert await ids(repository) == sorted(set(before) - set(swept.deleted))
    tombstone = await read_tombstone(server, keys.job("old-0"))
    assert tombstone is not None
    assert tombstone.reason is Reason.RETENTION
    assert (await sweep(repository.engine, rules)).deleted == []


@pytest.mark.usefixtures("small_pages")
async def test_a_damaged_job_stops_nothing(repository: RedisJobRepository, server: Nodes, keys: Keys) -> None:
    """It is named, stays, and is deleted once it is mended."""
    for n in range(7):
        await make(repository, f"j-{n}", n)
    await server.read("HSET", keys.job("j-3").hash, "created_at", "never")
    swept = await sweep(repository.engine, ALL)
    assert (len(swept.deleted), list(swept.left)) == (6, ["j-3"])
    await repository.rebuild("j-3")
    assert (await sweep(repository.engine, ALL)).deleted == ["j-3"]


async def test_it_may_be_stopped_anywhere(repository: RedisJobRepository) -> None:
    """Each job is there whole, or gone; the next sweep does the rest."""
    for n in range(3):
        await make(repository, f"j-{n}", n)
    stop = 1
    while await ids(repository):
        steps = Steps(stop, 1)

        async def work() -> None:
            await sweep(repository.engine, ALL)

        steps.victim = task = asyncio.create_task(Counted(work(), steps))
        await asyncio.gather(task, return_exceptions=True)
        assert await repository.verify() == []
        stop += 1


async def test_two_at_once(repository: RedisJobRepository) -> None:
    """Neither names a job that the other one has deleted."""
    for n in range(20):
        await make(repository, f"j-{n}", n)
    found = await asyncio.gather(sweep(repository.engine, ALL), sweep(repository.engine, ALL))
    assert [swept.left for swept in found] == [{}, {}]
    assert sum(len(swept.deleted) for swept in found) == 20
    assert await ids(repository) == []


async def test_a_store_whose_index_is_empty(repository: RedisJobRepository, server: Nodes, keys: Keys) -> None:
    """What isn't found isn't deleted."""
    await make(repository, "j", 100)
    await server.read("DEL", keys.job("j").ended)
    assert (await sweep(repository.engine, ALL)).deleted == []
    assert await ids(repository) == ["j"]
    await repository.rebuild()


async def test_tombstones_are_dropped_by_age(repository: RedisJobRepository, server: Nodes) -> None:
    """From then on the id is as if it had never been used; one that can't be read stays."""
    await make(repository, "j", 1)
    await sweep(repository.engine, ALL)
    await server.read("HSET", gone_key("{ci:0}"), "odd", "what is this")
    assert await drop_tombstones(repository.engine, 3600) == 0
    with pytest.raises(JobGoneError):
        await repository.create_job(Job(id="j", status="queued"))
    assert await drop_tombstones(repository.engine, 0) == 1
    assert await server.read("HKEYS", gone_key("{ci:0}")) == [b"odd"]
    await repository.create_job(Job(id="j", status="queued"))


@pytest.mark.parametrize("status", ["running", "completed"])
async def test_a_job_that_is_kept(repository: RedisJobRepository, server: Nodes, keys: Keys, status: str) -> None:
    """Retention leaves it alone, also when it was kept after the sweep had read it, sealed it is, and mended."""
    await make(repository, "j", 1, status)
    for _ in range(2):
        await repository.keep_job("j")
    if status == "running":
        await repository.complete_job("j", True, utc_now())
    events = await repository.read_events("j")
    assert await seal_job(repository) == "sealed"
    assert await sweep(repository.engine, ALL) == retention.Swept()
    engine, job = repository.engine, keys.job("j")
    takes = partial(Selection(ALL).takes, "j", now=utc_now())
    assert not await delete_job(engine.nodes, engine.reader.source, job, Reason.RETENTION, takes=takes)
    await server.read("HSET", job.hash, "is_kept", "0")
    assert await repository.rebuild("j")
    assert await repository.read_events("j") == events
    assert (await sweep(repository.engine, ALL)).deleted == []
    await repository.keep_job("j", is_kept=False)
    await seal_job(repository)
    assert await repository.read_events("j") == events
    assert (await sweep(repository.engine, [Rule(older_than_seconds=0)])).deleted == ["j"]


async def test_a_sealed_job_with_late_output_stays(
    repository: RedisJobRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It came after the sweep had looked, so not all of the log is sealed any more."""
    await make(repository, "j", 1)
    assert await seal_job(repository) == "sealed"
    late: list[JobEvent] = [JobEvent("log", "late\n")]

    async def read_and_write(nodes: Nodes, source: LogSource, keys: JobKeys) -> JobState | None:
        state = await read_record(nodes, source, keys)
        while late:
            await repository.add_event("j", late.pop())
        return state

    monkeypatch.setattr("ci_eventstore.jobs.delete.read_record", read_and_write)
    assert await sweep(repository.engine, [Rule(older_than_seconds=0)]) == retention.Swept()
    assert (await repository.read_events("j"))[-1].data == "late\n"
    assert await repository.delete_job("j")


async def test_a_kept_job_may_be_deleted_by_hand(repository: RedisJobRepository) -> None:
    """A pin is against retention alone; one of a deleted job is refused."""
    await make(repository, "j", 1)
    await make(repository, "k", 1)
    for job_id in ("j", "k"):
        await repository.keep_job(job_id)
    await repository.keep_job("k", is_kept=False)
    assert (await sweep(repository.engine, ALL)).deleted == ["k"]
    assert await repository.delete_job("j")
    with pytest.raises(JobGoneError):
        await repository.keep_job("j")


async def test_a_claimed_job_may_be_kept(repository: RedisJobRepository) -> None:
    """Its controller goes on, and doesn't notice."""
    await repository.create_job(Job(id="j", status="queued"))
    [claimed] = await claim(repository, "default", "controller", 1, 30)
    await repository.keep_job("j")
    writer = repository.writer("j", claimed.claim, claimed)
    await writer.append([JobEvent("log", "a\n")])
    await writer.complete(True, utc_now())
    assert (await sweep(repository.engine, ALL)).deleted == []


@pytest.mark.usefixtures("small_pages")
async def test_the_oldest_go_until_the_size_is_kept(own: RealServer) -> None:
    """In all partitions together; a dry run says the same; a damaged job is named, and a second sweep finds nothing."""
    async with RedisJobRepository.from_url(own.url, prefix="a", partitions=4) as repository:
        for n in range(20):
            await make(repository, f"j-{n:02}", n)
            await repository.add_event(f"j-{n:02}", JobEvent("log", "x" * 2048))
        await repository.keep_job("j-15")
        engine = repository.engine
        await engine.nodes.read("HSET", engine.keys.job("j-03").hash, "bytes", "many")
        # Each counts for 3 KiB, but for the damaged one and the one that is kept.
        rules = [Rule(max_bytes=30 << 10, takes_unsealed=True)]
        planned = await sweep(engine, rules, is_dry_run=True)
        assert sorted(planned.deleted) == [f"j-{n:02}" for n in range(11, 20) if n != 15]
        first, second = await asyncio.gather(sweep(engine, rules), sweep(engine, rules))
        assert sorted(first.deleted + second.deleted) == sorted(planned.deleted)
        assert set(first.left) | set(planned.left) == {"j-03"}
        assert (await sweep(engine, rules)).deleted == []
        await repository.rebuild("j-03")
        assert (await sweep(engine, rules)).deleted == ["j-10"]
        assert (await sweep(engine, [Rule(max_bytes=1 << 40, takes_unsealed=True)])).deleted == []


async def test_the_first_rule_that_fits_decides(repository: RedisJobRepository) -> None:
    """Failed jobs go sooner than others, and what no rule fits stays; the store keeps the rules."""
    for n in range(4):
        await make(repository, f"passed-{n}", 10 * n)
        await make(repository, f"cancelled-{n}", 0, "cancelled")
    rules = [
        Rule(statuses=frozenset({JobStatus.CANCELLED}), older_than_seconds=0, takes_unsealed=True),
        Rule(statuses=frozenset({JobStatus.COMPLETED}), older_than_seconds=15 * 86_400, takes_unsealed=True),
    ]
    assert await rules_in_force(repository.engine) == []
    await keep_rules(repository.engine, rules)
    assert await rules_in_force(repository.engine) == rules
    assert await repository.verify() == []
    swept = await sweep(repository.engine, rules)
    assert sorted(swept.deleted) == [*(f"cancelled-{n}" for n in range(4)), "passed-2", "passed-3"]
    await keep_rules(repository.engine, [])
    assert await rules_in_force(repository.engine) == []


@pytest.mark.slow
async def test_one_poisoned_job_among_many(repository: RedisJobRepository, server: Nodes, keys: Keys) -> None:
    """Slow, as there are many: it is named, and all others go."""
    jobs = 10_000 if os.environ.get("CI_EVENTSTORE_SOAK") == "1" else 2_000
    for start in range(0, jobs, 500):
        await asyncio.gather(*(make(repository, f"j-{n}", n % 100) for n in range(start, start + 500)))
    await server.read("HSET", keys.job("j-777").hash, "created_at", "never")
    rules = [Rule(older_than_seconds=50 * 86_400 - 3600, max_bytes=1 << 40, takes_unsealed=True)]
    planned = await sweep(repository.engine, rules, is_dry_run=True)
    swept = await sweep(repository.engine, rules)
    assert swept == planned
    assert (len(swept.deleted), list(swept.left)) == (jobs // 2 - 1, ["j-777"])
    assert await repository.rebuild("j-777")
