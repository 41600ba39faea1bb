"""A sealed job is what it was, for every reader, and takes what an ended job takes."""

import os
import random
from collections.abc import Sequence
from contextlib import aclosing
from typing import Any

import fakeredis
import pytest

from ci_common.errors import RepositoryError
from ci_common.models import Job, JobEvent
from ci_eventstore.connection.nodes import Nodes
from ci_eventstore.events.append import append
from ci_eventstore.events.caller import Call
from ci_eventstore.events.codec import encode_logs
from ci_eventstore.events.sealed_log import references_in
from ci_eventstore.following import hub
from ci_eventstore.following.incarnation import StoreIncarnation
from ci_eventstore.following.job_reader import JobReader
from ci_eventstore.history.seal import Sealed
from ci_eventstore.jobs.create import create_waiting, waiting_job
from ci_eventstore.jobs.decide import decide_creation
from ci_eventstore.keys import Keys
from ci_eventstore.projection.jobs import doubtful
from ci_eventstore.repository import RedisJobRepository
from tests.examples import slow
from tests.integration.store.followers import following, next_page
from tests.integration.store.sealing import NOW, ended_job, lines, seal_job
from tests.servers import RealServer
from tests.waiting import wait_until

IS_SOAK = os.environ.get("CI_EVENTSTORE_SOAK") == "1"


async def seen(repository: RedisJobRepository, job_id: str, afters: Sequence[int]) -> list[Any]:
    """Return what readers of the library get, from several places on."""
    found: list[Any] = [await repository.get_job(job_id), await repository.page_jobs()]
    for after in afters:
        found.append(await repository.read_events(job_id, after, 7))
        found.append([event async for event in repository.follow_events(job_id, after)])
        found.append([record async for record in repository.follow_records(job_id, after)])
    found += [await repository.position_of_line(job_id, line) for line in (1, 700, 1500)]
    return found


@pytest.mark.usefixtures("small_segments")
async def test_readers_get_the_same_before_and_after(repository: RedisJobRepository, server: Nodes) -> None:
    """From whatever place, across blocks, segments and what came later; late output is sealed with the rest."""
    await repository.create_job(Job(id="j", status="queued", user_id="ada"))
    await repository.update_job_status("j", "running")
    for start in range(0, 1500, 250):
        await repository.add_events("j", lines(250, start))
    await repository.complete_job("j", False, NOW)
    afters = [0, 1, 63, 64, 500, 1499, 1500, 1501]
    for round_ in range(3):
        before = await seen(repository, "j", afters)
        assert await seal_job(repository) is Sealed.SEALED
        assert not await server.read("EXISTS", Keys("ci").job("j").stream)
        assert await seen(repository, "j", afters) == before
        assert await repository.verify("j", deep=True) == []
        await repository.add_events("j", lines(3, 2000 + round_))
        assert await repository.verify("j", deep=True) == []
    state = await repository.engine.jobs.state("j")
    assert state is not None
    assert len(references_in("j", state.log or "")) > 2


async def test_a_record_is_packed_and_unpacked(repository: RedisJobRepository, server: Nodes) -> None:
    """That of a small sealed job has what scripts need; a write that changes the state puts all back."""
    await repository.create_job(
        Job(id="j", status="failed", user_id="ada", name="build", command=["make"], container_id="c", exit_code=2)
    )
    before = await repository.get_job("j")
    assert await seal_job(repository) is Sealed.SEALED
    key = Keys("ci").job("j").hash
    assert await server.read("HGET", key, "name") is None
    assert await repository.get_job("j") == before
    assert await seal_job(repository) is Sealed.ALREADY
    await repository.complete_job("j", False, NOW)
    assert await server.read("HGET", key, "name") == b"build"
    assert await repository.verify("j", deep=True) == []
    after = await repository.get_job("j")
    assert after is not None
    assert (after.name, after.end_time, after.exit_code) == ("build", NOW, 2)


async def test_what_has_not_ended_is_not_sealed(repository: RedisJobRepository) -> None:
    """Neither a job that runs or waits, nor one that isn't there."""
    await repository.create_job(Job(id="j", status="queued"))
    assert await seal_job(repository) is Sealed.RUNNING
    await repository.update_job_status("j", "running")
    assert await seal_job(repository) is Sealed.RUNNING
    assert await seal_job(repository, "other") is Sealed.MISSING


async def test_a_repeated_write_is_known_after_sealing(
    repository: RedisJobRepository, server: Nodes, keys: Keys
) -> None:
    """Each write whose answer was lost has its effect once, though the job was sealed before it was repeated."""
    job = keys.job("j")
    created, other = (
        waiting_job(decide_creation(Job(id="j", status="queued", user_id="ada", created_at=NOW), [], NOW, token * 8))
        for token in ("ab", "cd")
    )
    assert created is not None
    assert other is not None
    await create_waiting(server, job, created)
    await repository.update_job_status("j", "running")
    batch, calls = encode_logs(lines(3)), [Call("11" * 8), Call("22" * 8)]
    assert await append(server, job, batch, call=calls[0])
    await repository.complete_job("j", True, NOW)
    assert await append(server, job, batch, call=calls[1])
    before = await repository.get_job("j")
    for _ in range(2):
        assert await seal_job(repository) in (Sealed.SEALED, Sealed.ALREADY)
        await create_waiting(server, job, created)
        for call in calls:
            assert await append(server, job, batch, call=call)
        assert await repository.get_job("j") == before
    with pytest.raises(RepositoryError, match="already"):
        await create_waiting(server, job, other)


async def test_a_follower_goes_on_over_the_sealing(repository: RedisJobRepository) -> None:
    """One that is in the middle of the log when that is sealed reads on, without a reset."""
    await ended_job(repository, count=1200)
    follower = await repository.follow("j", 3)
    try:
        page = await follower.read()
        assert await seal_job(repository) is Sealed.SEALED
        records = list(page.records)
        while not page.is_last:
            page = await follower.read()
            records += page.records
    finally:
        follower.close()
    events = [record for record in records if isinstance(record, JobEvent)]
    assert [event.id for event in events] == list(range(4, 1202))


async def test_looks_at_a_sealed_job_find_nothing_new(
    repository: RedisJobRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its packed record doesn't say itself where the log ends; should it do so, that it goes on is found."""
    monkeypatch.setattr(hub, "WATCH_SECONDS", 0.01)
    await repository.create_job(Job(id="j", status="running"))
    await repository.add_events("j", lines(3))
    looks, starts, look, start = 0, 0, StoreIncarnation.read, JobReader.start

    async def counted_look(self: StoreIncarnation) -> str | None:
        nonlocal looks
        looks += 1
        return await look(self)

    def counted_start(self: JobReader) -> None:
        nonlocal starts
        starts += 1
        start(self)

    monkeypatch.setattr(StoreIncarnation, "read", counted_look)
    monkeypatch.setattr(JobReader, "start", counted_start)
    async with following(repository) as follower:
        assert await next_page(follower) == ["created", 1, 2, 3]
        await repository.complete_job("j", True, NOW)
        await wait_until(lambda: looks > 3)
        assert await seal_job(repository) is Sealed.SEALED
        looks = 0
        await wait_until(lambda: looks > 3)
        looks, before = 0, starts
        await wait_until(lambda: looks > 3)
        assert starts == before
        await repository.engine.nodes.read("HSET", repository.engine.keys.job("j").hash, "position", 99, "part", 0)
        await wait_until(lambda: starts > before)
        await repository.rebuild("j")


async def test_sealing_is_told(repository: RedisJobRepository) -> None:
    """Once for each time, with the status of the end; not by a sealer that comes second."""
    async with aclosing(repository.subscribe("test")) as batches:
        told = list[tuple[str, str]]()
        await (await anext(batches)).acknowledge()
        await ended_job(repository)
        assert [await seal_job(repository) for _ in range(2)] == [Sealed.SEALED, Sealed.ALREADY]
        await repository.create_job(Job(id="last", status="queued"))
        while ("CREATED", "queued") not in told:
            batch = await anext(batches)
            told += [(fact.kind.name, fact.status.value) for fact in batch.facts]
            await batch.acknowledge()
    assert told[1:] == [("ENDED", "completed"), ("SEALED", "completed"), ("CREATED", "queued")]


async def test_many_sealed_jobs_are_verified_together(
    repository: RedisJobRepository, server: Nodes, keys: Keys
) -> None:
    """A small sealed job needs no look of its own, unless something is wrong with it or came later."""
    jobs = [keys.job(f"j{number}") for number in range(5)]
    for job in jobs:
        await ended_job(repository, job.job_id)
        await seal_job(repository, job.job_id)
    assert await doubtful(server, repository.engine.reader.source, jobs) == []
    await repository.add_event("j0", JobEvent("log", "late\n"))
    await server.read("ZADD", jobs[1].unsealed, 1, "j1")
    await server.read("HSET", jobs[2].hash, "lines", 29)
    assert await doubtful(server, repository.engine.reader.source, jobs) == jobs[:3]
    found = {difference.subject for difference in await repository.verify()}
    assert found == {"job j1", "job j2"}
    await repository.rebuild()


async def test_a_simulated_server_seals_too() -> None:
    """Whoever tests with `fakeredis` has sealed jobs there."""
    client = fakeredis.FakeAsyncRedis(server=fakeredis.FakeServer(version=(7, 0)))
    async with RedisJobRepository(client) as repository:
        await ended_job(repository)
        before = await seen(repository, "j", [0, 3])
        assert await seal_job(repository) is Sealed.SEALED
        assert await seen(repository, "j", [0, 3]) == before
        await repository.add_event("j", JobEvent("log", "late\n"))
        assert await seal_job(repository) is Sealed.SEALED
        assert len(await repository.get_events_since("j", 0)) == 32
        assert await repository.verify(deep=True) == []


async def test_who_may_only_read_reads_sealed_jobs(repository: RedisJobRepository, valkey: RealServer) -> None:
    """With no right to write anything."""
    await ended_job(repository)
    before = await seen(repository, "j", [0, 3])
    assert await seal_job(repository) is Sealed.SEALED
    async with RedisJobRepository.from_url(valkey.url, access="read") as reader:
        assert await seen(reader, "j", [0, 3]) == before


@pytest.mark.usefixtures("small_segments")
@pytest.mark.parametrize("resumes", [100, slow(20_000 if IS_SOAK else 5000)])
async def test_a_reader_resumes_anywhere(repository: RedisJobRepository, seed: int, resumes: int) -> None:
    """Across blocks, segments and late output: none is missed and none comes twice. The many take half a minute."""
    choose = random.Random(seed)
    await ended_job(repository, count=900)
    assert await seal_job(repository) is Sealed.SEALED
    await repository.add_events("j", lines(40, 5000))
    assert await seal_job(repository) is Sealed.SEALED
    await repository.add_events("j", lines(40, 6000))
    events = await repository.get_events_since("j", 0)
    assert [event.id for event in events] == list(range(1, 982))
    for _ in range(resumes):
        after, limit = choose.randrange(982), choose.randrange(1, 50)
        assert await repository.read_events("j", after, limit) == events[after : after + limit]
