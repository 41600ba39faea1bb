"""What is lost or damaged of a sealed job's record and indexes is mended, and nothing comes of what isn't the job's."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from ci_common.errors import JobGoneError, JobNotFoundError
from ci_common.models import JobEvent
from ci_eventstore.connection.nodes import Nodes
from ci_eventstore.errors import ProjectionDamagedError, StoreFormatError
from ci_eventstore.events.log_source import LogSource
from ci_eventstore.history.seal import STAGED_MS, Sealed
from ci_eventstore.history.sealer import LONGEST_PAUSE_MS, Sealer
from ci_eventstore.keys import JobKeys, Keys, segment_key, unsealable_key
from ci_eventstore.projection.jobs import JobProjections
from ci_eventstore.projection.rebuild import rebuild
from ci_eventstore.projection.sealed import fold_of_sealed
from ci_eventstore.repository import RedisJobRepository
from tests.integration.store.sealing import archive_sealed, ended_job, seal_job

LATE = JobEvent("log", "late\n")
#: A packed record lacks most of them; the first one it has, and from its `rebuild` on, the record has all.
FIELDS = ("version", "position", "status", "end_position", "created_at", "log")


async def follow(repository: RedisJobRepository) -> None:
    async for _ in repository.follow_events("j"):
        pass


WAYS: dict[str, Callable[[RedisJobRepository], Awaitable[object]]] = {
    "read": lambda repository: repository.get_events_since("j", 0),
    "follow": follow,
    "verify": lambda repository: repository.verify("j"),
}


async def damage_ways(server: Nodes, job: JobKeys) -> Mapping[str, Sequence[tuple[str, ...]]]:
    """Return commands for each damage: of the record, of its fields, of the indexes."""
    ways: dict[str, Sequence[tuple[str, ...]]] = {f"no {name}": [("HDEL", job.hash, name)] for name in FIELDS}
    ways |= {f"log {value!r}": [("HSET", job.hash, "log", value)] for value in ("", "x", "0-1,5-0,10")}
    [ended] = await server.read("ZRANGE", job.ended, 0, -1)
    indexes: list[tuple[str, ...]]
    indexes = [("ZREM", job.ids, job.job_id), ("ZREM", job.ended, ended.decode()), ("ZREM", job.unsealed, job.job_id)]
    indexes += [("DEL", "{ci:0}:jobs:completed"), ("DEL", "{ci:0}:jobs")]
    return ways | {"no record": [("DEL", job.hash)], "indexes": indexes, "all": [("DEL", job.hash), *indexes]}


@pytest.mark.parametrize("is_archived", [False, True], ids=["sealed", "archived"])
async def test_a_record_that_lacks_its_log_is_no_missing_job(
    repository: RedisJobRepository, server: Nodes, keys: Keys, tmp_path: Path, *, is_archived: bool
) -> None:
    """Nothing else in a packed record says where the log ends: who reads the job is told that it is damaged."""
    await ended_job(repository)
    assert await seal_job(repository) is Sealed.SEALED
    if is_archived:
        await archive_sealed(repository, tmp_path)
    job = keys.job("j")
    record = await server.read("DUMP", job.hash)
    for damage in (("HDEL", job.hash, "log"), ("HSET", job.hash, "log", "x")):
        await server.read(*damage)
        for way in ("read", "follow"):
            with pytest.raises(ProjectionDamagedError, match="job 'j': where its log ends"):
                await WAYS[way](repository)
        for write in (lambda job_id: repository.add_event(job_id, LATE), repository.delete_job, repository.keep_job):
            with pytest.raises(StoreFormatError, match=r"ci-eventstore rebuild|DAMAGED"):
                await write("j")
        with pytest.raises(JobNotFoundError):
            await repository.get_events_since("j", 0, user_id="bob")
        assert await repository.verify() != []
        await server.read("RESTORE", job.hash, 0, record, "REPLACE")


@pytest.mark.parametrize("is_late", [False, True], ids=["sealed", "late"])
async def test_every_damage_is_mended(
    repository: RedisJobRepository, server: Nodes, keys: Keys, *, is_late: bool
) -> None:
    """Though a record says nonsense of where its log lies, or nothing but segments are left to find the job by."""
    job = keys.job("j")
    await ended_job(repository)
    assert await seal_job(repository) is Sealed.SEALED
    if is_late:
        await repository.add_event("j", LATE)
    before = await repository.get_job("j")
    for what, commands in (await damage_ways(server, job)).items():
        await server.read_many(commands)
        assert await repository.verify() != [], what
        await repository.rebuild()
        assert await repository.get_job("j") == before, what
        assert await repository.verify(deep=True) == [], what


async def test_a_segment_that_expires_is_not_part_of_a_log(
    repository: RedisJobRepository, server: Nodes, keys: Keys
) -> None:
    """A sealer has written it, and stopped; then the record is lost: that refers to what stays, as it did before."""
    job = keys.job("j")
    await ended_job(repository)
    assert await seal_job(repository) is Sealed.SEALED
    log = await server.read("HGET", job.hash, "log")
    await repository.add_event("j", LATE)
    before = await repository.get_job("j")
    # What a sealer that has stopped leaves: the segment of all of it, and all that it would have replaced.
    [old] = [key async for page in server.scan(segment_key(job, "*")) for key in page]
    kept = await server.read_many([("DUMP", key) for key in (old, job.hash, job.stream)])
    assert await seal_job(repository) is Sealed.SEALED
    [staged] = [key async for page in server.scan(segment_key(job, "*")) for key in page]
    await server.read("PEXPIRE", staged, STAGED_MS)
    for key, data in zip((old, job.hash, job.stream), kept, strict=True):
        await server.read("RESTORE", key, 0, data, "REPLACE")
    await server.read("DEL", job.hash)
    await repository.rebuild()
    assert await server.read("HGET", job.hash, "log") == log
    await server.read("DEL", staged)
    assert await repository.get_job("j") == before


@pytest.mark.parametrize("is_sealed", [False, True], ids=["stream", "sealed"])
@pytest.mark.parametrize("way", WAYS)
async def test_a_job_that_is_deleted_while_it_is_read_is_gone(
    repository: RedisJobRepository, monkeypatch: pytest.MonkeyPatch, way: str, *, is_sealed: bool
) -> None:
    """Between the look at how far its log goes and that at its entries: no error of a damaged log."""
    await ended_job(repository, count=1200)
    if is_sealed:
        assert await seal_job(repository) is Sealed.SEALED
        await repository.add_event("j", LATE)
    read, looks = LogSource.range, 0
    # verify reads the first entry of a log that isn't sealed before it looks how far that goes.
    last_look = 2 if way == "verify" and not is_sealed else 1

    async def delete_and_read(*arguments: Any, **options: Any) -> Any:
        nonlocal looks
        looks += 1
        if looks == last_look:
            await repository.delete_job("j")
        return await read(*arguments, **options)

    monkeypatch.setattr(LogSource, "range", delete_and_read)
    with pytest.raises(JobGoneError):
        await WAYS[way](repository)


async def test_a_job_that_is_deleted_while_it_is_rebuilt_stays_deleted(
    repository: RedisJobRepository, server: Nodes, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look at it and the script that mends it."""
    await ended_job(repository)
    assert await seal_job(repository) is Sealed.SEALED
    await server.read("ZREM", keys.job("j").ids, "j")

    async def delete_and_mend(*arguments: Any) -> bytes:
        await repository.delete_job("j")
        return await rebuild(*arguments)

    monkeypatch.setattr("ci_eventstore.projection.jobs.rebuild", delete_and_mend)
    await repository.rebuild("j")
    with pytest.raises(JobGoneError):
        await repository.get_job("j")
    assert await server.read("EXISTS", *keys.job("j").all(), keys.job("j").ids) == 0


@pytest.mark.parametrize("is_deep", [False, True], ids=["fast", "deep"])
async def test_segments_that_are_joined_meanwhile_are_no_damage(
    repository: RedisJobRepository, monkeypatch: pytest.MonkeyPatch, *, is_deep: bool
) -> None:
    """Between the look at where the log lies and that at what lies there it is sealed again, with late output."""
    await ended_job(repository)
    assert await seal_job(repository) is Sealed.SEALED
    await repository.add_event("j", LATE)
    done = list[Sealed]()

    async def seal_and_look(*arguments: Any, **options: Any) -> Any:
        if not done:
            done.append(await seal_job(repository))
            repository.engine.reader.source.sealed.forget()
        return await fold_of_sealed(*arguments, **options)

    monkeypatch.setattr("ci_eventstore.projection.jobs.fold_of_sealed", seal_and_look)
    assert await repository.verify("j", deep=is_deep) == []
    assert done == [Sealed.SEALED]
    await repository.add_event("j", LATE)
    done.clear()
    assert await JobProjections(repository.engine.nodes, repository.engine.reader.source).rebuild(Keys("ci").job("j"))
    assert done == [Sealed.SEALED]


async def test_a_job_of_an_older_program_is_sealed_again_and_deleted(
    repository: RedisJobRepository, server: Nodes, keys: Keys
) -> None:
    """Its record has no incarnation, though its log says one."""
    await ended_job(repository)
    await server.read("HDEL", keys.job("j").hash, "incarnation")
    assert await seal_job(repository) is Sealed.SEALED
    assert await server.read("HEXISTS", keys.job("j").hash, "has_complete") == 0
    await repository.add_event("j", LATE)
    assert await seal_job(repository) is Sealed.SEALED
    assert await repository.verify("j", deep=True) == []
    await repository.delete_job("j")
    with pytest.raises(JobGoneError):
        await repository.get_job("j")


async def test_a_clock_that_was_ahead_keeps_no_job_from_being_sealed(
    repository: RedisJobRepository, server: Nodes, keys: Keys
) -> None:
    """It was to be tried again a year from now, which is longer than any pause is."""
    job = keys.job("j")
    await ended_job(repository)
    seconds, _ = await server.read("TIME")
    now = int(seconds) * 1000
    engine = repository.engine
    sealer = Sealer(engine.nodes, engine.reader.source, engine.keys)
    await server.read("HSET", unsealable_key(job.tag), "j", f"3 {now + LONGEST_PAUSE_MS // 2} broken")
    assert (await sealer.sweep(0)).left == {"j": "broken"}
    await server.read("HSET", unsealable_key(job.tag), "j", f"3 {now + 365 * LONGEST_PAUSE_MS} broken")
    assert (await sealer.sweep(0)).done == 1
    assert await server.read("EXISTS", unsealable_key(job.tag)) == 0
