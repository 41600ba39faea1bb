"""Readers go on wherever they were while a log moves: sealed, archived, brought back, written to, copied, restored.

`make soak` runs a hundred thousand resumes.
"""

import asyncio
import os
import random
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from itertools import count, cycle
from pathlib import Path
from typing import TypeVar

import pytest

from ci_common.models import JobEvent
from ci_eventstore.following.records import Notice
from ci_eventstore.history.archiving import unarchive_job
from ci_eventstore.history.copied_stores import StoreSource, StoreTarget
from ci_eventstore.history.copying import Copier
from ci_eventstore.history.seal import Sealed
from ci_eventstore.lines.line_reader import Wanted
from ci_eventstore.repository import RedisJobRepository
from tests.integration.store.sealing import archive_sealed, ended_job, lines, seal_job
from tests.integration.store.test_archive_check import check, restore, saved
from tests.integration.store.test_lines_and_hits import log_of
from tests.servers import RealServer

IS_SOAK = os.environ.get("CI_EVENTSTORE_SOAK") == "1"
EVENTS = 600
MOVES = ("seal", "archive", "write", "seal", "archive", "remove", "bring back")
T = TypeVar("T")


class MovingJob:
    """A job whose log lies somewhere else after each move."""

    def __init__(self, repository: RedisJobRepository, folder: Path, moves: Sequence[str] = MOVES) -> None:
        self._repository = repository
        self._folder = folder
        self._moves = cycle(moves)
        self.moved = 0
        #: How many objects of the archive were removed.
        self.removed = 0

    async def move(self) -> None:
        """Do the next one."""
        works = {
            "seal": self._seal,
            "archive": self._archive,
            "bring back": self._bring_back,
            "write": self._write,
            "remove": self._remove,
        }
        await works[next(self._moves)]()
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

    async def _remove(self) -> None:
        report = await check(self._repository, remove=True)
        assert (report.is_whole, report.unknown) == (True, {})
        self.removed += report.removed


async def resume(repository: RedisJobRepository, choose: random.Random, known: list[JobEvent]) -> None:
    """Read from somewhere on, or follow from there; what comes is what was written, and at least what was known."""
    after, limit = choose.randrange(len(known) + 1), choose.randrange(1, 60)
    if choose.random() < 0.1:
        # As one does that has read other jobs meanwhile: what it refers to may be gone.
        repository.engine.reader.source.sealed.forget()
    way = choose.choices(["events", "lines", "follow events", "follow records"], [8, 2, 1, 1])[0]
    if way == "lines":
        await resume_lines(repository, known, after + 1, limit)
        return
    if way == "events":
        found = await repository.read_events("j", after, limit)
        assert len(found) >= min(limit, len(known) - after)
    elif way == "follow events":
        found = await some_of(repository.follow_events("j", after), limit)
    else:
        records = await some_of(repository.follow_records("j", after), limit)
        assert not [record for record in records if isinstance(record, Notice)]
        found = [record for record in records if isinstance(record, JobEvent)]
    assert [event.id for event in found] == list(range(after + 1, after + 1 + len(found)))
    assert found[: len(known) - after] == known[after : after + len(found)]


async def some_of(records: AsyncGenerator[T, None], limit: int) -> list[T]:
    """Return the first of what comes."""
    found = list[T]()
    async with aclosing(records):
        async for record in records:
            found.append(record)
            if len(found) == limit:
                break
    return found


async def resume_lines(repository: RedisJobRepository, known: list[JobEvent], first: int, limit: int) -> None:
    """Read lines from one on; each event of the log is one."""
    found = await repository.engine.lines.from_line(await log_of(repository, "j"), first, Wanted(limit, 10_000))
    expected = [f"{event.data}".encode() for event in known if event.type == "log"][first - 1 :][:limit]
    assert [bytes(line.data) + b"\n" for line in found][: len(expected)] == expected
    assert [line.n for line in found] == list(range(first, first + len(found)))


RESUMES = pytest.mark.parametrize(
    "resumes",
    [100, pytest.param(100_000 if IS_SOAK else 2000, marks=pytest.mark.slow(reason="reads thousands of times"))],
    ids=["some", "many"],
)


@pytest.mark.usefixtures("small_segments")
@pytest.mark.timeout(7200 if IS_SOAK else 300)
@RESUMES
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
            if number >= resumes and job.moved > max(resumes / 50, 2 * len(MOVES)):
                break
            if number % 50 == 0:
                known = await reader.get_events_since("j", 0)
            await resume(choose.choice([reader, mover]), choose, known)
            assert not moving.done()
        is_over = True
        await moving
        assert job.removed > 0
        assert await mover.verify(deep=True) == []


@pytest.mark.timeout(7200 if IS_SOAK else 300)
@RESUMES
async def test_a_log_moves_on_to_other_stores(own: RealServer, tmp_path: Path, seed: int, resumes: int) -> None:
    """Archived, copied to other partitions, sealed there; the server restarts or has a backup again: all read alike."""
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
        for border in ("copy", "restart", "backup"):
            if border == "restart":
                own.restart()
            if border == "backup":
                await lose_late_output({tmp_path / "first": first, tmp_path / "other": other})
            for repository in (first, other):
                for _ in range(resumes // 20):
                    await resume(repository, choose, known)
                assert await repository.verify(deep=True) == []


async def lose_late_output(stores: Mapping[Path, RedisJobRepository]) -> None:
    """Have logs go on, be sealed and archived, then the server hold what a backup has, which was made before."""
    first = next(iter(stores.values()))
    backup = await saved(first.engine.nodes)
    for folder, repository in stores.items():
        await repository.add_events("j", lines(5, 5000))
        assert await seal_job(repository) is Sealed.SEALED
        await archive_sealed(repository, folder)
        assert len(await repository.get_events_since("j", 0)) == EVENTS + 6
    await restore(first, first.engine.nodes, backup)
    for repository in stores.values():
        assert len(await repository.get_events_since("j", 0)) == EVENTS + 1
