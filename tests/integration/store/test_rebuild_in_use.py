"""Rebuilding does no harm: accounts and jobs keep all their index entries, whichever rebuild is killed half-way."""

import asyncio
import itertools
import os
import random
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from ci_common.models import APIKey, Job, JobStatus, User, utc_now
from ci_eventstore.connection.nodes import Nodes
from ci_eventstore.connection.replies import Reply
from ci_eventstore.keys import Keys, jobs_key
from ci_eventstore.members import backlog_member, listing_member
from ci_eventstore.repository import RedisJobRepository
from tests.servers import RealServer

PROGRAM = Path(__file__).with_name("rebuild_program.py")
KEYS = Keys("ci")
#: So many accounts and jobs are looked at together.
LOOKED_AT = 200
#: So many jobs are made between the steps of a rebuild.
JOBS_BETWEEN = 8


class Town:
    """Accounts and jobs that are created, changed and revoked; and those of whom all was acknowledged."""

    def __init__(self, repository: RedisJobRepository, server: Nodes, seed: int) -> None:
        self.repository = repository
        self.server = server
        self.random = random.Random(seed)
        self.accounts: list[int] = []
        #: Jobs with the status that they have for good.
        self.jobs: list[tuple[Job, JobStatus]] = []
        self.looks = 0
        self.is_over = asyncio.Event()

    async def settle(self, number: int) -> None:
        """Create a user with a key and a job, then change all three."""
        await self.open_account(number)
        await self.submit(number)

    async def open_account(self, number: int) -> None:
        """Create a user with a key; change and revoke some."""
        user, key, repository = f"user-{number}", f"key-{number}", self.repository
        await repository.create_user(User(id=user, name=user, email=f"{user}@X.org", created_at=utc_now()))
        await repository.create_api_key(APIKey(id=key, user_id=user, key_hash=f"hash-{number}"))
        self.accounts.append(number)
        if number % 3 == 0:
            await repository.update_user_active(user, False)
            await repository.revoke_api_key(key)

    async def submit(self, number: int) -> None:
        """Create a job; run and end some."""
        repository = self.repository
        job = Job(id=f"job-{number}", status="queued", user_id=f"user-{number}", queue=f"queue-{number % 3}")
        await repository.create_job(job)
        if number % 3 == 1:
            await repository.update_job_status(job.id, "running")
            await repository.complete_job(job.id, True, utc_now())
        statuses = (JobStatus.QUEUED, JobStatus.COMPLETED, JobStatus.QUEUED)
        self.jobs.append((job, statuses[number % 3]))

    async def settle_all(self, count: int, together: int) -> None:
        numbers = iter(range(count))

        async def settle_some() -> None:
            for number in numbers:
                await self.settle(number)

        try:
            await asyncio.gather(*(settle_some() for _ in range(together)))
        finally:
            self.is_over.set()

    async def look(self) -> None:
        """Fail if an index lacks an entry of somebody who is there."""
        accounts = self.random.sample(self.accounts, min(len(self.accounts), LOOKED_AT))
        jobs = self.random.sample(self.jobs, min(len(self.jobs), LOOKED_AT))
        commands: list[tuple[str, ...]] = []
        for number in accounts:
            commands += [
                ("SISMEMBER", KEYS.users, f"user-{number}"),
                ("HEXISTS", KEYS.emails, f"user-{number}@x.org"),
                ("SISMEMBER", KEYS.api_keys, f"key-{number}"),
                ("HEXISTS", KEYS.api_key_hashes, f"hash-{number}"),
                ("SISMEMBER", KEYS.user_api_keys(f"user-{number}"), f"key-{number}"),
            ]
        for job, status in jobs:
            keys = KEYS.job(job.id)
            member = listing_member(job.created_at, job.id)
            commands += [("EXISTS", keys.hash)]
            for user_id in (None, job.user_id):
                commands.append(("ZLEXCOUNT", jobs_key(keys.tag, status, user_id), f"[{member}", f"[{member}"))
            if status is JobStatus.QUEUED:
                queue = keys.queue(job.queue)
                waiting = backlog_member(job.user_id, job.created_at, job.id)
                commands.append(("ZLEXCOUNT", queue.backlog, f"[{waiting}", f"[{waiting}"))
                commands.append(("HEXISTS", queue.tickets, job.user_id or ""))
        replies = await self.server.read_many(commands) if commands else []
        missing = [command for command, reply in zip(commands, replies, strict=True) if not reply]
        assert missing == []
        self.looks += 1

    async def look_on(self) -> None:
        while not self.is_over.is_set():
            await self.look()
            await asyncio.sleep(0)
        await self.look()

    async def meddle(self) -> None:
        """Damage indexes with what nobody's account or job needs, so that rebuilders have something to do."""
        while not self.is_over.is_set():
            await damage(self.server, f"ghost-{self.random.randrange(50)}")
            await asyncio.sleep(0.01)


async def damage(server: Nodes, ghost: str) -> None:
    """Add entries of what isn't there to every kind of index."""
    queue = KEYS.job(ghost).queue("queue-1")
    await server.read_many(
        [
            ("SADD", KEYS.users, ghost),
            ("HSET", KEYS.emails, f"{ghost}@x.org", ghost),
            ("SADD", KEYS.api_keys, ghost),
            ("HSET", KEYS.api_key_hashes, f"hash-{ghost}", ghost),
            ("SADD", KEYS.user_api_keys(ghost), ghost),
            ("ZADD", jobs_key(queue.tag, JobStatus.QUEUED), "0", f"0000000000000000:{ghost}"),
            ("ZADD", jobs_key(queue.tag, JobStatus.QUEUED, ghost), "0", f"0000000000000000:{ghost}"),
        ]
    )


@asynccontextmanager
async def others(*tasks: Awaitable[None]) -> AsyncIterator[None]:
    """Run tasks beside the body, and see that none of them failed."""
    async with asyncio.TaskGroup() as group:
        for task in tasks:
            group.create_task(_run(task))
        yield


async def _run(task: Awaitable[None]) -> None:
    await task


async def rebuild_in_part(repository: RedisJobRepository, town: Town) -> None:
    """Rebuild again and again, and stop half-way as often as not."""
    while not town.is_over.is_set():
        try:
            async with asyncio.timeout(town.random.choice([None, town.random.uniform(0.005, 0.2)])):
                await repository.rebuild()
        except TimeoutError:
            await asyncio.sleep(0)


async def rebuild_until_killed(url: str, town: Town) -> None:
    """Have a process rebuild again and again, and kill it at any time."""
    while not town.is_over.is_set():
        program = await asyncio.create_subprocess_exec(
            sys.executable, str(PROGRAM), url, stdout=asyncio.subprocess.DEVNULL
        )
        try:
            await asyncio.wait_for(asyncio.shield(town.is_over.wait()), town.random.uniform(0.5, 3.0))
        except TimeoutError:
            pass
        finally:
            program.kill()
            await program.wait()


async def finish(town: Town) -> None:
    """Mend what the meddler has left; all accounts and jobs are as they should be."""
    await town.repository.rebuild()
    assert await town.repository.verify() == []
    await town.look()
    assert town.looks >= 3


async def test_a_change_between_any_two_steps_of_a_rebuild_is_kept(
    repository: RedisJobRepository, server: Nodes, valkey: RealServer, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An account is made after each answer that a rebuild gets, and first jobs too: all of them keep their entries."""
    town = Town(repository, server, seed)
    for number in range(3):
        await town.settle(number)
    await damage(server, "ghost")
    numbers = itertools.count(3)
    async with RedisJobRepository.from_url(valkey.url) as rebuilder:
        reached = rebuilder.engine.nodes
        for name in ("read", "read_many", "read_at_once", "run"):
            monkeypatch.setattr(reached, name, followed_by(getattr(reached, name), town, numbers))
        for _ in range(2):
            assert await rebuilder.rebuild() != []
            await damage(server, "ghost")
            await town.look()
    await finish(town)


def followed_by(step: Callable[..., Awaitable[Reply]], town: Town, numbers: Iterator[int]) -> Callable[..., Any]:
    """Return a rebuilder's way to the server, after each use of which something is created and changed."""

    async def take(*arguments: Any) -> Reply:
        reply = await step(*arguments)
        number = next(numbers)
        await town.open_account(number)
        if number < JOBS_BETWEEN:
            await town.submit(number)
        return reply

    return take


async def test_a_rebuild_beside_changes_takes_nothing_away(
    repository: RedisJobRepository, server: Nodes, seed: int
) -> None:
    """While accounts and jobs come and change and rebuilds are broken off, no index entry is missing at any look."""
    town = Town(repository, server, seed)
    async with others(
        town.look_on(), town.meddle(), rebuild_in_part(repository, town), rebuild_in_part(repository, town)
    ):
        await town.settle_all(40, 10)
    await finish(town)


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_accounts_beside_rebuilds_that_are_killed(
    repository: RedisJobRepository, server: Nodes, valkey: RealServer, seed: int
) -> None:
    """Two processes rebuild in a loop and are killed; accounts and jobs have all their entries at every look.

    There are 1,500 of them, 5,000 in a soak.
    """
    town = Town(repository, server, seed)
    async with others(town.look_on(), town.meddle(), *(rebuild_until_killed(valkey.url, town) for _ in range(2))):
        await town.settle_all(5000 if os.environ.get("CI_EVENTSTORE_SOAK") == "1" else 1500, 10)
    await finish(town)
