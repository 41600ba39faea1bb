"""Logs moved to the archive and back lose nothing and double nothing: stopped anywhere, by two, under late output."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import fakeredis
import msgpack
import pytest

from ci_common.errors import RepositoryError
from ci_common.models import Job, JobEvent
from ci_eventstore.archive import MARK, OWNER, Archive
from ci_eventstore.connection.nodes import Nodes
from ci_eventstore.connection.replies import as_texts
from ci_eventstore.connection.scripts import Script
from ci_eventstore.errors import (
    ArchiveDiffersError,
    ArchiveUnavailableError,
    ConfigurationError,
    SegmentDamagedError,
)
from ci_eventstore.events.sealed_log import references_in
from ci_eventstore.history.archiving import ARCHIVE, Moved, archive_job, unarchive_job
from ci_eventstore.history.seal import Sealed
from ci_eventstore.jobs.packed_records import PIECES, pieces_of
from ci_eventstore.keys import Keys, segment_key
from ci_eventstore.repository import RedisJobRepository
from tests.examples import slow
from tests.integration.store.sealing import NOW, archive_sealed, ended_job, lines, seal_job
from tests.integration.store.test_sealing import seen
from tests.servers import RealServer
from tests.waiting import wait_until


async def archive(repository: RedisJobRepository, folder: Path, job_id: str = "j") -> Moved:
    """Move a job's segments to the archive in a folder."""
    engine = repository.engine
    logs = engine.reader.source
    there = await logs.sealed.archived.remember(engine.keys, folder.as_uri())
    return await archive_job(engine.nodes, logs, there, engine.keys.job(job_id))


async def unarchive(repository: RedisJobRepository, job_id: str = "j") -> Moved:
    """Bring them back."""
    engine = repository.engine
    return await unarchive_job(engine.nodes, engine.reader.source, engine.keys.job(job_id))


@contextmanager
def read_without(folder: Path) -> Iterator[None]:
    """Take the archive away for a while."""
    away = folder.rename(folder.with_name("away"))
    yield
    away.rename(folder)


async def segments_in_store(server: Nodes) -> int:
    """Return how many segments have keys."""
    return sum([len(page) async for page in server.scan("{ci:0}:segment:*")])


@pytest.mark.usefixtures("small_segments")
@pytest.mark.parametrize("count", [3, 700])
async def test_readers_get_the_same_there_and_back(
    repository: RedisJobRepository, server: Nodes, tmp_path: Path, count: int
) -> None:
    """A small job, whose record was packed, and one of many segments; with late output each time."""
    await ended_job(repository, count=count)
    for round_ in range(2):
        assert await archive(repository, tmp_path) is Moved.NOT_DUE
        assert await seal_job(repository) is Sealed.SEALED
        before = await seen(repository, "j", [0, 1, count - 1, count])
        for move, done, there in ((archive, Moved.MOVED, 0), (unarchive, Moved.MOVED, 1), (archive, Moved.MOVED, 0)):
            assert await (move(repository, tmp_path) if move is archive else unarchive(repository)) is done
            assert (await segments_in_store(server) > 0) == there
            repository.engine.reader.source.sealed.forget()
            assert await seen(repository, "j", [0, 1, count - 1, count]) == before
            assert await repository.verify(deep=True) == []
        assert await archive(repository, tmp_path) is Moved.ALREADY
        await repository.add_events("j", lines(3, 2000 + round_))
        assert len(await repository.get_events_since("j", count + 1)) == 3 * (round_ + 1)
        assert await repository.verify(deep=True) == []
    assert await unarchive(repository, "nothing") is Moved.MISSING


@pytest.mark.parametrize("command", [["make", "test"], ["x" * 300]], ids=["short", "long"])
async def test_records_of_archived_jobs_are_small(
    repository: RedisJobRepository, server: Nodes, keys: Keys, tmp_path: Path, command: list[str]
) -> None:
    """They are read without the archive, verified, mended, moved back, and whole again after a write."""
    job = Job(id="j", status="failed", user_id="ada", name="build", command=command, exit_code=2, start_time=NOW)
    await repository.create_job(job)
    before, key = await repository.get_job("j"), keys.job("j").hash
    assert await seal_job(repository) is Sealed.SEALED
    assert await server.read("HMGET", key, "status", "created_at", "end_time", "name") == [None] * 4
    assert await archive(repository, tmp_path) is Moved.MOVED
    if len(command) == 2:
        kept = ["version", "bytes", "lines", "mark", "incarnation", "user_id", "log", "r0"]
        assert as_texts(await server.read("HKEYS", key)) == kept
        assert await server.read("OBJECT", "ENCODING", key) == b"listpack"
    with read_without(tmp_path):
        assert await repository.get_job("j") == before
        assert await repository.page_jobs(user_id="ada", status="failed") == [before]
        assert await repository.page_jobs() == [before]
    assert await repository.verify(deep=True) == []
    for _ in range(2):
        assert await unarchive(repository) is Moved.MOVED
        assert await repository.get_job("j") == before
        assert await archive(repository, tmp_path) is Moved.MOVED
    record = await server.read("DUMP", key)
    field = "r0" if len(command) == 2 else "status"
    value = await server.read("HGET", key, field)
    for damage in (("HSET", key, field, "x"), ("HDEL", key, field), ("HSET", key, field, value[:-1] + b"\xc2")):
        await server.read(*damage)
        assert await repository.verify() != []
        await repository.rebuild()
        assert await repository.get_job("j") == before
        assert await repository.verify() == []
        await server.read("RESTORE", key, 0, record, "REPLACE")
    await repository.keep_job("j")
    assert not {*PIECES} & {*as_texts(await server.read("HKEYS", key))}
    after = await repository.get_job("j")
    assert after == before
    assert await repository.verify(deep=True) == []


@pytest.mark.parametrize("size", range(1, 30, 4))
async def test_pieces_of_version_4_stay(
    repository: RedisJobRepository, server: Nodes, keys: Keys, tmp_path: Path, size: int
) -> None:
    """They are longer, so that there may be more of them; both forms are read, and never mixed."""
    start, end = NOW + timedelta(microseconds=7), NOW + timedelta(seconds=60, microseconds=8)
    job = Job(id="j", status="failed", name="build", command=["x" * size], exit_code=2, created_at=NOW)
    await repository.create_job(replace(job, start_time=start, end_time=end))
    before, key = await repository.get_job("j"), keys.job("j").hash
    assert await seal_job(repository) is Sealed.SEALED
    assert await archive(repository, tmp_path) is Moved.MOVED
    values = ["f", NOW, end, None, start, "build", None, ["x" * size], 2]
    await server.read("HDEL", key, *PIECES)
    pieces = [text for piece in pieces_of(msgpack.packb(values, datetime=True)).items() for text in piece]
    await server.read("HSET", key, "position", 0, "part", 2, *pieces)
    for back in (True, False, True):
        assert await repository.get_job("j") == before
        assert await repository.verify(deep=True) == []
        assert await (unarchive(repository) if back else archive(repository, tmp_path)) is Moved.MOVED
    assert await repository.get_job("j") == before
    assert await repository.verify(deep=True) == []


@pytest.mark.parametrize("command", [["make"], ["x" * 300]], ids=["short", "long"])
@pytest.mark.parametrize("back", [False, True], ids=["there", "back"])
async def test_a_log_that_goes_on_meanwhile(
    repository: RedisJobRepository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: list[str], back: bool
) -> None:
    """What comes between reading the record and moving its log is there, and is moved another time."""
    await repository.create_job(Job(id="j", status="running", user_id="ada", command=command))
    await repository.add_events("j", lines(2))
    await repository.complete_job("j", True, NOW)
    assert await seal_job(repository) is Sealed.SEALED
    if back:
        assert await archive(repository, tmp_path) is Moved.MOVED
    run = Nodes.run

    async def run_late(self: Nodes, script: Script, *arguments: Any) -> Any:
        if script is ARCHIVE:
            monkeypatch.setattr(Nodes, "run", run)
            await repository.add_events("j", lines(1, 2))
        return await run(self, script, *arguments)

    monkeypatch.setattr(Nodes, "run", run_late)
    assert await (unarchive(repository) if back else archive(repository, tmp_path)) is Moved.CHANGED
    assert [event.id for event in await repository.get_events_since("j", 0)] == [1, 2, 3, 4]
    await repository.add_events("j", lines(1, 3))
    assert await repository.verify(deep=True) == []
    if back:
        assert await unarchive(repository) is Moved.MOVED
    assert await seal_job(repository) is Sealed.SEALED
    assert await archive(repository, tmp_path) is Moved.MOVED
    assert [event.id for event in await repository.get_events_since("j", 0)] == [1, 2, 3, 4, 5]


@pytest.mark.usefixtures("small_segments")
@pytest.mark.parametrize("rounds", [2, slow(30)])
async def test_all_meet(repository: RedisJobRepository, tmp_path: Path, seed: int, rounds: int) -> None:
    """Two archive, one brings back, one seals, one writes, and readers begin anywhere: each event is there, once."""
    choose, is_over = random.Random(seed), False
    await ended_job(repository, count=300)
    await seal_job(repository)
    done = dict.fromkeys(("archived", "brought", "sealed"), 0)

    async def again_and_again(name: str, work: Callable[[], Awaitable[object]]) -> None:
        while not is_over:
            done[name] += await work() in (Moved.MOVED, Sealed.SEALED)
            await asyncio.sleep(0)

    async def write() -> None:
        nonlocal is_over
        for number in range(rounds):
            before = dict(done)
            await repository.add_events("j", lines(1, 1000 + number))
            await wait_until(lambda before=before: all(done[name] > before[name] for name in done))  # type: ignore[misc]
        is_over = True

    async def read() -> None:
        while not is_over:
            after = choose.randrange(302)
            events = await repository.get_events_since("j", after)
            assert [event.id for event in events] == list(range(after + 1, after + 1 + len(events)))
            assert len(events) + after >= 301

    await asyncio.gather(
        write(),
        read(),
        again_and_again("archived", lambda: archive(repository, tmp_path)),
        again_and_again("archived", lambda: archive(repository, tmp_path)),
        again_and_again("brought", lambda: unarchive(repository)),
        again_and_again("sealed", lambda: seal_job(repository)),
    )
    late = [event.data for event in await repository.get_events_since("j", 301)]
    assert late == [event.data for event in lines(rounds, 1000)]
    assert await repository.verify(deep=True) == []


async def another_job(repository: RedisJobRepository) -> None:
    """Have another job of the same id there."""
    await repository.engine.nodes.read("HSET", repository.engine.keys.job("j").hash, "incarnation", "ab" * 8)


async def late_and_sealed(repository: RedisJobRepository) -> None:
    """Have late output in a segment that replaces the one that was read."""
    await repository.add_event("j", JobEvent("log", "late\n"))
    assert await seal_job(repository) is Sealed.SEALED


async def deleted(repository: RedisJobRepository) -> None:
    """Have it deleted, which looks for objects before the one is there."""
    assert await repository.delete_job("j")


MEANWHILE = {"another": another_job, "late": late_and_sealed, "deleted": deleted}


@pytest.mark.parametrize("what", list(MEANWHILE))
async def test_what_happens_meanwhile_is_found(
    repository: RedisJobRepository, server: Nodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """Between the reading and the swap: the record stays, its segment too; of a deleted job no object is left."""
    await ended_job(repository)
    await seal_job(repository)
    engine, put, waits = repository.engine, Archive.put, True
    incarnation = await server.read("HGET", engine.keys.job("j").hash, "incarnation")
    there = await engine.reader.source.sealed.archived.remember(engine.keys, tmp_path.as_uri())

    async def put_later(archive: Archive, name: str, data: bytes) -> None:
        nonlocal waits
        if waits:
            waits = False
            await MEANWHILE[what](repository)
        await put(archive, name, data)

    monkeypatch.setattr(Archive, "put", put_later)
    found = await archive_job(engine.nodes, engine.reader.source, there, engine.keys.job("j"))
    assert found is (Moved.MISSING if what == "deleted" else Moved.CHANGED)
    assert await segments_in_store(server) == (0 if what == "deleted" else 1)
    names = {path.name for path in tmp_path.rglob("*") if path.is_file()}  # noqa: ASYNC240 - of a test
    assert what != "deleted" or names == {MARK, OWNER, "deleted-a"}
    if what == "another":
        await server.read("HSET", engine.keys.job("j").hash, "incarnation", incarnation)
    assert await repository.verify(deep=True) == []


async def test_what_cant_be_verified_stays(
    repository: RedisJobRepository, server: Nodes, keys: Keys, tmp_path: Path
) -> None:
    """A damaged segment isn't archived; where the archive has other bytes of its name, those stay, and the segment."""
    await ended_job(repository)
    await seal_job(repository)
    state = await repository.engine.jobs.state("j")
    assert state is not None
    [reference] = references_in("j", state.log or "")
    key = segment_key(keys.job("j"), reference.name)
    data = await server.read("GET", key)
    await server.read("SET", key, data[:50] + bytes([data[50] ^ 1]) + data[51:])
    with pytest.raises(SegmentDamagedError):
        await archive(repository, tmp_path)
    await server.read("SET", key, data)
    [name] = await archive_sealed(repository, tmp_path)
    await unarchive(repository)
    (tmp_path / name).write_bytes(b"something else")
    with pytest.raises(ArchiveDiffersError):
        await archive(repository, tmp_path)
    assert await repository.verify(deep=True) == []
    (tmp_path / name).unlink()
    assert await archive(repository, tmp_path) is Moved.MOVED
    (tmp_path / name).write_bytes(data[:-1])
    repository.engine.reader.source.sealed.forget()
    with pytest.raises(SegmentDamagedError):
        await unarchive(repository)
    (tmp_path / name).write_bytes(data)
    assert await unarchive(repository) is Moved.MOVED


async def test_the_store_has_one_archive(repository: RedisJobRepository, server: Nodes, tmp_path: Path) -> None:
    """Another URL is refused; so is a folder that has lost its mark, as one that isn't mounted has."""
    await ended_job(repository)
    await seal_job(repository)
    with pytest.raises(ConfigurationError, match="secret"):
        await repository.engine.reader.source.sealed.archived.remember(
            repository.engine.keys, "s3://user:pass@bucket/x"
        )
    await repository.engine.reader.source.sealed.archived.remember(repository.engine.keys, tmp_path.as_uri())
    other = tmp_path / "other"
    other.mkdir()
    with pytest.raises(ConfigurationError, match="another one"):
        await archive(repository, other)
    (tmp_path / MARK).unlink()
    with pytest.raises(ArchiveUnavailableError):
        await archive(repository, tmp_path)
    assert await segments_in_store(server) == 1
    assert await repository.verify(deep=True) == []


async def test_without_an_archive_nothing_comes_back_and_all_else_goes_on(
    repository: RedisJobRepository, tmp_path: Path
) -> None:
    """While it is away: named, by `unarchive`, and by sealing late output; writes go on, and later all is there."""
    await ended_job(repository)
    await seal_job(repository)
    await archive(repository, tmp_path)
    repository.engine.reader.source.sealed.forget()
    (tmp_path / "ci").rename(tmp_path / "away")
    (tmp_path / MARK).unlink()
    for _ in range(2):
        await repository.add_event("j", JobEvent("log", "late\n"))
        for work in (unarchive(repository), seal_job(repository)):
            with pytest.raises(ArchiveUnavailableError):
                await work
    (tmp_path / "away").rename(tmp_path / "ci")
    (tmp_path / MARK).write_bytes(b"archive of ci_eventstore, version 1\n")
    assert await seal_job(repository) is Sealed.SEALED
    assert len(await repository.get_events_since("j", 0)) == 33
    assert await repository.verify(deep=True) == []


async def test_a_server_without_memory_archives(own: RealServer, tmp_path: Path) -> None:
    """That is what helps then."""
    async with RedisJobRepository.from_url(own.url) as repository:
        await ended_job(repository)
        before = await repository.get_job("j")
        await seal_job(repository)
        await repository.engine.reader.source.sealed.archived.remember(repository.engine.keys, tmp_path.as_uri())
        await repository.engine.nodes.read("CONFIG", "SET", "maxmemory", "1")
        try:
            assert await archive(repository, tmp_path) is Moved.MOVED
        finally:
            await repository.engine.nodes.read("CONFIG", "SET", "maxmemory", "0")
        assert await repository.get_job("j") == before


async def test_a_simulated_server_archives_too(tmp_path: Path) -> None:
    """Whoever tests with `fakeredis` has archived jobs there."""
    client = fakeredis.FakeAsyncRedis(server=fakeredis.FakeServer(version=(7, 0)))
    async with RedisJobRepository(client) as repository:
        await ended_job(repository)
        before = await seen(repository, "j", [0, 3])
        await seal_job(repository)
        await archive_sealed(repository, tmp_path)
        assert await seen(repository, "j", [0, 3]) == before
        assert await unarchive(repository) is Moved.MOVED
        assert await seen(repository, "j", [0, 3]) == before
        with pytest.raises(RepositoryError):
            await repository.engine.reader.source.sealed.archived.remember(repository.engine.keys, "file:///other")
