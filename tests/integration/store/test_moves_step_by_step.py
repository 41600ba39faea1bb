"""Sealing, archiving and bringing back, stopped or held at each of their steps: no line is lost, none comes twice."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

import pytest

from ci_common.models import Job, JobEvent
from ci_eventstore.history.archiving import Moved
from ci_eventstore.history.seal import Sealed
from ci_eventstore.repository import RedisJobRepository
from tests.cancelling import Counted, Steps, held
from tests.examples import slow
from tests.integration.store.sealing import NOW, ended_job, lines, seal_job
from tests.integration.store.test_archiving import archive, unarchive
from tests.servers import RealServer

Move = Callable[[RedisJobRepository, Path, str], Awaitable[object]]


async def seal(repository: RedisJobRepository, folder: Path, job_id: str) -> Sealed:
    """Seal a job."""
    return await seal_job(repository, job_id)


async def bring_back(repository: RedisJobRepository, folder: Path, job_id: str) -> Moved:
    """Have its segments in the store again."""
    return await unarchive(repository, job_id)


async def write(repository: RedisJobRepository, folder: Path, job_id: str) -> None:
    """Have some of its log not be sealed."""
    await repository.add_events(job_id, lines(2, 1000))


#: What is done before each move, and the move.
MOVES: dict[str, list[Move]] = {
    "seal": [seal],
    "seal again": [seal, write, seal],
    "archive": [seal, archive],
    "archive again": [seal, archive, write, seal, archive],
    "bring back": [seal, archive, bring_back],
    "seal what is archived": [seal, archive, write, seal],
}


@pytest.mark.parametrize("back", [False, True], ids=["there", "back"])
async def test_it_may_stop_anywhere(repository: RedisJobRepository, tmp_path: Path, back: bool) -> None:
    """Cancelled at any await, as if it had been killed there, it leaves a job that reads as before."""
    at = 0
    while True:
        at += 1
        job_id = f"j{at}"
        await ended_job(repository, job_id, 5)
        assert await seal_job(repository, job_id) is Sealed.SEALED
        if back:
            assert await archive(repository, tmp_path, job_id) is Moved.MOVED
        before = await repository.get_job(job_id)
        steps = Steps(at, 1)

        async def work(job_id: str = job_id) -> None:
            await (unarchive(repository, job_id) if back else archive(repository, tmp_path, job_id))

        steps.victim = task = asyncio.create_task(Counted(work(), steps))
        await asyncio.gather(task, return_exceptions=True)
        repository.engine.reader.source.sealed.forget()
        assert await repository.get_job(job_id) == before
        assert await repository.verify(job_id, deep=True) == []
        await work()
        assert await (unarchive(repository, job_id) if back else archive(repository, tmp_path, job_id)) is Moved.ALREADY
        assert await repository.get_job(job_id) == before
        if not steps.was_reached:
            break
    assert at > 5


#: Of a job whose record is packed in pieces where its log is archived, and of one that is too long for that.
SHORT, LONG = ["make"], ["x" * 300]


@pytest.mark.parametrize(
    ("name", "command", "stride"),
    [
        pytest.param("seal", SHORT, 3, id="some, seal"),
        pytest.param("archive", SHORT, 5, id="some, archive"),
        pytest.param("bring back", SHORT, 3, id="some, bring back"),
        *(pytest.param(name, SHORT, 1, marks=pytest.mark.slow, id=f"all, {name}") for name in MOVES),
        *(
            pytest.param(name, LONG, 1, marks=pytest.mark.slow, id=f"all, {name}, long")
            for name in ("seal", "archive", "bring back")
        ),
    ],
)
async def test_late_output_may_come_anywhere(
    valkey: RealServer, repository: RedisJobRepository, tmp_path: Path, name: str, command: list[str], stride: int
) -> None:
    """A line that another process writes at any await is there once, and so is all that was there before."""
    at, was_reached = 1, True
    async with RedisJobRepository.from_url(valkey.url) as other:
        while was_reached:
            await repository.create_job(Job(id=f"j{at}", status="running", command=command))
            await repository.add_events(f"j{at}", lines(2))
            await repository.complete_job(f"j{at}", True, NOW)
            was_reached = await move_with_late_output(repository, other, tmp_path, f"j{at}", MOVES[name], at)
            at += stride
    assert at > 5


async def move_with_late_output(
    repository: RedisJobRepository,
    other: RedisJobRepository,
    folder: Path,
    job_id: str,
    moves: Sequence[Move],
    at: int,
) -> bool:
    """Do some moves, and have a line come at a step of the last one; tell whether it has so many."""
    for move in moves[:-1]:
        await move(repository, folder, job_id)
    known = await repository.get_events_since(job_id, 0)
    late = JobEvent("log", "late\n", timestamp=NOW)

    async def write_late() -> None:
        await other.add_event(job_id, late)

    async def move_last() -> object:
        return await moves[-1](repository, folder, job_id)

    found, was_reached = await held(move_last(), at, write_late)
    assert found in (Moved.MOVED, Moved.CHANGED, Sealed.SEALED, Sealed.CHANGED, Moved.NOT_DUE)
    expected = [*known, late] if was_reached else known
    for move in (seal, archive, bring_back):
        for one in (repository, other):
            one.engine.reader.source.sealed.forget()
            await check_events(one, job_id, expected)
        assert await repository.verify(job_id, deep=True) == []
        assert await move(repository, folder, job_id) in (Sealed.SEALED, Sealed.ALREADY, Moved.MOVED, Moved.ALREADY)
    await check_events(repository, job_id, expected)
    return was_reached


async def check_events(repository: RedisJobRepository, job_id: str, expected: Sequence[JobEvent]) -> None:
    """Compare a log with what was written, positions included."""
    found = await repository.get_events_since(job_id, 0)
    assert found == expected
    assert [event.id for event in found] == list(range(1, len(expected) + 1))


async def read_events(repository: RedisJobRepository) -> object:
    """Read a whole log."""
    return await repository.get_events_since("j", 0)


async def read_job(repository: RedisJobRepository) -> object:
    """Read a job, of whose record the most lies in its segment."""
    return await repository.get_job("j")


async def verify(repository: RedisJobRepository) -> object:
    """Compare a job's record with its log."""
    return await repository.verify("j", deep=True)


@pytest.mark.parametrize("read", [read_events, read_job, slow(verify)])
async def test_a_reader_may_be_held_while_a_log_goes_there_and_back(
    valkey: RealServer,
    repository: RedisJobRepository,
    tmp_path: Path,
    read: Callable[[RedisJobRepository], Coroutine[Any, Any, object]],
) -> None:
    """What it looks for is gone, and the record says again what it said before: that isn't taken for damage."""
    sealed = repository.engine.reader.source.sealed
    await ended_job(repository, "j", 5)
    assert await seal_job(repository) is Sealed.SEALED
    expected, at, was_reached = await read(repository), 0, True
    async with RedisJobRepository.from_url(valkey.url) as other:

        async def move_there() -> None:
            assert await archive(other, tmp_path) is Moved.MOVED

        async def move_back() -> None:
            await unarchive(other)

        while was_reached:
            at += 1
            for steps in range(1, 6):
                sealed.forget()
                work = held(held_read(read(repository), at, move_there), at + steps, move_back)
                (found, was_reached), _ = await work
                assert found == expected
                await move_back()
    assert at > 2


async def held_read(
    work: Coroutine[Any, Any, object], at: int, meanwhile: Callable[[], Coroutine[Any, Any, None]]
) -> tuple[object, bool]:
    """Return what `held` does, as a coroutine that may be held itself."""
    return await held(work, at, meanwhile)
