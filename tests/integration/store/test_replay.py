"""Replays and past states agree with what was written: at any cut, sealed or not, with facts, cancelled, in pages."""

import asyncio
import os
import random
import resource
from contextlib import aclosing
from datetime import UTC, datetime, timedelta

import pytest

from ci_common.errors import InvalidArgumentError, InvalidPositionError, JobGoneError, JobNotFoundError
from ci_common.models import Job, JobEvent, JobStatus
from ci_eventstore.connection.nodes import Nodes
from ci_eventstore.errors import StreamDamagedError
from ci_eventstore.events.records import Place, Record
from ci_eventstore.history.sealer import Sealer
from ci_eventstore.jobs.evolve import evolve_all
from ci_eventstore.jobs.state import to_job
from ci_eventstore.keys import Keys
from ci_eventstore.replay.replay import History, Point
from ci_eventstore.repository import RedisJobRepository
from tests.records import records_of

#: Long ago, so that what a test does is later.
NOON = datetime(2020, 11, 26, 12, tzinfo=UTC)


def line(number: int, seconds: float | None = None) -> JobEvent:
    """Return a log event, by itself so many seconds after noon."""
    return JobEvent("log", f"{number}\n", timestamp=NOON + timedelta(seconds=number if seconds is None else seconds))


async def lived(repository: RedisJobRepository, lines: int = 5) -> list[Record]:
    """Make a job that waited, ran and was cancelled, then got late output; return its records."""
    await repository.create_job(Job(id="j", status="queued", created_at=NOON, user_id="ada"))
    await repository.update_job_status("j", "running", NOON)
    await repository.add_events("j", [line(number) for number in range(1, lines + 1)])
    await repository.cancel_job("j")
    await repository.add_event("j", line(lines + 1))
    return [record for _, record in await all_records(repository)]


async def all_records(repository: RedisJobRepository) -> list[tuple[Place, Record]]:
    """Return all that the job's log holds."""
    return await records_of(repository.engine.reader.source, repository.engine.keys.job("j"))


async def seal_all(repository: RedisJobRepository) -> None:
    """Seal what has ended."""
    engine = repository.engine
    assert (await Sealer(engine.nodes, engine.reader.source, engine.keys).sweep(0)).done == 1


async def replayed(
    repository: RedisJobRepository, since: Point | None = None, until: Point | None = None, *, facts: bool = True
) -> list[Record]:
    """Return what a replay at once yields."""
    return [record async for record in repository.replay("j", None, since, until, facts=facts)]


async def test_a_replay_is_what_happened(repository: RedisJobRepository) -> None:
    """All events with their ids, facts only if they are asked for, at once or at any pace; sealed as well."""
    records = await lived(repository)
    events = [record for record in records if isinstance(record, JobEvent)]
    for _ in range(2):
        assert await replayed(repository) == records
        found = [record async for record in repository.replay("j", 1e9)]
        assert found == events
        assert [event.id for event in found if isinstance(event, JobEvent)] == [*range(1, len(events) + 1)]
        state = await repository.engine.jobs.state("j")
        assert state is not None
        if state.log is None:
            await seal_all(repository)
            await repository.add_event("j", line(9))
            events.append(line(9))
            records.append(line(9))


async def test_positions_bound_a_replay(repository: RedisJobRepository) -> None:
    """Both are included, an event's position with the facts after it."""
    await lived(repository)
    records, end = await all_records(repository), 8
    for sealed in (False, True):
        for since in range(end + 2):
            for until in range(end + 2):
                expected = [record for place, record in records if since <= place.position <= until]
                assert await replayed(repository, since, until) == expected, (sealed, since, until)
        if not sealed:
            await seal_all(repository)
    with pytest.raises(StreamDamagedError):
        await replayed(repository, end + 2)


async def test_times_bound_a_replay_where_they_jump(repository: RedisJobRepository) -> None:
    """From the first record at a time or after it, to the one before the first that is later; naive times are UTC."""
    events = [line(n, seconds) for n, seconds in enumerate([1, 5, 2, 3, 9, 4], 1)]
    events.append(JobEvent("log", "naive\n", timestamp=NOON.replace(tzinfo=None) + timedelta(seconds=10)))
    await repository.create_job(Job(id="j", status="running", created_at=NOON, events=events))
    for since, until, ids in (
        (0, 99, [1, 2, 3, 4, 5, 6, 7]),
        (0, 0, []),
        (0, 4, [1]),
        (0, 5, [1, 2, 3, 4]),
        (2, 5, [2, 3, 4]),
        (5, 9, [2, 3, 4, 5, 6]),
        (10, 10, [7]),
        (6, 5, []),
        (11, 99, []),
    ):
        bounds = [NOON + timedelta(seconds=bound) for bound in (since, until)]
        found = await replayed(repository, *bounds, facts=False)
        assert [record.id for record in found if isinstance(record, JobEvent)] == ids, (since, until)
    naive = (NOON + timedelta(seconds=10)).replace(tzinfo=None)
    assert await replayed(repository, naive) == events[-1:]


async def test_a_job_is_as_it_was(repository: RedisJobRepository) -> None:
    """At each position, and at each time, as the fold of the records up to there; sealed as well."""
    await lived(repository)
    records = await all_records(repository)
    for sealed in (False, True):
        for position in range(9):
            known = [record for place, record in records if place.position <= position]
            assert await repository.job_at("j", position) == to_job("j", evolve_all(None, known)), (sealed, position)
        assert await repository.job_at("j", datetime.now(UTC)) == await repository.get_job_summary("j")
        assert await repository.job_at("j", NOON - timedelta(seconds=1)) is None
        first = await repository.job_at("j", NOON)
        assert first is not None
        assert (first.status, first.user_id) == (JobStatus.QUEUED, "ada")
        if not sealed:
            await seal_all(repository)
    with pytest.raises(StreamDamagedError):
        await repository.job_at("j", 9)


@pytest.mark.parametrize("point", [-1, "7", 1.5, None])
async def test_what_is_no_point_is_refused(repository: RedisJobRepository, point: Point) -> None:
    """Before anything is read; an unknown job is an error of its own."""
    with pytest.raises((InvalidArgumentError, InvalidPositionError)):
        await repository.job_at("j", point)
    with pytest.raises(JobNotFoundError):
        await repository.job_at("j", 0)
    with pytest.raises(JobNotFoundError):
        await replayed(repository)


async def test_a_running_job_is_replayed_up_to_where_it_stands(repository: RedisJobRepository) -> None:
    """What comes while it is replayed isn't part of it."""
    await repository.create_job(Job(id="j", status="running", events=[line(1), line(2)]))
    found = []
    async for record in repository.replay("j"):
        found.append(record)
        await repository.add_event("j", line(9))
    assert found == [line(1), line(2)]


async def test_a_replay_keeps_its_pace_and_can_be_cancelled(repository: RedisJobRepository) -> None:
    """The second event is an hour later: it comes to nobody who doesn't wait, and cancelling ends the waiting."""
    await repository.create_job(Job(id="j", status="running", events=[line(1), line(2, 3601)]))
    first = asyncio.Event()

    async def play() -> None:
        async for _ in repository.replay("j", 1, longest_gap_seconds=None):
            assert not first.is_set()
            first.set()

    playing = asyncio.create_task(play())
    await asyncio.wait_for(first.wait(), 20)
    playing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await playing
    assert len([record async for record in repository.replay("j", 1, longest_gap_seconds=0)]) == 2


async def test_a_replay_is_closed_early(repository: RedisJobRepository) -> None:
    """Whoever has enough closes it; the repository goes on."""
    await lived(repository, 30)
    async with aclosing(repository.replay("j")) as records:
        async for _ in records:
            break
    assert len(await replayed(repository)) > 30


async def test_another_log_in_its_place_is_an_error(
    repository: RedisJobRepository, server: Nodes, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Empty is never the end: an entry that is missing, changed, or gone with its job ends a replay with an error."""
    monkeypatch.setattr("ci_eventstore.replay.replay.Extent.page_entries", lambda _: 10)
    monkeypatch.setattr("ci_eventstore.replay.replay.next_page_entries", lambda *_: 10)
    await repository.create_job(Job(id="j", status="running", events=[line(n) for n in range(1, 51)]))
    history = await History.of(repository.engine.reader, keys.job("j"))
    await server.read("COPY", keys.job("j").stream, "kept")
    for entry in ("30-0", "50-0"):
        await server.read("XDEL", keys.job("j").stream, entry)
        with pytest.raises(StreamDamagedError):
            assert [place async for place, _ in history.records()]
        await server.read("COPY", "kept", keys.job("j").stream, "REPLACE")
    records = history.records()
    assert (await anext(records))[0] == Place(0, 1)
    await server.read("DEL", keys.job("j").stream)
    with pytest.raises(StreamDamagedError):
        assert [place async for place, _ in records]
    await server.read("COPY", "kept", keys.job("j").stream)
    records = history.records()
    assert (await anext(records))[0] == Place(0, 1)
    await server.read("DEL", keys.job("j").stream, keys.job("j").hash)
    with pytest.raises(JobNotFoundError):
        assert [place async for place, _ in records]
    await server.read("FLUSHALL")


async def test_a_job_that_is_deleted_meanwhile_is_gone(
    repository: RedisJobRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A replay of it ends with that error, live or sealed; what was yielded before was so."""
    monkeypatch.setattr("ci_eventstore.replay.replay.next_page_entries", lambda *_: 2)
    for sealed in (False, True):
        job_id = f"j{sealed:d}"
        await repository.create_job(Job(id=job_id, status="running", events=[line(n) for n in range(1, 100)]))
        await repository.complete_job(job_id, True, NOON)
        if sealed:
            await seal_all(repository)
        history = await History.of(repository.engine.reader, repository.engine.keys.job(job_id))
        with monkeypatch.context() as patch:
            patch.setattr("ci_eventstore.replay.replay.Extent.page_entries", lambda _: 2)
            records = history.records()
            assert (await anext(records))[0] == Place(0, 1)
        await repository.delete_job(job_id)
        with pytest.raises(JobGoneError):
            assert [place async for place, _ in records]


async def test_pages_are_the_same_as_all_at_once(
    repository: RedisJobRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many entries a page has, also where its end is between facts."""
    records = await lived(repository)
    for sealed in (False, True):
        for size in range(1, 6):
            with monkeypatch.context() as patch:
                patch.setattr("ci_eventstore.replay.replay.Extent.page_entries", lambda *_, n=size: n)
                patch.setattr("ci_eventstore.replay.replay.next_page_entries", lambda *_, n=size: n)
                assert await replayed(repository) == records, (sealed, size)
        if not sealed:
            await seal_all(repository)


@pytest.mark.slow  # It writes and reads very many lines.
@pytest.mark.timeout(600)
async def test_a_long_log_is_replayed_in_constant_memory(repository: RedisJobRepository) -> None:
    """Live and sealed; the state at a random position has its lines. `make soak` takes a million lines."""
    lines = 1_000_000 if os.environ.get("CI_EVENTSTORE_SOAK") == "1" else 300_000
    await repository.create_job(Job(id="j", status="running"))
    for start in range(1, lines + 1, 10_000):
        await repository.add_events("j", [line(n) for n in range(start, start + 10_000)])
    await repository.complete_job("j", True, NOON)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    position = random.Random(7).randrange(1, lines)
    for sealed in (False, True):
        count = 0
        async for record in repository.replay("j"):
            count += 1
            assert isinstance(record, JobEvent)
            assert record.type == "complete" or record.data == f"{count}\n"
        assert count == lines + 1
        state = await (await History.of(repository.engine.reader, repository.engine.keys.job("j"))).state(position)
        assert state is not None
        assert state.lines == position
        # In KiB on Linux.
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 1024, sealed
        if not sealed:
            await seal_all(repository)
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
