"""Readers go on wherever they were while a log moves: sealed, archived, brought back, written to, copied, restored.

`make soak` runs a hundred thousand resumes.
"""

import asyncio
import os
import random
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from itertools import count, cycle
from pathlib import Path

import pytest

from ci_common.models import JobEvent
from ci_eventstore.history.archiving import unarchive_job
from ci_eventstore.history.copied_stores import StoreSource, StoreTarget
from ci_eventstore.history.copying import Copier
from ci_eventstore.history.seal import Sealed
from ci_eventstore.repository import RedisJobRepository
from tests.integration.store.sealing import archive_sealed, ended_job, lines, seal_job
from tests.servers import RealServer

IS_SOAK = os.environ.get("CI_EVENTSTORE_SOAK") == "1"
EVENTS = 600
Move = Callable[[], Awaitable[object]]


class MovingJob:
    """A job whose log lies somewhere else after each move."""

    def __init__(self, repository: RedisJobRepository, folder: Path) -> None:
        self._repository = repository
        self._folder = folder
        self.moves = cycle([self._seal, self._archive, self._write, self._seal, self._archive, self._bring_back])
        self.moved = 0

    async def move(self) -> None:
        """Do the next one."""
        await next(self.moves)()
        self.moved += 1

    async def _seal(self) -> None:
        assert await seal_job(self._repository) in (Sealed.SEALED, Sealed.ALREADY)

    async def _archive(self) -> None:
        await archive_sealed(self._repository, self._folder)

    async def _bring_back(self) -> None:
        engine = self._repository.engine
        await unarchive_job(engine.nodes, engine.reader.source, engine.keys.job("j"))

    async def _write(self) -> None:
        await self._repository.add_events("j", lines(5, 5000))


async def resume(repository: RedisJobRepository, choose: random.Random, known: list[JobEvent]) -> None:
    """Read from somewhere on, or follow from there; what comes is what was written, and at least what was known."""
    after, limit = choose.randrange(len(known) + 1), choose.randrange(1, 60)
    if choose.random() < 0.9:
        found = await repository.read_events("j", after, limit)
        assert len(found) >= min(limit, len(known) - after)
    else:
        found = []
        async with aclosing(repository.follow_events("j", after)) as events:
            async for event in events:
                found.append(event)
                if len(found) == limit:
                    break
    assert [event.id for event in found] == list(range(after + 1, after + 1 + len(found)))
    assert found[: len(known) - after] == known[after : after + len(found)]


@pytest.mark.usefixtures("small_segments")
@pytest.mark.timeout(7200 if IS_SOAK else 300)
@pytest.mark.parametrize(
    "resumes",
    [100, pytest.param(100_000 if IS_SOAK else 4000, marks=pytest.mark.slow(reason="reads thousands of times"))],
    ids=["some", "many"],
)
async def test_readers_resume_while_a_log_moves(own: RealServer, tmp_path: Path, seed: int, resumes: int) -> None:
    """None is missed, none comes twice, by a process that moves the log and by one that knows nothing of it."""
    choose = random.Random(seed)
    async with (
        RedisJobRepository.from_url(own.url) as mover,
        RedisJobRepository.from_url(own.url, access="read") as reader,
    ):
        await ended_job(mover, count=EVENTS)
        job, is_over = MovingJob(mover, tmp_path), False

        async def go_on_moving() -> None:
            while not is_over:
                await job.move()

        moving = asyncio.create_task(go_on_moving())
        known = list[JobEvent]()
        for number in count():
            if number >= resumes and job.moved > resumes / 50:
                break
            if number % 50 == 0:
                known = await reader.get_events_since("j", 0)
            await resume(choose.choice([reader, mover]), choose, known)
            assert not moving.done()
        is_over = True
        await moving
        assert await mover.verify(deep=True) == []


async def test_a_log_moves_on_to_other_stores(own: RealServer, tmp_path: Path, seed: int) -> None:
    """Archived, copied to other partitions, sealed there; the server restarts from its file: all read alike."""
    choose = random.Random(seed)
    async with (
        RedisJobRepository.from_url(own.url) as first,
        RedisJobRepository.from_url(own.url, prefix="other", partitions=3) as other,
    ):
        await ended_job(first, count=EVENTS)
        known = await first.get_events_since("j", 0)
        for name in ("first", "other"):
            (tmp_path / name).mkdir()
        await seal_job(first)
        await archive_sealed(first, tmp_path / "first")
        report = await Copier(StoreSource(first.engine), StoreTarget(other.engine)).copy()
        assert report.is_whole
        await seal_job(other)
        await archive_sealed(other, tmp_path / "other")
        for restart in (False, True):
            if restart:
                own.restart()
            for repository in (first, other):
                for _ in range(20):
                    await resume(repository, choose, known)
                assert await repository.verify(deep=True) == []
