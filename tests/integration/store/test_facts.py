"""Facts of all jobs: told with each change, read by groups, fenced, trimmed, and missed by nobody unawares."""

import asyncio
from contextlib import aclosing

import fakeredis
import pytest

from ci_common.errors import InvalidArgumentError, InvalidIdError
from ci_common.models import Job, JobEvent, utc_now
from ci_eventstore.connection.nodes import Nodes
from ci_eventstore.connection.replies import as_texts
from ci_eventstore.controllers.claimed_job import ClaimedJob
from ci_eventstore.errors import FactReaderReplacedError, GroupDroppedError, ReadOnlyAccessError, StoreFormatError
from ci_eventstore.facts.groups import LIVE_SECONDS
from ci_eventstore.keys import Keys, facts_key, groups_key
from ci_eventstore.repository import RedisJobRepository
from tests import claims
from tests.integration.store.fact_readers import facts_until, reading, stories_of, story_in_stream, untold
from tests.integration.store.test_key_leaks import LIVES, Life
from tests.servers import RealServer


async def create(repository: RedisJobRepository, *job_ids: str) -> None:
    for job_id in job_ids:
        await repository.create_job(Job(id=job_id, status="queued"))


async def length(server: Nodes, keys: Keys) -> int:
    return int(await server.read("XLEN", facts_key(keys.tag(0))))


@pytest.mark.parametrize("life", LIVES)
async def test_each_life_is_told(repository: RedisJobRepository, life: Life) -> None:
    """Whatever becomes of a job: the facts are those of its stream, each once, in their order."""
    async with reading(repository) as batches:
        await life(repository, "j")
        facts = await facts_until(repository, batches)
    told = stories_of(facts)
    assert len({fact.id for fact in facts}) == len(facts)
    assert told == {job_id: await story_in_stream(repository, job_id) for job_id in told}
    assert {job.id for job in await repository.list_jobs()} == {*told, "last"}


async def test_facts_of_many_jobs_are_one_entry(repository: RedisJobRepository, server: Nodes, keys: Keys) -> None:
    """Jobs that are claimed or completed together; facts are told of those alone that it was done to."""
    async with reading(repository) as batches:
        await create(repository, "a", "b", "c")
        before = await length(server, keys)
        claimed = await claims.claim(repository, "default", "controller", 3, 30.0)
        assert await length(server, keys) == before + 1
        # It is ahead of its hash, so that it can't be written to.
        await server.read("XADD", keys.job("b").stream, "99-0", "e", "x")
        completions = repository.engine.completions
        done = await asyncio.gather(
            *(completions.complete(one, JobEvent("complete", success=True, timestamp=utc_now())) for one in claimed)
        )
        assert sorted(done) == [False, True, True]
        await server.read("XDEL", keys.job("b").stream, "99-0")
        told = stories_of(await facts_until(repository, batches))
    created_and_started = [("CREATED", "queued"), ("STARTED", "running")]
    assert told == {
        "a": [*created_and_started, ("ENDED", "completed")],
        "b": created_and_started,
        "c": [*created_and_started, ("ENDED", "completed")],
    }
    await server.read("DEL", *keys.job("b").all())
    await repository.rebuild()


async def test_without_a_group_nothing_is_written(repository: RedisJobRepository, server: Nodes, keys: Keys) -> None:
    """Facts are kept from when the first group begins until the last one goes."""
    await create(repository, "a")
    assert await server.read("EXISTS", facts_key(keys.tag(0))) == 0
    async with reading(repository, "g"), reading(repository, "h"):
        await create(repository, "b")
    assert await length(server, keys) == 3
    facts = repository.engine.facts
    assert (await facts.drop("g"), await facts.drop("g")) == (True, False)
    assert await length(server, keys) == 3
    assert await facts.drop("h")
    assert await server.read("EXISTS", facts_key(keys.tag(0)), f"{keys.tag(0)}:groups") == 0


async def test_a_group_begins_with_a_gap_until_that_is_acknowledged(repository: RedisJobRepository) -> None:
    """In each partition, before any fact: its reader has to look at the jobs that there are."""
    for _ in range(2):
        async with aclosing(repository.subscribe("g")) as batches:
            batch = await anext(batches)
            assert (batch.has_gap, batch.facts) == (True, [])
    async with aclosing(repository.subscribe("g")) as batches:
        await (await anext(batches)).acknowledge()
        await create(repository, "a")
        batch = await anext(batches)
        assert (batch.has_gap, [fact.job_id for fact in batch.facts]) == (False, ["a"])


async def test_what_is_not_acknowledged_comes_again(repository: RedisJobRepository) -> None:
    """To the next reader, as the same facts; to this one, what comes after. An acknowledgement holds for all before."""
    async with reading(repository, limit=1) as batches:
        await create(repository, "a", "b", "c")
        first = [await anext(batches) for _ in range(3)]
        assert [fact.job_id for batch in first for fact in batch.facts] == ["a", "b", "c"]
        await first[1].acknowledge()
        await first[0].acknowledge()
    async with reading(repository) as batches:
        again = await anext(batches)
        assert list(again.facts) == list(first[2].facts)


async def test_one_reader_at_a_time(repository: RedisJobRepository) -> None:
    """Another one waits; it takes over when the lease has run out, and the first can acknowledge no more."""
    async with reading(repository, lease_seconds=0.3) as slow:
        await create(repository, "a")
        late = await anext(slow)
        async with aclosing(repository.subscribe("g", lease_seconds=30.0)) as others, asyncio.timeout(20):
            taken_over = await anext(others)
            assert list(taken_over.facts) == list(late.facts)
            with pytest.raises(FactReaderReplacedError, match="another reader of the group 'g'"):
                await late.acknowledge()
            await taken_over.acknowledge()
            await create(repository, "b")
            assert [fact.job_id for fact in (await anext(others)).facts] == ["b"]


async def test_a_reader_that_goes_makes_room(repository: RedisJobRepository) -> None:
    """Who waits is woken, long before the lease would have ended; facts that come later wake it, too."""
    async with aclosing(repository.subscribe("g", lease_seconds=600.0)) as waiting:
        async with reading(repository, lease_seconds=600.0):
            taking_over = asyncio.ensure_future(anext(waiting))
            await create(repository, "a")
            done, _ = await asyncio.wait([taking_over], timeout=0.2)
            assert not done
        async with asyncio.timeout(30):
            batch = await taking_over
            assert [fact.job_id for fact in batch.facts] == ["a"]
            await create(repository, "b")
            assert [fact.job_id for fact in (await anext(waiting)).facts] == ["b"]


async def test_groups_read_apart_and_trim_together(repository: RedisJobRepository, server: Nodes, keys: Keys) -> None:
    """Facts go when every group that is live has read them; one that nobody has read for a day holds back nothing."""
    many = [f"j{number:03}" for number in range(300)]
    async with reading(repository, "slow"), reading(repository, "quick") as quick:
        await create(repository, *many)
        assert len(await facts_until(repository, quick)) == len(many)
        assert await length(server, keys) > len(many)
    groups = f"{keys.tag(0)}:groups"
    read, reader, ends, looked = as_texts([await server.read("HGET", groups, "slow")])[0].split()
    long_ago = int(looked) - (LIVE_SECONDS + 60) * 1000
    await server.read("HSET", groups, "slow", f"{read} {reader} {ends} {long_ago}")
    states = {group.name: group for group in await repository.engine.facts.all()}
    assert (states["slow"].is_live, states["quick"].is_live) == (False, True)
    assert states["slow"].behind_seconds > 0 == states["quick"].behind_seconds
    async with reading(repository, "quick") as quick:
        await facts_until(repository, quick, "another")
    # The server keeps up to a hundred entries more, as it removes them together.
    assert await length(server, keys) < 150
    async with aclosing(repository.subscribe("slow")) as slow:
        batch = await anext(slow)
        assert batch.has_gap
        await batch.acknowledge()


async def test_a_group_that_is_left_too_far_behind_is_told_a_gap(
    repository: RedisJobRepository, server: Nodes, keys: Keys
) -> None:
    """Facts are kept up to a number; then a group that hasn't read them is told so, and goes on."""
    key = facts_key(keys.tag(0))
    async with reading(repository):
        await create(repository, "first")
    newest = as_texts((await server.read("XREVRANGE", key, "+", "-", "COUNT", 1))[0][:1])[0]
    milliseconds = int(newest.partition("-")[0])
    for start in range(0, 101_000, 1000):
        await server.read_many(
            [("XADD", key, f"{milliseconds}-{number + 10}", "f", "cqx") for number in range(start, start + 1000)]
        )
    # They are removed now and then.
    for number in range(1000):
        await create(repository, f"new-{number}")
        if await length(server, keys) < 101_000:
            break
    await create(repository, "newest")
    assert 100_000 <= await length(server, keys) < 100_300
    async with aclosing(repository.subscribe("g", limit=10_000)) as batches:
        has_gap, count, last = False, 0, ""
        while last != "newest":
            batch = await anext(batches)
            await batch.acknowledge()
            has_gap |= batch.has_gap
            count, last = count + len(batch.facts), batch.facts[-1].job_id
    assert has_gap
    assert count >= 100_000


async def all_keys(server: Nodes) -> list[bytes]:
    found: list[bytes] = await server.read("KEYS", "{ci:*")
    return found


async def test_after_a_restore_groups_are_told_a_gap(repository: RedisJobRepository, server: Nodes) -> None:
    """The store is an older one, and what they have read of jobs isn't so: they look at those that there are."""
    async with reading(repository) as batches:
        await create(repository, "kept")
        await facts_until(repository, batches)
    backup = {key: await server.read("DUMP", key) for key in await all_keys(server)}
    async with reading(repository) as batches:
        await create(repository, "lost")
        assert [fact.job_id for fact in await facts_until(repository, batches, "lost, too")] == ["lost"]
    await server.read("DEL", *await all_keys(server))
    for key, value in backup.items():
        await server.read("RESTORE", key, 0, value)
    await repository.restored()
    await create(repository, "untold")
    async with aclosing(repository.subscribe("g")) as batches:
        batch = await anext(batches)
        assert (batch.has_gap, batch.facts) == (True, [])
        assert {job.id for job in await repository.list_jobs()} == {"kept", "last", "untold"}
        await batch.acknowledge()
        await create(repository, "told")
        batch = await anext(batches)
        assert (batch.has_gap, [fact.job_id for fact in batch.facts]) == (False, ["told"])


async def test_a_restore_is_noticed_by_who_reads(repository: RedisJobRepository) -> None:
    """It is woken, and told the gap at once."""
    async with reading(repository) as batches:
        await create(repository, "a")
        await facts_until(repository, batches)
        await repository.restored()
        async with asyncio.timeout(30):
            while not (await anext(batches)).has_gap:
                pass


async def test_who_may_only_read_cannot_subscribe(valkey: RealServer, repository: RedisJobRepository) -> None:
    """How far a group has read is written down."""
    async with RedisJobRepository.from_url(valkey.url, access="read") as reader:
        with pytest.raises(ReadOnlyAccessError):
            await anext(reader.subscribe("g"))
    assert await repository.engine.facts.all() == []


async def test_on_the_simulated_server() -> None:
    """It tells what a real one does, and wakes readers."""
    client = fakeredis.FakeAsyncRedis(server=fakeredis.FakeServer(version=(7, 0)))
    async with RedisJobRepository(client) as repository, reading(repository) as batches:
        await repository.create_job(Job(id="a", status="running"))
        await repository.complete_job("a", True, utc_now())
        assert stories_of(await facts_until(repository, batches)) == {"a": await story_in_stream(repository, "a")}
        assert await untold(repository) == []


async def test_a_group_that_is_dropped_ends_its_readers(repository: RedisJobRepository) -> None:
    """They don't make it anew."""
    async with reading(repository) as batches:
        await create(repository, "a")
        await facts_until(repository, batches)
        await repository.engine.facts.drop("g")
        with pytest.raises(GroupDroppedError, match="'g'"):
            await asyncio.wait_for(anext(batches), 30)
    assert await repository.engine.facts.all() == []


async def test_what_cannot_be_subscribed_to(repository: RedisJobRepository) -> None:
    """Names, limits and leases that make no sense are refused at once."""
    with pytest.raises(InvalidIdError):
        repository.subscribe("")
    for limit in (0, 1.5, 10_001):
        with pytest.raises(InvalidArgumentError):
            repository.subscribe("g", limit=limit)  # type: ignore[arg-type]
    for seconds in (0, 601, float("nan")):
        with pytest.raises(InvalidArgumentError):
            repository.subscribe("g", lease_seconds=seconds)


async def test_facts_that_cannot_be_written_refuse_the_change(
    repository: RedisJobRepository, server: Nodes, keys: Keys
) -> None:
    """A key of another type in their place is named by the error, and nothing has changed."""
    await create(repository, "a")
    [claimed] = await claims.claim(repository, "default", "controller", 1, 30.0)
    key = facts_key(keys.tag(0))
    await server.read("SET", key, "text")
    with pytest.raises(StoreFormatError, match="facts"):
        await create(repository, "b")
    with pytest.raises(StoreFormatError, match="facts"):
        await repository.create_job(Job(id="b", status="running"))
    with pytest.raises(StoreFormatError, match="facts"):
        async with ClaimedJob(repository, claimed):
            pass
    assert [job.id for job in await repository.list_jobs()] == ["a"]
    await server.read("SET", groups_key(keys.tag(0)), "text")
    found = await repository.verify(fast=True)
    assert [(one.place, one.found) for one in found] == [(key, "string"), (groups_key(keys.tag(0)), "string")]
    assert await repository.rebuild() == found
    assert await repository.verify() == []
