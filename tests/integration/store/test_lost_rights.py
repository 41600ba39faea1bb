"""A right that is taken away from a user whose repository is open: nothing is half done, and it is said at once."""

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from redis.asyncio import Redis

from ci_common.models import Job, JobEvent, utc_now
from ci_eventstore.errors import MissingRightsError
from ci_eventstore.queues.claimed import Claimed
from ci_eventstore.repository import RedisJobRepository
from tests import claims
from tests.servers import RealServer, find_redis7, find_valkey

#: What scripts write with, and what they tell with.
WRITES = (
    *("hset", "hdel", "zadd", "zrem", "xadd", "xdel", "xack", "del", "set", "rpush", "pexpire", "xgroup", "xreadgroup"),
    *("publish", "xclaim", "zpopmax", "sadd"),
)


@pytest.fixture(scope="module", params=[pytest.param(find_redis7, marks=pytest.mark.needs("redis7")), find_valkey])
def guarded(request: pytest.FixtureRequest) -> Iterator[RealServer]:
    find: Callable[[], Path] = request.param
    with RealServer(find(), "appendonly no", tcp=True) as started:
        yield started


@pytest.fixture
async def admin(guarded: RealServer) -> AsyncIterator[Redis]:
    async with Redis(port=guarded.port) as opened:
        await opened.flushall()
        await opened.execute_command("ACL", "SETUSER", "ci", "reset", "on", ">pw", "~*", "&*", "+@all")
        yield opened


class Life:
    """What a user does with a store; each step may be refused, and is then done again."""

    def __init__(self, repository: RedisJobRepository) -> None:
        self.repository = repository
        self.claimed: list[Claimed] = []
        self.refused = 0

    async def step(self, name: str) -> None:
        try:
            await getattr(self, name)()
        except MissingRightsError:
            self.refused += 1

    async def create(self) -> None:
        await self.repository.create_job(Job(id="a1", status="queued", user_id="a"))

    async def create_running(self) -> None:
        await self.repository.create_job(Job(id="a2", status="running", user_id="a"))

    async def append(self) -> None:
        await self.repository.add_event("r1", JobEvent("log", "line\n"))

    async def claim(self) -> None:
        self.claimed += await claims.claim(self.repository, "default", "c1", 1, 30)

    async def complete(self) -> None:
        await self.repository.complete_job("r2", True, utc_now())

    async def cancel(self) -> None:
        await self.repository.cancel_job("q1")


STEPS = ("create", "create_running", "append", "complete", "cancel", "claim")


async def prepared(repository: RedisJobRepository) -> None:
    for job_id, status in (("r1", "running"), ("r2", "running"), ("q1", "queued"), ("q2", "queued"), ("b1", "queued")):
        await repository.create_job(Job(id=job_id, status=status, user_id=job_id[0]))


@pytest.mark.slow
@pytest.mark.parametrize("right", WRITES)
async def test_a_right_that_is_lost_damages_nothing(guarded: RealServer, admin: Redis, right: str) -> None:
    """Each step is done or isn't, and says at once which right is missing; when it is given back, all goes on."""
    url, all_rights = f"redis://ci:pw@127.0.0.1:{guarded.port}", f"redis://127.0.0.1:{guarded.port}"
    async with RedisJobRepository.from_url(url) as repository, RedisJobRepository.from_url(all_rights) as other:
        await prepared(other)
        life = Life(repository)
        await admin.execute_command("ACL", "SETUSER", "ci", f"-{right}")
        for name in STEPS:
            await life.step(name)
            assert await other.verify() == [], name
        if right in ("hset", "zadd", "xadd"):
            assert life.refused >= 3
        await admin.execute_command("ACL", "SETUSER", "ci", f"+{right}")
        known = {job.id: str(job.status) for job in await other.list_jobs()}
        for name, is_open in (
            ("create", "a1" not in known),
            ("create_running", "a2" not in known),
            ("append", True),
            ("complete", known["r2"] == "running"),
            ("cancel", known["q1"] == "queued"),
            ("claim", True),
        ):
            if is_open:
                await getattr(life, name)()
            assert await other.verify() == [], name
        assert [event.data for event in await other.get_events_since("r1", 0)].count("line\n") in (1, 2)
        assert life.claimed


@pytest.mark.slow
async def test_a_server_without_memory_changes_nothing(guarded: RealServer, admin: Redis) -> None:
    """Only the first write of a script is refused for that, so no job is half written."""
    url = f"redis://127.0.0.1:{guarded.port}"
    async with RedisJobRepository.from_url(url) as repository:
        await prepared(repository)
        life = Life(repository)
        await admin.config_set("maxmemory", "1")
        try:
            for name in STEPS:
                with pytest.raises(Exception, match="memory"):
                    await getattr(life, name)()
        finally:
            await admin.config_set("maxmemory", "0")
        assert await repository.verify() == []
        for name in STEPS:
            await getattr(life, name)()
        assert await repository.verify() == []
