"""Sealing loses nothing and doubles nothing: under late output, stopped anywhere, by two, with damage."""

import asyncio
import random
import time
from collections import Counter
from typing import Any

import pytest

from ci_common.errors import RepositoryError
from ci_common.models import JobEvent
from ci_eventstore.connection.nodes import Nodes
from ci_eventstore.errors import StoreFormatError
from ci_eventstore.events.records import Place
from ci_eventstore.events.sealed_log import references_in
from ci_eventstore.history import seal as sealing
from ci_eventstore.history import sealer as sealers
from ci_eventstore.history.seal import Sealed
from ci_eventstore.history.sealer import Sealer
from ci_eventstore.keys import JobKeys, Keys, segment_key, sweeper_key, unsealable_key
from ci_eventstore.repository import RedisJobRepository
from tests.acceptance.command_line import PROGRAM
from tests.cancelling import Counted, Steps
from tests.integration.store.sealing import NOW, ended_job, seal_job
from tests.servers import RealServer
from tests.waiting import wait_until


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


Entry = tuple[bytes, list[bytes]]


async def without_first_entry(server: Nodes, job: JobKeys) -> Entry:
    """Take the first event out of a job's log, so that it can't be sealed, and return it."""
    [entry] = await server.read("XRANGE", job.stream, "1-0", "1-0")
    await server.read("XDEL", job.stream, "1-0")
    return entry  # type: ignore[no-any-return]


async def put_back(server: Nodes, job: JobKeys, entry: Entry) -> None:
    """Have the log as it was: no entry goes in before others."""
    entries = await server.read("XRANGE", job.stream, "-", "+")
    await server.read("DEL", job.stream)
    for stream_id, (_, payload) in sorted([*entries, entry], key=lambda one: Place.parse(one[0])):
        await server.read("XADD", job.stream, stream_id, "e", payload)


async def test_jobs_that_can_not_be_sealed_stop_nothing(
    repository: RedisJobRepository, server: Nodes, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A whole page and more are named and left alone for a while; the others are sealed; so are they, once mended."""
    monkeypatch.setattr(sealers, "PAGE_JOBS", 3)
    for number in range(12):
        await ended_job(repository, f"j{number:02}", 2)
    left = ["j00", "j03", "j04", "j05", "j06", "j11"]
    entries = {job_id: await without_first_entry(server, keys.job(job_id)) for job_id in left}
    engine = repository.engine
    sealer = Sealer(engine.nodes, engine.reader.source, engine.keys)
    sweep = await sealer.sweep(0)
    assert (sweep.done, sorted(sweep.left), sweep.busy) == (6, left, 0)
    assert all("missing" in why for why in sweep.left.values())
    await ended_job(repository, "another", 2)
    sweep = await sealer.sweep(0)
    assert (sweep.done, sorted(sweep.left)) == (1, left)
    for job_id, entry in entries.items():
        job = keys.job(job_id)
        note = (await server.read("HGET", unsealable_key(job.tag), job_id)).decode()
        assert note.startswith("1 ")
        await put_back(server, job, entry)
        await server.read("HDEL", unsealable_key(job.tag), job_id)
    sweep = await sealer.sweep(0)
    assert (sweep.done, sweep.left) == (6, {})


async def test_a_partition_is_swept_by_one(repository: RedisJobRepository, server: Nodes) -> None:
    """Another process's partition is left to it; jobs that were written to lately aren't due."""
    await ended_job(repository)
    engine = repository.engine
    sealer = Sealer(engine.nodes, engine.reader.source, engine.keys)
    await server.read("SET", "{ci:0}:sealer", "somebody")
    assert (await sealer.sweep(0)).busy == 1
    await server.read("DEL", "{ci:0}:sealer")
    assert (await sealer.sweep(3600)).done == 0
    assert (await sealer.sweep(0)).done == 1
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


@pytest.mark.slow
async def test_sealers_are_killed_again_and_again(own: RealServer, seed: int) -> None:
    """Slow, as it starts many processes: whatever a sealer was doing, with late output all the time, all is there."""
    choose, jobs, written = random.Random(seed), [f"j{number}" for number in range(30)], Counter[str]()
    command = [str(PROGRAM), "--url", own.url, "seal", "--after", "0s"]
    async with RedisJobRepository.from_url(own.url) as repository:
        for job_id in jobs:
            await ended_job(repository, job_id, choose.randrange(1, 400))
        before = {job_id: await repository.get_events_since(job_id, 0) for job_id in jobs}
        for number in range(40):
            states = [await repository.engine.jobs.state(job_id) for job_id in jobs]
            # On a busy machine a sealer is killed before it has begun.
            if number >= 12 and any(state is not None and state.log is not None for state in states):
                break
            sealers = [await asyncio.create_subprocess_exec(*command) for _ in range(2)]
            ends_at = time.monotonic() + 0.9 + choose.random() + max(0, number - 11) / 4
            while time.monotonic() < ends_at:
                job_id = choose.choice(jobs)
                await repository.add_event(job_id, JobEvent("log", f"late {written[job_id]}\n"))
                written[job_id] += 1
                assert len(await repository.get_events_since(job_id, 0)) == len(before[job_id]) + written[job_id]
            for sealer in sealers:
                sealer.kill()
                await sealer.wait()
            # Or the next ones would wait for its lease to run out.
            await repository.engine.nodes.read("DEL", sweeper_key("{ci:0}", "sealer"))
        else:
            pytest.fail("no sealer has sealed anything")
        for job_id in jobs:
            assert await seal_job(repository, job_id) in (Sealed.SEALED, Sealed.ALREADY)
            events = await repository.get_events_since(job_id, 0)
            assert events[: len(before[job_id])] == before[job_id]
            late = [event.data for event in events[len(before[job_id]) :]]
            assert late == [f"late {number}\n" for number in range(written[job_id])]
        assert await repository.verify(deep=True) == []
