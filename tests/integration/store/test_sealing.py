"""Sealing loses nothing and doubles nothing: at any cut, under late output, stopped anywhere, by two, with damage."""

import asyncio
import random
from collections.abc import Sequence
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from ci_common.errors import RepositoryError
from ci_common.models import Job, JobEvent
from ci_eventstore.connection.nodes import Nodes
from ci_eventstore.errors import StoreFormatError
from ci_eventstore.events.append import append
from ci_eventstore.events.caller import Call
from ci_eventstore.events.codec import encode_logs
from ci_eventstore.events.records import Place
from ci_eventstore.events.sealed_log import references_in
from ci_eventstore.history import seal as sealing
from ci_eventstore.history.seal import Sealed, seal
from ci_eventstore.history.sealer import Sealer
from ci_eventstore.jobs.create import create_waiting, waiting_job
from ci_eventstore.jobs.decide import decide_creation
from ci_eventstore.keys import Keys, segment_key, unsealable_key
from ci_eventstore.repository import RedisJobRepository
from ci_eventstore.segments import segment as segments
from tests.cancelling import Counted, Steps
from tests.waiting import wait_until

NOW = datetime(2026, 11, 26, tzinfo=UTC)


def lines(count: int, start: int = 0) -> list[JobEvent]:
    """Return log events with times of their own, not all in ASCII."""
    return [
        JobEvent("log", f"line {start + n} ü\n", timestamp=NOW + timedelta(milliseconds=start + n))
        for n in range(count)
    ]


async def seal_job(repository: RedisJobRepository, job_id: str = "j") -> Sealed:
    """Seal a job as a sweep does."""
    engine = repository.engine
    return await seal(engine.nodes, engine.reader.source, engine.keys, job_id)


async def ended_job(repository: RedisJobRepository, job_id: str = "j", count: int = 30) -> None:
    """Create a job, write to its log, and end it."""
    await repository.create_job(Job(id=job_id, status="running", user_id="ada", name="build", command=["make"]))
    await repository.add_events(job_id, lines(count))
    await repository.complete_job(job_id, True, NOW + timedelta(hours=1))


async def seen(repository: RedisJobRepository, job_id: str, afters: Sequence[int]) -> list[Any]:
    """Return what readers of the library get, from several places on."""
    found: list[Any] = [await repository.get_job(job_id), await repository.page_jobs()]
    for after in afters:
        found.append(await repository.read_events(job_id, after, 7))
        found.append([event async for event in repository.follow_events(job_id, after)])
        found.append([record async for record in repository.follow_records(job_id, after)])
    found += [await repository.position_of_line(job_id, line) for line in (1, 700, 1500)]
    return found


@pytest.fixture
def small_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    """Logs of a thousand lines take several blocks and segments."""
    monkeypatch.setattr(segments, "BLOCK_BYTES", 2000)
    monkeypatch.setattr(segments, "SEGMENT_BYTES", 3000)
    monkeypatch.setattr(sealing, "PAGE_BYTES", 2000)
    monkeypatch.setattr(sealing, "JOINED_BYTES", 2000)


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


@pytest.mark.usefixtures("small_segments")
async def test_late_output_meets_two_sealers(repository: RedisJobRepository, seed: int) -> None:
    """While a writer goes on, two seal as often as they can, and a reader begins at any place: each event, once."""
    choose, count, done = random.Random(seed), 120, 0
    await ended_job(repository, count=300)
    is_over = False

    async def write() -> None:
        nonlocal is_over
        for number in range(count):
            await repository.add_event("j", JobEvent("log", f"late {number}\n", timestamp=NOW))
            if number % 10 == 9:
                wanted = number // 10
                await wait_until(lambda wanted=wanted: done > wanted)  # type: ignore[misc]
        is_over = True

    async def seal_again_and_again() -> None:
        nonlocal done
        while not is_over:
            is_sealed = await seal_job(repository) is Sealed.SEALED
            done += is_sealed

    async def read() -> None:
        while not is_over:
            after = choose.randrange(420)
            events = await repository.get_events_since("j", after)
            assert [event.id for event in events] == list(range(after + 1, after + 1 + len(events)))
            assert len(events) + after >= 301 or after > 301

    await asyncio.gather(write(), seal_again_and_again(), seal_again_and_again(), read())
    assert done >= count // 10
    events = await repository.get_events_since("j", 301)
    assert [event.data for event in events] == [f"late {number}\n" for number in range(count)]
    assert await seal_job(repository) in (Sealed.SEALED, Sealed.ALREADY)
    assert await repository.get_events_since("j", 301) == events
    assert await repository.verify("j", deep=True) == []


async def test_a_sealer_may_stop_anywhere(repository: RedisJobRepository) -> None:
    """Cancelled at any await, as if it had been killed there, it leaves a job that reads as before."""
    at = 0
    while True:
        at += 1
        job_id = f"j{at}"
        await ended_job(repository, job_id, 5)
        before = await repository.get_job(job_id)
        steps = Steps(at, 1)

        async def work(job_id: str = job_id) -> None:
            await seal_job(repository, job_id)

        steps.victim = task = asyncio.create_task(Counted(work(), steps))
        await asyncio.gather(task, return_exceptions=True)
        assert await repository.get_job(job_id) == before
        assert await repository.verify(job_id) == []
        await repository.add_event(job_id, JobEvent("log", "late\n"))
        assert await seal_job(repository, job_id) is Sealed.SEALED
        assert len(await repository.get_events_since(job_id, 0)) == 7
        if not steps.was_reached:
            break
    assert at > 3


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


async def use_everything(repository: RedisJobRepository) -> list[RepositoryError]:
    """Read a job in every way, and return the errors; a way that shows less than everything fails the test."""
    errors = list[RepositoryError]()
    for read in (
        lambda: repository.get_job("j"),
        lambda: repository.get_events_since("j", 0),
        lambda: repository.read_events("j", 0, 5),
        lambda: _all(repository.follow_events("j", 0)),
        lambda: _all(repository.follow_records("j", 0)),
    ):
        repository.engine.reader.source.sealed.forget()
        try:
            assert await read()
        except RepositoryError as error:
            errors.append(error)
    return errors


async def _all(found: Any) -> list[Any]:
    return [one async for one in found]


async def test_damage_is_named_and_never_an_empty_log(
    repository: RedisJobRepository, server: Nodes, keys: Keys, seed: int
) -> None:
    """A flipped byte, a segment cut short, another's in its place or none: an error that names it, from each reader."""
    await ended_job(repository)
    await ended_job(repository, "other", 31)
    assert await seal_job(repository) is await seal_job(repository, "other") is Sealed.SEALED
    state, other = await repository.engine.jobs.state("j"), await repository.engine.jobs.state("other")
    assert state is not None
    assert other is not None
    [reference], [of_other] = references_in("j", state.log or ""), references_in("other", other.log or "")
    key = segment_key(keys.job("j"), reference.name)
    data = await server.read("GET", key)
    choose = random.Random(seed)
    damaged = [data[:place] + bytes([data[place] ^ 1 << choose.randrange(8)]) + data[place + 1 :] for place in
               choose.sample(range(len(data)), 20)]  # fmt: skip
    damaged += [data[:-1], await server.read("GET", segment_key(keys.job("other"), of_other.name)), None]
    for one in damaged:
        await server.read("DEL", key)
        if one is not None:
            await server.read("SET", key, one)
        errors = await use_everything(repository)
        assert len(errors) == 5
        assert all(isinstance(error, StoreFormatError) and reference.name in str(error) for error in errors)
        assert reference.name in str((await repository.verify("j", deep=True))[0])
        assert [job.id for job in await repository.page_jobs()] == ["other"]
    await server.read("SET", key, data)
    assert await use_everything(repository) == []


async def test_one_job_that_can_not_be_sealed_stops_nothing(
    repository: RedisJobRepository, server: Nodes, keys: Keys
) -> None:
    """It is named and left alone for a while; the others are sealed; once it is mended and due, so is it."""
    for number in range(12):
        await ended_job(repository, f"j{number:02}", 2)
    poisoned = keys.job("j03")
    [entry] = await server.read("XRANGE", poisoned.stream, "1-0", "1-0")
    await server.read("XDEL", poisoned.stream, "1-0")
    engine = repository.engine
    sealer = Sealer(engine.nodes, engine.reader.source, engine.keys)
    sweep = await sealer.sweep(0)
    assert (sweep.sealed, list(sweep.left), sweep.busy) == (11, ["j03"], 0)
    assert "missing" in sweep.left["j03"]
    await ended_job(repository, "another", 2)
    sweep = await sealer.sweep(0)
    assert (sweep.sealed, list(sweep.left)) == (1, ["j03"])
    note = (await server.read("HGET", unsealable_key(poisoned.tag), "j03")).decode()
    assert note.startswith("1 ")
    # Put back as it was: no entry goes in before others.
    entries = await server.read("XRANGE", poisoned.stream, "-", "+")
    await server.read("DEL", poisoned.stream)
    for stream_id, (_, payload) in sorted([*entries, entry], key=lambda one: Place.parse(one[0])):
        await server.read("XADD", poisoned.stream, stream_id, "e", payload)
    await server.read("HDEL", unsealable_key(poisoned.tag), "j03")
    sweep = await sealer.sweep(0)
    assert (sweep.sealed, sweep.left) == (1, {})


async def test_a_partition_is_swept_by_one(repository: RedisJobRepository, server: Nodes) -> None:
    """Another process's partition is left to it; jobs that were written to lately aren't due."""
    await ended_job(repository)
    engine = repository.engine
    sealer = Sealer(engine.nodes, engine.reader.source, engine.keys)
    await server.read("SET", "{ci:0}:sealer", "somebody")
    assert (await sealer.sweep(0)).busy == 1
    await server.read("DEL", "{ci:0}:sealer")
    assert (await sealer.sweep(3600)).sealed == 0
    assert (await sealer.sweep(0)).sealed == 1
    assert await server.read("EXISTS", "{ci:0}:sealer", "{ci:0}:unsealed") == 0


async def test_a_lost_record_is_rebuilt_from_segments(
    repository: RedisJobRepository, server: Nodes, keys: Keys
) -> None:
    """Of a job that was sealed, with late output and without; whatever the id has."""
    for job_id in ("j", "a?[x]*b:c"):
        await ended_job(repository, job_id)
        assert await seal_job(repository, job_id) is Sealed.SEALED
    await repository.add_event("j", JobEvent("log", "late\n"))
    before = [await repository.get_job(job_id) for job_id in ("j", "a?[x]*b:c")]
    for job_id in ("j", "a?[x]*b:c"):
        await server.read("DEL", keys.job(job_id).hash)
    assert await repository.verify() != []
    await repository.rebuild()
    assert [await repository.get_job(job_id) for job_id in ("j", "a?[x]*b:c")] == before
    assert await repository.verify(deep=True) == []


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


async def test_a_record_that_differs_from_its_log_is_not_sealed(
    repository: RedisJobRepository, server: Nodes, keys: Keys
) -> None:
    """A segment would hide what `rebuild` can mend."""
    await ended_job(repository)
    await server.read("HSET", keys.job("j").hash, "name", "another")
    with pytest.raises(StoreFormatError, match="another"):
        await seal_job(repository)
    await repository.rebuild("j")
    assert await seal_job(repository) is Sealed.SEALED


async def test_staged_segments_expire(repository: RedisJobRepository, server: Nodes, keys: Keys) -> None:
    """What no record refers to goes by itself; what one refers to stays."""
    await ended_job(repository)
    await repository.engine.nodes.read("SET", segment_key(keys.job("j"), "1-0"), "x", "PX", sealing.STAGED_MS)
    assert await seal_job(repository) is Sealed.SEALED
    state = await repository.engine.jobs.state("j")
    assert state is not None
    [reference] = references_in("j", state.log or "")
    assert await server.read("TTL", segment_key(keys.job("j"), reference.name)) == -1
    assert await server.read("TTL", segment_key(keys.job("j"), "1-0")) > 0


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
