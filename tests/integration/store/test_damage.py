"""Damage of every kind, in a store with jobs of all kinds: it is named, mended, and nobody else's."""

import os
from collections.abc import Awaitable, Callable
from dataclasses import fields
from typing import Any

import pytest
from redis.asyncio import Redis

from ci_common.errors import RepositoryError
from ci_common.models import JobEvent, utc_now
from ci_eventstore.connection.deployments import from_url
from ci_eventstore.connection.nodes import Nodes
from ci_eventstore.errors import StoreError
from ci_eventstore.jobs.state import JobState
from ci_eventstore.queues.overview import UsedQueues
from ci_eventstore.repository import RedisJobRepository
from tests import claims, old_store
from tests.servers import RealServer

GARBAGE = [b"", b"garbage", b"\xff\xfe", b"-1", b"9" * 400, b'{"a": [']
FIELDS = [field.name for field in fields(JobState)]
#: A job of each kind that scripts treat otherwise.
JOBS = ["waiting-1", "running", "claimed", "done", "truncated"]
STAY = {"stream", "ring"}
IS_SOAK = os.environ.get("CI_EVENTSTORE_SOAK") == "1"


def share(job_id: str, garbage: bytes) -> list[str]:
    """Return a third of the fields, each with two kinds of garbage in each kind of job; all of them in a soak."""
    start = JOBS.index(job_id) + GARBAGE.index(garbage)
    return FIELDS if IS_SOAK else FIELDS[start % 3 :: 3]


@pytest.fixture
async def store(repository: RedisJobRepository, valkey: RealServer) -> RedisJobRepository:
    """A store that an earlier program wrote, on the server that is emptied before each test."""
    async with Redis(unix_socket_path=str(valkey.socket_path)) as client:
        await client.flushall()
        await old_store.load(client)
    await old_store.upgraded(from_url(valkey.url))
    return repository


def everything(repository: RedisJobRepository, job_id: str) -> list[Callable[[], Awaitable[object]]]:
    """Return all that a program may ask of a store, about one job and about all."""
    return [
        lambda: repository.get_job(job_id),
        lambda: repository.get_job_summary(job_id),
        lambda: repository.get_events_since(job_id, 0),
        lambda: repository.read_events(job_id, 1, 5),
        lambda: repository.position_of_line(job_id, 3),
        lambda: repository.resolve_job_id(job_id[:4]),
        lambda: repository.page_jobs(before=job_id),
        lambda: repository.add_event(job_id, JobEvent("log", "x\n")),
        lambda: repository.update_job_status(job_id, "running"),
        lambda: repository.cancel_job(job_id),
        lambda: repository.complete_job(job_id, True, utc_now()),
        lambda: first_page(repository, job_id),
        lambda: replayed(repository, job_id),
        lambda: repository.job_at(job_id, 1),
        lambda: repository.keep_job(job_id),
        *(lambda queue=queue: claims.overview(repository, queue) for queue in ("default", "work", "other")),
        *(
            lambda queue=queue: claims.claim(repository, queue, "new", 3, 30.0)
            for queue in ("default", "work", "other")
        ),
    ]


async def first_page(repository: RedisJobRepository, job_id: str) -> None:
    follower = await repository.follow(job_id)
    try:
        await follower.read(0.05)
    finally:
        follower.close()


async def replayed(repository: RedisJobRepository, job_id: str) -> None:
    async for _ in repository.replay(job_id, facts=True):
        pass


async def ask_everything(repository: RedisJobRepository, job_id: str) -> list[str]:
    """Ask for everything; return the messages of the errors, which have to be the package's own."""
    errors = []
    for call in everything(repository, job_id):
        try:
            await call()
        except RepositoryError as error:
            errors.append(str(error))
    return errors


async def check_others(repository: RedisJobRepository, job_id: str) -> None:
    listed = {job.id for job in await repository.list_jobs()}
    assert listed | {job_id} == old_store.ALL
    for user_id in (None, "ada", "bob"):
        await repository.page_jobs(user_id=user_id, limit=5)


async def check_mended(repository: RedisJobRepository, job_id: str) -> None:
    """Verify reports the damage, rebuild mends it, and then there is nothing to mend."""
    assert await repository.verify(job_id) != []
    mended = await repository.rebuild()
    assert {difference.subject for difference in mended} == {f"job {job_id}"}
    assert await repository.verify(job_id) == []


async def damage_fields(
    repository: RedisJobRepository, server: Nodes, job_id: str, fields: list[str], garbage: bytes
) -> None:
    """Put garbage into one field after the other; each is mended before the next."""
    for field in fields:
        key = f"{{ci:0}}:job:{job_id}"
        if await server.read("HGET", key, field) == garbage:
            continue
        await server.read("HSET", key, field, garbage)
        if await repository.verify(job_id) == []:
            # An empty mark or incarnation is none, as older programs wrote none.
            assert (field, garbage) in {(name, b"") for name in ("mark", "incarnation", "hand_backs")}
            await server.read("HDEL", key, field)
            continue
        await check_others(repository, job_id)
        await check_mended(repository, job_id)
    assert await repository.verify() == []
    assert {job.id for job in await repository.list_jobs()} == old_store.ALL


@pytest.mark.slow  # It takes over a second of a CPU.
@pytest.mark.parametrize("job_id", ["claimed"])
async def test_damage_of_one_job_is_its_own(
    store: RedisJobRepository, server: Nodes, job_id: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A damaged field is named; other jobs are listed; verify reports it and rebuild mends it, field by field."""
    await damage_fields(store, server, job_id, FIELDS, b"\xff\xfe")
    assert f"left out of a list: job '{job_id}': field " in caplog.text


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("garbage", GARBAGE, ids=lambda garbage: repr(garbage[:8]))
@pytest.mark.parametrize("job_id", JOBS)
async def test_fields_with_every_garbage_are_mended(
    store: RedisJobRepository, server: Nodes, job_id: str, garbage: bytes
) -> None:
    """The same for jobs of all kinds, and whatever a field may hold."""
    await damage_fields(store, server, job_id, share(job_id, garbage), garbage)


async def ask_with_damaged_fields(
    repository: RedisJobRepository, valkey: RealServer, job_id: str, fields: list[str], garbage: bytes
) -> None:
    async with Redis(unix_socket_path=str(valkey.socket_path)) as client:
        for field in fields:
            await client.flushall()
            await old_store.load(client)
            await old_store.upgraded(from_url(valkey.url))
            await client.hset(f"{{ci:0}}:job:{job_id}", field, garbage)
            await ask_everything(repository, job_id)
            await repository.list_jobs()
            await repository.rebuild()
            left = await repository.verify()
            assert [difference for difference in left if difference.place not in STAY] == []


async def test_what_is_asked_of_a_damaged_job_ends_with_an_error_of_ours(
    store: RedisJobRepository, valkey: RealServer
) -> None:
    """Readers, writers, followers, queues and claims never raise anything else, and rebuild mends what they left."""
    await ask_with_damaged_fields(store, valkey, "claimed", ["created_at", "position", "attempts"], b"garbage")


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("garbage", GARBAGE, ids=lambda garbage: repr(garbage[:8]))
@pytest.mark.parametrize("job_id", JOBS)
async def test_every_reader_and_writer_of_damaged_fields(
    store: RedisJobRepository, valkey: RealServer, job_id: str, garbage: bytes
) -> None:
    """The same for each field of jobs of all kinds."""
    await ask_with_damaged_fields(store, valkey, job_id, share(job_id, garbage), garbage)


#: Damage of indexes: commands, and what then stays different.
INDEX_DAMAGE: list[tuple[Any, ...]] = [
    ("ZADD", "{ci:0}:leases:work", "5", "ghost"),
    ("ZADD", "{ci:0}:leases:work", "5", "running"),
    ("ZADD", "{ci:0}:leases:default", "5", "claimed"),
    ("ZADD", "{ci:0}:backlog:default", "0", "ada\0" + "0000000000000000\0ghost"),
    ("ZADD", "{ci:0}:backlog:default", "0", "garbage"),
    ("ZADD", "{ci:0}:backlog:work", "0", b"\xff\0garbage"),
    ("ZADD", "{ci:0}:ids", "0", "ghost"),
    ("ZADD", "{ci:0}:ids", "0", b"\xff\xfe"),
    ("ZADD", "{ci:0}:jobs:running", "0", b"\xff\xfe"),
    ("ZADD", "{ci:0}:jobs:running", "0", ""),
    ("ZREM", "{ci:0}:leases:work", "claimed"),
    ("DEL", "{ci:0}:backlog:default"),
    ("DEL", "{ci:0}:tickets:default"),
    ("DEL", "{ci:0}:dispatch:default"),
    ("XGROUP", "DESTROY", "{ci:0}:dispatch:work", "controllers"),
    ("HSET", "{ci:0}:tickets:default", "ada", "garbage"),
    ("HSET", "{ci:0}:tickets:default", "ada", "1-1"),
    ("HSET", "{ci:0}:tickets:default", "nobody", "1-1"),
    ("XGROUP", "SETID", "{ci:0}:dispatch:default", "controllers", "$"),
    ("SET", "{ci:0}:job:running", "no hash"),
    ("SET", "{ci:0}:index:long", "no list"),
    ("RPUSH", "{ci:0}:index:running", b"\xff"),
    ("SET", "{ci:0}:jobs:completed", "no sorted set"),
    ("SET", "{ci:0}:owned:running:ada", "no sorted set"),
    ("SET", "{ci:0}:ids", "no sorted set"),
    ("SET", "{ci:0}:backlog:default", "no sorted set"),
    ("SET", "{ci:0}:leases:work", "no sorted set"),
    ("SET", "{ci:0}:tickets:default", "no hash"),
    ("SET", "{ci:0}:dispatch:default", "no stream"),
    ("HSET", "{ci:0}:ring:running", "first", "1"),
    ("SET", "{ci:accounts}:users", "no set"),
    ("SET", "{ci:accounts}:emails", "no hash"),
    ("SET", "{ci:accounts}:user-keys:ada", "no set"),
    ("HSET", "{ci:accounts}:emails", b"\xff", b"\xfe"),
    ("SADD", "{ci:accounts}:users", b"\xff"),
    ("HSET", "{ci:accounts}:emails", "ada@example.org", "bob"),
    ("HDEL", "{ci:accounts}:key-hashes", "f" * 64),
]


def some(damages: list[Any], step: int) -> list[Any]:
    """Return parameters of which only each `step`th is quick."""
    return [
        pytest.param(damage, marks=[pytest.mark.slow] if place % step else []) for place, damage in enumerate(damages)
    ]


def name_of(words: Any) -> str | None:
    return " ".join(map(str, words[:3])) if isinstance(words, tuple) else None


@pytest.mark.parametrize("damage", some(INDEX_DAMAGE, 9), ids=name_of)
async def test_damage_of_an_index_is_mended(
    store: RedisJobRepository, server: Nodes, damage: tuple[str | bytes, ...]
) -> None:
    """Whatever is asked meanwhile ends with a result or an error of ours, and rebuild makes the index right."""
    await server.read(*damage)
    assert await store.verify() != [] or damage[0] == "XGROUP"

    async def used() -> object:
        return await UsedQueues(store.engine.nodes, store.engine.keys).read()

    for call in (store.list_jobs, store.list_users, store.list_api_keys, used):
        try:
            await call()
        except StoreError as error:
            assert "WRONGTYPE" in str(error)  # noqa: PT017
    for queue in ("default", "work"):
        await claims.overview(store, queue)
    await store.rebuild()
    assert await store.verify() == []
    assert {job.id for job in await store.list_jobs()} == old_store.ALL
    assert {user.id for user in await store.list_users()} == {"ada", "bob", "Zoë", "naive"}
    claimed = await claims.claim(store, "default", "new", 20, 30.0)
    assert {one.job.id for one in claimed} == old_store.QUEUED - {"waiting-zip", "requeued"}


SOURCE_DAMAGE: list[Any] = [
    (("DEL", "{ci:0}:ring:truncated"), "ring"),
    (("HDEL", "{ci:0}:ring:truncated", "3"), "ring"),
    (("XDEL", "{ci:0}:events:running", "5-0"), "stream"),
    (("XDEL", "{ci:0}:events:running", "0-1"), "stream"),
    (("XTRIM", "{ci:0}:events:running", "MAXLEN", "3"), "stream"),
    (("XADD", "{ci:0}:events:running", "99-0", "e", "garbage"), "stream"),
    (("SET", "{ci:0}:events:running", "no stream"), "stream"),
    (("DEL", "{ci:0}:events:running"), "stream"),
    (("HSET", "{ci:accounts}:user:ada", "created_at", "garbage"), "record"),
    (("HSET", "{ci:accounts}:user:ada", "email", b"\xff"), "record"),
    (("HDEL", "{ci:accounts}:user:ada", "email"), "record"),
    (("SET", "{ci:accounts}:user:ada", "no hash"), "record"),
    (("HSET", "{ci:accounts}:key:key-bob", "is_active", "yes"), "record"),
]


@pytest.mark.parametrize("case", some(SOURCE_DAMAGE, 6), ids=lambda case: name_of(case[0]))
async def test_a_source_that_is_damaged_is_named_and_left_alone(
    store: RedisJobRepository, server: Nodes, case: tuple[tuple[str | bytes, ...], str]
) -> None:
    """What nothing else says can't be mended: it is reported before and after, and everybody else is listed."""
    damage, place = case
    await server.read(*damage)
    found = await store.verify()
    assert place in {difference.place for difference in found}
    assert await store.rebuild() == found
    assert place in {difference.place for difference in await store.verify()}
    others = {"bob", "Zoë", "naive"}
    assert {user.id for user in await store.list_users()} >= others
    assert len(await store.list_api_keys()) >= 3
    await ask_everything(store, "running")
    assert {job.id for job in await store.list_jobs()} == old_store.ALL
    await server.read("FLUSHALL")
