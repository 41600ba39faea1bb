"""Readers of facts that are killed at any moment: each change is told at least once, in the order of its job."""

import asyncio
import contextlib
import json
import random
import sys
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ci_common.errors import RepositoryError
from ci_common.models import Job, JobEvent
from ci_eventstore.controllers.claimed_job import ClaimedJob
from ci_eventstore.repository import RedisJobRepository
from tests import claims
from tests.integration.store import fact_reader_program
from tests.integration.store.fact_readers import Story, story_in_stream
from tests.servers import RealServer
from tests.waiting import wait_until

PROGRAM = Path(fact_reader_program.__file__)
#: Readers find facts that no message told them of after a third of this, and take over after it.
LEASE_SECONDS = 0.6


class Readers:
    """Processes that read for one group."""

    def __init__(self, url: str, folder: Path, dice: random.Random) -> None:
        self._url, self._folder, self._dice = url, folder, dice
        self._running: list[asyncio.subprocess.Process] = []
        self._started = 0

    async def start(self) -> None:
        """Start one more."""
        self._started += 1
        path = self._folder / f"reader-{self._started}"
        words = (str(PROGRAM), self._url, "g", str(path), str(LEASE_SECONDS))
        self._running.append(await asyncio.create_subprocess_exec(sys.executable, *words))

    async def kill(self, count: int = 1) -> None:
        """Kill some of them at once."""
        for _ in range(min(count, len(self._running))):
            process = self._running.pop(self._dice.randrange(len(self._running)))
            process.kill()
            await process.wait()

    def lines(self) -> list[dict[str, Any]]:
        """Return what all of them have written down, in that order; the last line may be half there."""
        texts = [path.read_text() for path in self._folder.glob("reader-*")]
        found = [json.loads(line) for text in texts for line in text.split("\n")[:-1]]
        return sorted(found, key=lambda line: int(line["at"]))

    def stories(self) -> dict[str, Story]:
        """Return what was told of each job, each fact where it was told first."""
        stories, known = defaultdict[str, Story](list), set[str]()
        for line in self.lines():
            if "gap" not in line and line["id"] not in known:
                known.add(line["id"])
                stories[line["job"]].append((line["kind"], line["status"]))
        return stories


async def live(repository: RedisJobRepository, job_id: str, dice: random.Random) -> None:
    """Let a job go one of the ways that jobs go."""
    await repository.create_job(Job(id=job_id, status="queued", user_id=dice.choice(["ada", "bob"])))
    # Another one may have claimed it already.
    with contextlib.suppress(RepositoryError):
        match dice.randrange(4):
            case 0:
                await repository.cancel_job(job_id)
            case 1:
                await repository.update_job_status(job_id, "running")
                await repository.update_job_status(job_id, "queued")
            case 2:
                await repository.add_events(job_id, [JobEvent("log", "a line\n"), JobEvent("complete", success=False)])
    if dice.random() < 0.5:
        for one in await claims.claim(repository, "default", "controller", 3, 30.0):
            async with ClaimedJob(repository, one):
                await asyncio.sleep(0)


def are_told(readers: Readers, expected: dict[str, Story]) -> Callable[[], bool]:
    """Return what says whether all is told; it looks at the files now and then."""
    looks = iter(range(10**9))

    def look() -> bool:
        return next(looks) % 2000 == 0 and readers.stories().keys() >= expected.keys() and readers.stories() == expected

    return look


# Processes are started again and again.
@pytest.mark.slow
@pytest.mark.parametrize("rounds", [6, 25])
async def test_readers_that_are_killed_miss_nothing(own: RealServer, tmp_path: Path, seed: int, rounds: int) -> None:
    """Several readers of a group, killed one or all at a time, while jobs live: they write down what happened."""
    dice = random.Random(seed)
    readers = Readers(own.url, tmp_path, dice)
    async with RedisJobRepository.from_url(own.url, partitions=3) as repository:
        await readers.start()
        await wait_until(lambda: len(readers.lines()) == 3)
        try:
            for number in range(rounds):
                await asyncio.gather(*(live(repository, f"j{number}-{each}", dice) for each in range(10)))
                await readers.kill(dice.choice([0, 1, 1, 3]))
                await readers.start()
            jobs = await repository.list_jobs()
            expected = {job.id: await story_in_stream(repository, job.id) for job in jobs}
            assert len(expected) == rounds * 10
            await wait_until(are_told(readers, expected), 60)
        except TimeoutError:
            told = readers.stories()
            wrong = {name: (told.get(name), story) for name, story in expected.items() if told.get(name) != story}
            pytest.fail(f"not told as it happened: {wrong}")
        finally:
            await readers.kill(99)
        # The group began with one gap in each partition, which may have been told again; nothing was cut off.
        assert {line["gap"] for line in readers.lines() if "gap" in line} == {0, 1, 2}
        assert await repository.verify() == []


async def test_readers_that_are_cancelled_miss_nothing(repository: RedisJobRepository, seed: int) -> None:
    """The same within one process: readers that are cancelled anywhere, at short leases."""
    dice, told, known = random.Random(seed), defaultdict[str, Story](list), set[str]()

    async def read() -> None:
        async for batch in repository.subscribe("g", lease_seconds=0.1, limit=2):
            for fact in batch.facts:
                if fact.id not in known:
                    known.add(fact.id)
                    told[fact.job_id].append((fact.kind.name, str(fact.status)))
            await asyncio.sleep(0)
            await batch.acknowledge()

    begun = asyncio.create_task(read())
    while not await repository.engine.facts.all():  # noqa: ASYNC110 - the store has no event for it
        await asyncio.sleep(0)
    readers = [begun]
    for number in range(8):
        await asyncio.gather(*(live(repository, f"j{number}-{each}", dice) for each in range(3)))
        victim = readers.pop(dice.randrange(len(readers)))
        victim.cancel()
        await asyncio.wait([victim])
        readers += [asyncio.create_task(read()) for _ in range(2 - len(readers))]
    expected = {job.id: await story_in_stream(repository, job.id) for job in await repository.list_jobs()}
    readers.append(asyncio.create_task(read()))
    await wait_until(lambda: told == expected)
    for reader in readers:
        reader.cancel()
    await asyncio.wait(readers)
