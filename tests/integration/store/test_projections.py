"""Verify finds what is wrong, rebuild brings back what was."""

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest

from ci_common.errors import JobNotFoundError
from ci_common.models import APIKey, Job, JobEvent, User
from ci_eventstore.connection.nodes import Nodes
from ci_eventstore.connection.replies import as_info
from ci_eventstore.errors import NotInitializedError, ProjectionMissingError, StreamDamagedError
from ci_eventstore.repository import RedisJobRepository
from tests.examples import is_thorough
from tests.servers import RealServer

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)


async def fill(repository: RedisJobRepository) -> None:
    """Write jobs in all states, logs over the sparse index's steps, users and keys."""
    for user in ("u", "v"):
        await repository.create_user(User(id=user, name=user, email=f"{user}@X.org", created_at=NOW))
        await repository.create_api_key(APIKey(id=f"key-{user}", user_id=user, key_hash=f"hash-{user}"))
    for number, owner in enumerate([None, "u", "u", "v", "v:queued"]):
        await repository.create_job(Job(id=f"job-{number}", status="queued", user_id=owner, command=["a", "b c"]))
    await repository.create_job(Job(id="made", status="failed", user_id="u", events=[JobEvent("log", "x\n")]))
    await repository.update_job_status("job-1", "running", container_id="c")
    await repository.add_events("job-1", [JobEvent("log", f"line {number}\n") for number in range(2500)])
    await repository.add_event("job-1", JobEvent("log", "x" * 2_000_000))
    await repository.add_event("job-1", JobEvent("log", "y" * 2_000_000))
    await repository.cancel_job("job-2", "because")
    await repository.complete_job("job-3", True, NOW)
    await repository.add_event("job-3", JobEvent("log", "late"))


#: The command that reads all of a key, and what follows the key in it.
READERS: dict[bytes, tuple[str | int, ...]] = {
    b"hash": ("HGETALL",),
    b"zset": ("ZRANGE", 0, -1),
    b"set": ("SMEMBERS",),
    b"list": ("LRANGE", 0, -1),
    b"stream": ("XRANGE", "-", "+"),
}


async def dump(server: Nodes) -> dict[str, Any]:
    """Return the whole store but for what expires."""
    found: dict[str, Any] = {}
    for key in sorted([key async for page in server.scan("*") for key in page]):
        kind = await server.read("TYPE", key)
        if ":calls:" not in key:
            command, *arguments = READERS[kind]
            reply = await server.read(command, key, *arguments)
            found[key] = dict(zip(reply[::2], reply[1::2], strict=True)) if kind == b"hash" else sorted(reply)
    return found


async def delete(server: Nodes, *kinds: str) -> None:
    for kind in kinds:
        for key in [key async for page in server.scan(f"{{ci:*}}:{kind}*") for key in page]:
            await server.read("DEL", key)


async def test_everything_derived_can_be_deleted_and_comes_back(repository: RedisJobRepository, server: Nodes) -> None:
    """Without any job hash, listing and index, rebuild makes the store what it was, key by key."""
    await fill(repository)
    before = await dump(server)
    await delete(
        server, "job:", "jobs:", "owned:", "ids", "index:", "users", "emails", "keys", "key-hashes", "user-keys:"
    )
    assert len(await repository.verify()) > 10
    with pytest.raises(ProjectionMissingError):
        await repository.get_job("job-1")
    with pytest.raises(ProjectionMissingError):
        await repository.add_event("job-1", JobEvent("log", "x"))
    assert await repository.rebuild() != []
    assert await repository.verify() == []
    assert await dump(server) == before


@pytest.mark.parametrize(
    "damage",
    [
        ("HSET", "{ci:0}:job:job-1", "status", "queued"),
        ("HSET", "{ci:0}:job:job-1", "position", "7"),
        ("HINCRBY", "{ci:0}:job:job-1", "bytes", "1"),
        ("HDEL", "{ci:0}:job:job-3", "success"),
        ("HSET", "{ci:0}:job:job-3", "unheard_of", "1"),
        ("RPUSH", "{ci:0}:index:job-1", "1 1 1 1"),
        ("DEL", "{ci:0}:index:job-1"),
        ("RPOP", "{ci:0}:index:job-1", "2"),
        ("ZADD", "{ci:0}:jobs:running", "0", "0000000000000000:ghost"),
        ("ZADD", "{ci:0}:owned:running:w", "0", "00e2c8c6fd19b000:job-1"),
        ("DEL", "{ci:0}:jobs:running"),
        ("DEL", "{ci:0}:ids"),
        ("SREM", "{ci:accounts}:users", "u"),
        ("HSET", "{ci:accounts}:emails", "w@x.org", "u"),
        ("SADD", "{ci:accounts}:user-keys:u", "key-v"),
        ("DEL", "{ci:accounts}:key-hashes"),
    ],
    ids=" ".join,
)
async def test_each_damage_is_found_and_mended(
    repository: RedisJobRepository, server: Nodes, damage: tuple[str, ...]
) -> None:
    """Verify reports a wrong field, index or listing, and rebuild makes it right again."""
    await fill(repository)
    before = await dump(server)
    await server.read(*damage)
    assert await repository.verify() != []
    await repository.rebuild()
    assert await repository.verify() == []
    assert await dump(server) == before


async def test_one_rebuild_mends_what_hangs_together(repository: RedisJobRepository, server: Nodes) -> None:
    """A ticket that stands for nothing but a stray of its backlog goes with it, whichever of their keys comes first."""
    for number in range(20):
        queue = f"queue-{number}"
        await repository.create_job(Job(id=f"j{number}", status="queued", queue=queue))
        await server.read("DEL", f"{{ci:0}}:job:j{number}", f"{{ci:0}}:events:j{number}")
    assert await repository.rebuild() != []
    assert await repository.verify() == []


async def test_verify_and_rebuild_while_the_store_is_in_use(repository: RedisJobRepository) -> None:
    """Writers in full swing make no difference, and a rebuild beside them loses nothing."""
    await repository.create_job(Job(id="busy", status="running", user_id="u"))
    stop = asyncio.Event()

    async def write() -> int:
        count = 0
        while not stop.is_set():
            await repository.add_events("busy", [JobEvent("log", "x\n")] * 20)
            count += 20
        return count

    async def move() -> None:
        while not stop.is_set():
            await repository.update_job_status("busy", "queued")
            await repository.update_job_status("busy", "running")

    writers = [asyncio.create_task(write()) for _ in range(4)]
    mover = asyncio.create_task(move())
    # Each time takes longer, since the log grows.
    for _ in range(10 if is_thorough() else 4):
        assert await repository.verify() == []
        assert await repository.rebuild("busy") == []
    stop.set()
    await mover
    job = await repository.get_job("busy")
    assert job is not None
    assert len(job.events) == sum([await writer for writer in writers])


async def test_a_stream_that_is_gone_is_reported(repository: RedisJobRepository, server: Nodes) -> None:
    """A hash without its stream can't be rebuilt, so it stays reported."""
    await repository.create_job(Job(id="a", status="queued"))
    await server.read("DEL", "{ci:0}:events:a")
    assert [str(difference) for difference in await repository.verify()] == [
        "job a: stream: expected 'events', found None"
    ]
    await server.read("FLUSHALL")


async def test_a_missing_event_is_no_end(repository: RedisJobRepository, server: Nodes) -> None:
    """Where the stream has less than the hash says, readers are told, whether it is missing inside or behind."""
    await repository.create_job(Job(id="a", status="running", events=[JobEvent("log", str(n)) for n in range(5)]))
    for deleted, expected in [("5-0", 5), ("3-0", 3)]:
        await server.read("XDEL", "{ci:0}:events:a", deleted)
        for read in (repository.get_job("a"), repository.get_events_since("a", 1), repository.read_events("a", 2, 9)):
            with pytest.raises(StreamDamagedError) as caught:
                await read
            assert caught.value.expected == expected
    await server.read("FLUSHALL")


async def test_a_closed_repository_ends_its_followers(valkey: RealServer, server: Nodes) -> None:
    """Who follows an idle job isn't left hanging when the repository is closed."""
    repository = RedisJobRepository.from_url(valkey.url)
    await asyncio.gather(repository.initialize(), repository.initialize())
    await repository.create_job(Job(id="a", status="running", events=[JobEvent("log", "x")]))
    following = repository.follow_events("a")
    assert (await anext(following)).data == "x"
    waiting = asyncio.ensure_future(anext(following))
    await asyncio.sleep(0)
    await repository.close()
    with pytest.raises(NotInitializedError):
        await waiting


async def test_one_job_is_verified_alone(repository: RedisJobRepository, server: Nodes) -> None:
    """With an id, only that job is looked at; a missing one is an error."""
    await fill(repository)
    await server.read("HSET", "{ci:0}:job:job-1", "status", "queued")
    assert await repository.verify("job-2") == []
    assert [difference.place for difference in await repository.verify("job-1")] != []
    assert await repository.rebuild("job-1") != []
    assert await repository.verify("job-1") == []
    with pytest.raises(JobNotFoundError):
        await repository.verify("none")


async def test_lost_indexes_hide_nothing(valkey: RealServer, server: Nodes) -> None:
    """Without the sets that name all jobs, users and keys, each is still found, but by a fast walk."""
    async with RedisJobRepository.from_url(valkey.url, partitions=4) as repository:
        await fill(repository)
        before = await dump(server)
        await server.read("HSET", repository.engine.keys.job("job-3").hash, "success", "")
        await delete(server, "ids", "users", "keys")
        found = await repository.verify()
        jobs = {*(f"job job-{number}" for number in range(5)), "job made"}
        assert {difference.subject for difference in found} == {*jobs, "accounts"}
        lost = {difference.place.split()[-1] for difference in found if difference.subject == "accounts"}
        assert lost == {"u", "v", "key-u", "key-v"}
        assert await repository.verify(fast=True) == await repository.rebuild(fast=True) == []
        assert set(await repository.rebuild()) == set(found)
        assert await repository.verify() == []
        await server.read("HSET", repository.engine.keys.job("job-3").hash, "success", "")
        assert {difference.subject for difference in await repository.rebuild(fast=True)} == {"job job-3"}
    assert await dump(server) == before


async def test_what_stands_in_no_index_is_found_by_one_walk(valkey: RealServer, server: Nodes) -> None:
    """Whatever there is, a node's keys are walked once; by a fast one not at all."""
    async with RedisJobRepository.from_url(valkey.url, partitions=4) as repository:
        await fill(repository)
        for fast, walks in ((False, 1), (True, 0)):
            await server.read("CONFIG", "RESETSTAT")
            assert await repository.verify(fast=fast) == await repository.rebuild(fast=fast) == []
            calls = as_info(await server.read("INFO", "commandstats")).get("cmdstat_scan", "calls=0,")
            assert calls.startswith(f"calls={2 * walks},")


@pytest.mark.parametrize(
    "stray",
    [
        ("ZADD", "{ci:0}:jobs:running", "0", "0000000000000000:ghost"),
        ("ZADD", "{ci:0}:leases:", "0", "ghost"),
        ("ZADD", "{ci:0}:ids", "0", "ghost"),
        ("SADD", "{ci:accounts}:user-keys:u", "key-v"),
        ("HSET", "{ci:accounts}:emails", "w@x.org", "u"),
        ("SREM", "{ci:accounts}:keys", "key-u"),
    ],
    ids=" ".join,
)
async def test_a_fast_walk_looks_at_what_is_known_by_name(
    repository: RedisJobRepository, server: Nodes, stray: tuple[str, ...]
) -> None:
    """What doesn't belong into such an index is found without a walk through all keys; a nameless record isn't."""
    await fill(repository)
    before = await dump(server)
    await server.read(*stray)
    is_hidden = stray[0] == "SREM"
    assert (await repository.verify(fast=True) == []) == is_hidden
    await repository.rebuild(fast=not is_hidden)
    assert await repository.verify() == []
    assert await dump(server) == before
