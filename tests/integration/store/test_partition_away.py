"""One of two servers of a store is away: only the jobs of its partitions are."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing

import pytest

from ci_common.models import Job, JobEvent, utc_now
from ci_eventstore.connection import way
from ci_eventstore.errors import StoreUnavailableError
from ci_eventstore.facts import groups, reader
from ci_eventstore.history.retention import drop_tombstones, sweep
from ci_eventstore.history.rules import Rule
from ci_eventstore.history.sealer import Sealer
from ci_eventstore.projection.differences import Difference
from ci_eventstore.queues.claimed import Claim
from ci_eventstore.queues.overview import UsedQueues, read_overviews
from ci_eventstore.repository import RedisJobRepository
from tests import claims
from tests.divided import ODD, PARTITIONS, be_hasty, come_back, divided, is_of_accounts, job_ids, opened
from tests.integration.store.fact_readers import reading
from tests.servers import RealServer
from tests.waiting import wait_until

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for long, and readers of facts look again at once."""
    be_hasty(monkeypatch)
    monkeypatch.setattr(reader, "AWAY_SECONDS", 0.1)
    monkeypatch.setattr(groups, "HURRIED_REPLY_SECONDS", 2.0)


@pytest.fixture
async def both(
    monkeypatch: pytest.MonkeyPatch, server: object, own: RealServer, valkey: RealServer
) -> AsyncIterator[RedisJobRepository]:
    """A store whose odd partitions are on `own`; its projections must agree with its streams when that is back."""
    with divided(monkeypatch, own.url):
        async with opened(valkey.url) as repository:
            yield repository
            own.kill()
            await come_back(repository, own)
            assert await repository.verify() == []


async def fill(repository: RedisJobRepository, count: int = 2, status: str = "running") -> dict[int, list[str]]:
    """Create jobs in all partitions, and return their ids."""
    ids = {partition: job_ids(partition, count) for partition in range(PARTITIONS)}
    for number in range(count):
        for its in ids.values():
            await repository.create_job(Job(id=its[number], status=status))
    return ids


async def test_jobs_of_other_partitions_are_as_before(both: RedisJobRepository, own: RealServer) -> None:
    """They are created, written and read; an error names the partition that is away."""
    ids = await fill(both)
    own.kill()
    await both.create_job(Job(id=job_ids(0, 3)[2], status="queued"))
    await both.add_event(ids[2][0], JobEvent("log", "on it goes\n"))
    await both.complete_job(ids[2][0], True, (await both.get_job(ids[2][0])).created_at)  # type: ignore[union-attr]
    for partition in ODD:
        with pytest.raises(StoreUnavailableError, match=rf"^partition {partition} at unix:") as raised:
            await both.get_job(ids[partition][0])
        assert raised.value.partition == partition
    with pytest.raises(StoreUnavailableError, match=r"^partition 1 at unix:"):
        await both.add_event(ids[1][1], JobEvent("log", "not stored\n"))


async def test_a_server_that_gave_no_answer_is_not_asked_for_a_while(
    both: RedisJobRepository, own: RealServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who goes on without it doesn't wait for it each time; any answer of the server ends that."""
    ids = await fill(both, 1)
    with monkeypatch.context() as patch:
        patch.setattr(way, "AWAY_SECONDS", 1000.0)
        own.kill()
        assert (await both.page_available_jobs()).unavailable == ODD
        patch.setattr(way, "HURRIED_PATIENCE_SECONDS", 1000.0)
        assert (await both.page_available_jobs()).unavailable == ODD
        own.start()
        assert (await both.page_available_jobs()).unavailable == ODD
        assert await both.get_job_summary(ids[1][0]) is not None
        assert (await both.page_available_jobs()).unavailable == ()


async def test_a_page_says_which_partitions_are_missing(both: RedisJobRepository, own: RealServer) -> None:
    """It has the others' jobs in their order, and pages that follow it are right; a whole list can't be had."""
    ids = await fill(both, 3)
    there = [ids[partition][number] for number in (2, 1, 0) for partition in (2, 0)]
    own.kill()
    page = await both.page_available_jobs(limit=4)
    assert ([job.id for job in page.jobs], page.unavailable) == (there[:4], ODD)
    await come_back(both, own)
    page = await both.page_available_jobs(before=there[3])
    assert [job.id for job in page.jobs] == [ids[partition][0] for partition in (3, 2, 1, 0)]
    assert page.unavailable == ()
    own.kill()
    for status in (None, "running"):
        page = await both.page_available_jobs(status=status)
        assert ([job.id for job in page.jobs], page.unavailable) == (there, ODD)
        with pytest.raises(StoreUnavailableError, match=r"^partition [13] at"):
            await both.page_jobs(status=status)
    with pytest.raises(StoreUnavailableError, match=r"^partition [13] at"):
        await both.list_jobs()


async def test_a_job_is_found_by_its_whole_id(both: RedisJobRepository, own: RealServer) -> None:
    """The beginning of an id may be that of a job that is away, too."""
    ids = await fill(both, 1)
    own.kill()
    assert await both.resolve_job_id(ids[0][0]) == ids[0][0]
    for unsure in (ids[1][0], "job"):
        with pytest.raises(StoreUnavailableError, match=r"^partition [13] at"):
            await both.resolve_job_id(unsure)


async def test_a_process_opens_the_store_without_the_partition(
    both: RedisJobRepository, own: RealServer, valkey: RealServer
) -> None:
    """As long as the partition of accounts is there, which says what the store is."""
    ids = await fill(both, 1)
    own.kill()
    async with opened(valkey.url) as another:
        assert await another.get_job_summary(ids[0][0]) is not None


async def test_followers_of_other_partitions_go_on(both: RedisJobRepository, own: RealServer) -> None:
    """They get what comes; those of the partition that is away get an error after the usual time."""
    ids = await fill(both, 1)
    here, away = await both.follow(ids[0][0]), await both.follow(ids[1][0])
    own.kill()
    await both.add_event(ids[0][0], JobEvent("log", "on it goes\n"))
    assert [record.data for record in (await here.read()).records if isinstance(record, JobEvent)] == ["on it goes\n"]
    await both.engine.hub._look()
    with pytest.raises(StoreUnavailableError, match=r"^partition 1 at"):
        await away.read()
    await both.complete_job(ids[0][0], True, utc_now())
    while not (await here.read()).is_last:
        pass
    here.close()
    away.close()


async def test_leases_of_other_partitions_are_renewed(both: RedisJobRepository, own: RealServer) -> None:
    """However long the partition is away; its own jobs are kept as in any outage."""
    ids, told = await fill(both, 1, "queued"), list[tuple[Claim, str]]()
    claimed = {one.claim.job_id: one.claim for one in await claims.claim(both, "default", "c", PARTITIONS, 1.5)}
    keeper = both.keep_leases(1.5, lambda claim, answer: told.append((claim, answer)))
    keeper.start()
    ends = {partition: set[bytes]() for partition in (0, 2)}
    try:
        for partition in (1, 0, 3, 2):
            keeper.hold("default", claimed[ids[partition][0]])
        own.kill()
        async with asyncio.timeout(60):
            while any(len(its) < 4 for its in ends.values()):
                for partition, its in ends.items():
                    queue = both.engine.keys.job(ids[partition][0]).queue("default")
                    its.add(await both.engine.nodes.read("ZSCORE", queue.leases, ids[partition][0]))
                await asyncio.sleep(0.05)
        await come_back(both, own)
    finally:
        await keeper.stop()
    assert told == []


async def test_sweeps_go_on_in_other_partitions(both: RedisJobRepository, own: RealServer) -> None:
    """Jobs are sealed, deleted and forgotten where they are; the sweep says which partitions it left out."""
    ids = await fill(both, 2, "completed")
    engine = both.engine
    own.kill()
    swept = await Sealer(engine.nodes, engine.reader.source, engine.keys).sweep(0)
    assert (swept.done, swept.unavailable, swept.left) == (4, ODD, {})
    kept = await sweep(engine, [Rule(older_than_seconds=0, queues=frozenset({"other"}))])
    deleted = await sweep(engine, [Rule(max_bytes=1)])
    assert (kept.unavailable, kept.deleted, deleted.unavailable, deleted.left) == (ODD, [], ODD, {})
    assert sorted(deleted.deleted) == sorted(ids[0] + ids[2])
    assert await drop_tombstones(engine, 0) == 4
    await both.engine.holders.end_lost()


async def test_facts_of_other_partitions_come(
    both: RedisJobRepository, own: RealServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Of the one that is away, the group gets those from before and after, and nothing is lost."""
    ids = await fill(both, 1)
    async with reading(both, "g", lease_seconds=3.0) as batches:
        own.kill()
        waiting = asyncio.ensure_future(anext(batches))
        await wait_until(lambda: "partitions are away" in caplog.text or waiting.done())
        assert not waiting.done()
        await both.complete_job(ids[0][0], True, utc_now())
        async with asyncio.timeout(30):
            batch = await waiting
        assert [fact.job_id for fact in batch.facts] == [ids[0][0]]
        await batch.acknowledge()
        await come_back(both, own)
        await both.complete_job(ids[1][0], True, utc_now())
        async with asyncio.timeout(30):
            batch = await anext(batches)
        assert [fact.job_id for fact in batch.facts] == [ids[1][0]]
        assert not batch.has_gap
        await batch.acknowledge()


async def test_a_group_begins_without_the_partition(both: RedisJobRepository, own: RealServer) -> None:
    """There it begins later, with a gap."""
    await fill(both, 1)
    own.kill()
    async with aclosing(both.subscribe("late")) as batches, asyncio.timeout(30):
        begun = {(await anext(batches)).partition for _ in range(2)}
        assert begun == {0, 2}
        await come_back(both, own)
        batches_of_others = [await anext(batches) for _ in range(2)]
        assert {(batch.partition, batch.has_gap) for batch in batches_of_others} == {(1, True), (3, True)}


async def test_if_all_are_away_a_subscription_ends(both: RedisJobRepository, own: RealServer) -> None:
    """Nobody takes silence for peace."""
    async with aclosing(both.subscribe("g", lease_seconds=0.6)) as batches, asyncio.timeout(30):
        for _ in range(PARTITIONS):
            await anext(batches)
        reader_nodes = both.engine.nodes
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(reader_nodes, "_node_of_tag", lambda tag: reader_nodes.all[1])
            own.kill()
            with pytest.raises(StoreUnavailableError, match=r"^partition \d at"):
                await anext(batches)


async def test_queues_are_counted_where_they_are(both: RedisJobRepository, own: RealServer) -> None:
    """Each partition knows its own queues; none is forgotten while one is away."""
    for partition in range(PARTITIONS):
        queue = "both" if partition < 2 else f"of {partition}"
        await both.create_job(Job(id=job_ids(partition, 1)[0], status="queued", queue=queue))
    used = UsedQueues(both.engine.nodes, both.engine.keys)
    whole = await used.read()
    assert [(one.name, one.waiting) for one in whole.queues] == [("both", 2), ("of 2", 1), ("of 3", 1)]
    await both.cancel_job(job_ids(2, 1)[0])
    own.kill()
    for _ in range(2):
        found = await read_overviews(both.engine.nodes, both.engine.keys)
        assert ([(one.name, one.waiting) for one in found.queues], found.unavailable) == (
            [("both", 1), ("of 2", 0)],
            ODD,
        )
        assert (await used.read()).unavailable == ODD
    await come_back(both, own)
    assert [one.name for one in (await used.read()).queues] == ["both", "of 3"]
    assert [one.name for one in (await read_overviews(both.engine.nodes, both.engine.keys)).queues] == ["both", "of 3"]


@pytest.mark.parametrize("is_fast", [True, False])
async def test_verify_and_rebuild_name_the_partition(both: RedisJobRepository, own: RealServer, is_fast: bool) -> None:
    """They look at the others, and mend what differs there."""
    ids, keys = await fill(both, 1), both.engine.keys
    await both.engine.nodes.read("HDEL", keys.job(ids[0][0]).hash, "status")
    own.kill()
    absent = [Difference(f"partition {number}", "its server", "an answer", None) for number in ODD]
    for look in (both.verify, both.rebuild):
        found = await look(fast=is_fast)
        assert [difference for difference in found if difference.subject.startswith("partition")] == absent
        assert any(difference.subject == f"job {ids[0][0]}" for difference in found)
    assert await both.verify(fast=is_fast) == absent


async def test_without_accounts_jobs_are_as_before(
    monkeypatch: pytest.MonkeyPatch, server: object, own: RealServer, valkey: RealServer
) -> None:
    """They are created, claimed, written, followed and listed; the store's incarnation counts as it was known."""
    with divided(monkeypatch, own.url, is_of_accounts):
        async with opened(valkey.url) as repository:
            ids = await fill(repository, 1)
            known = await repository.incarnation(ids[0][0])
            own.kill()
            assert await repository.incarnation(ids[0][0]) == known
            follower = await repository.follow(ids[0][0], incarnation=known)
            await repository.add_event(ids[0][0], JobEvent("log", "on it goes\n"))
            await repository.complete_job(ids[0][0], True, utc_now())
            followed = list[JobEvent]()
            is_last = False
            while not is_last:
                page = await follower.read()
                followed += [record for record in page.records if isinstance(record, JobEvent)]
                is_last = page.is_last
            assert [event.data for event in followed] == ["on it goes\n", None]
            await repository.engine.hub._look()
            assert len(await repository.list_jobs()) == PARTITIONS
            with pytest.raises(StoreUnavailableError, match=r"^the partition of accounts at") as raised:
                await repository.get_user("ada")
            assert raised.value.partition == "accounts"
            absent = Difference("the partition of accounts", "its server", "an answer", None)
            assert await repository.verify() == [absent]
            await come_back(repository, own)
            assert await repository.verify() == []
