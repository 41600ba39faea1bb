"""Logs whose segments lie in an archive: read as before, by all readers; what is wrong there is named."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from ci_common.errors import RepositoryError
from ci_common.models import JobEvent
from ci_eventstore.archive import MARK, Archive
from ci_eventstore.connection.nodes import Nodes
from ci_eventstore.errors import ArchiveUnavailableError, SegmentDamagedError
from ci_eventstore.events.sealed_log import END_BYTES, Reference, references_in
from ci_eventstore.history.seal import Sealed
from ci_eventstore.keys import Keys
from ci_eventstore.repository import RedisJobRepository
from ci_eventstore.segments import segment as segments
from tests.integration.store.sealing import archive_sealed, ended_job, lines, seal_job


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Logs of some hundred lines take several blocks."""
    monkeypatch.setattr(segments, "BLOCK_BYTES", 400)


def test_references_say_what_is_archived() -> None:
    """The fifth part is read, and written as it was; another one isn't understood."""
    text = "0-1,31-0,400,0011223344556677,a"
    [found] = references_in("j", text)
    assert (found.is_archived, str(found)) == (True, text)
    assert found.name == Reference(*found[:4]).name
    with pytest.raises(RepositoryError):
        references_in("j", text[:-1] + "b")


async def ways(repository: RedisJobRepository) -> list[object]:
    """Return what each reader says of a job."""
    return [
        await repository.get_job("j"),
        await repository.get_events_since("j", 0),
        await repository.read_events("j", 7, 5),
        [one async for one in repository.follow_events("j", 3)],
        [one async for one in repository.follow_records("j", 0)],
        [one async for one in repository.replay("j", facts=True)],
        await repository.job_at("j", 2),
        await repository.page_jobs(),
    ]


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("count", [3, 500])
async def test_every_reader_sees_the_same(
    repository: RedisJobRepository, server: Nodes, keys: Keys, tmp_path: Path, count: int
) -> None:
    """Before, archived, with late output, sealed again: the same events, verified from the archive, too."""
    await ended_job(repository, count=count)
    before = await ways(repository)
    assert await seal_job(repository) is Sealed.SEALED
    names = await archive_sealed(repository, tmp_path)
    assert await ways(repository) == before
    assert await repository.verify("j", deep=True) == await repository.verify("j") == await repository.verify() == []
    await repository.add_events("j", [JobEvent("log", "late\n")])
    late = await ways(repository)
    assert late[1] == [*before[1], (await repository.get_events_since("j", count + 1))[0]]  # type: ignore[misc]
    assert await seal_job(repository) is Sealed.SEALED
    assert await ways(repository) == late
    assert await repository.verify("j", deep=True) == []
    assert all((tmp_path / name).exists() for name in names)


@pytest.mark.usefixtures("small_blocks")
async def test_many_readers_fetch_once(
    repository: RedisJobRepository, server: Nodes, keys: Keys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Forty readers of one job fetch each range once between them, also if some of them give up."""
    await ended_job(repository, count=1200)
    expected = await repository.get_events_since("j", 0)
    await seal_job(repository)
    await archive_sealed(repository, tmp_path)
    fetched, get_range = list[tuple[int, int]](), Archive.get_range

    async def counting(archive: Archive, name: str, start: int, end: int) -> bytes:
        fetched.append((start, end))
        return await get_range(archive, name, start, end)

    monkeypatch.setattr(Archive, "get_range", counting)
    readers = [asyncio.create_task(repository.get_events_since("j", 0)) for _ in range(40)]
    await asyncio.sleep(0)
    for reader in readers[::10]:
        reader.cancel()
    found = await asyncio.gather(*readers, return_exceptions=True)
    assert all(one == expected for number, one in enumerate(found) if number % 10)
    assert len(fetched) == len(set(fetched)) > 2


async def errors_of(repository: RedisJobRepository) -> list[RepositoryError]:
    """Return what each reader of a log raises; one that shows something fails the test."""
    reads: tuple[Callable[[], Awaitable[object]], ...] = (
        lambda: repository.get_job("j"),
        lambda: repository.get_events_since("j", 0),
        lambda: repository.read_events("j", 1, 5),
        lambda: anext(repository.follow_events("j", 0)),
        lambda: anext(repository.replay("j")),
    )
    errors = list[RepositoryError]()
    for read in reads:
        repository.engine.reader.source.sealed.forget()
        with pytest.raises(RepositoryError) as caught:
            await read()
        errors.append(caught.value)
    return errors


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("count", [3, 500])
async def test_damage_names_job_range_and_object(
    repository: RedisJobRepository, server: Nodes, keys: Keys, tmp_path: Path, count: int
) -> None:
    """A missing, shorter, longer, another's or changed object: each reader says which; then it reads as before."""
    await ended_job(repository, count=count)
    expected = await repository.get_events_since("j", 0)
    await seal_job(repository)
    [name] = await archive_sealed(repository, tmp_path)
    path = tmp_path / name
    data = path.read_bytes()
    assert (len(data) > END_BYTES) == (count > 100)
    flipped = bytes([data[20] ^ 4])
    for damaged in (None, b"", data[:-1], data[:50], data[:20] + flipped + data[21:], data[::-1]):
        path.unlink()
        if damaged is not None:
            path.write_bytes(damaged)
        errors = await errors_of(repository)
        assert {type(error) for error in errors} == {SegmentDamagedError}
        assert all(name in str(error) and "job 'j'" in str(error) for error in errors)
        repository.engine.reader.source.sealed.forget()
        assert "segment" in str((await repository.verify("j", deep=True))[0])
        path.touch()
        path.write_bytes(data)
    repository.engine.reader.source.sealed.forget()
    assert await repository.get_events_since("j", 0) == expected


async def test_an_archive_that_is_away_is_no_empty_log(
    repository: RedisJobRepository, server: Nodes, keys: Keys, tmp_path: Path
) -> None:
    """Without its mark, at a URL that can't be used, or unknown to the store: away; listings go on."""
    await ended_job(repository)
    expected = await repository.get_events_since("j", 0)
    await seal_job(repository)
    [name] = await archive_sealed(repository, tmp_path)
    url = tmp_path.as_uri()
    data, mark = (tmp_path / name).read_bytes(), (tmp_path / MARK).read_bytes()
    (tmp_path / name).unlink()
    (tmp_path / MARK).unlink()
    for change in (("HSET", keys.store, "archive", url), ("HSET", keys.store, "archive", f"{url}/none"),
                   ("HSET", keys.store, "archive", "s3://user:pass@x"), ("HDEL", keys.store, "archive")):  # fmt: skip
        await server.read(*change)
        assert {type(error) for error in await errors_of(repository)} == {ArchiveUnavailableError}
        assert [job.id for job in await repository.page_jobs()] == ["j"]
        with pytest.raises(ArchiveUnavailableError):
            await repository.verify("j", deep=True)
    await server.read("HSET", keys.store, "archive", url)
    (tmp_path / name).write_bytes(data)
    (tmp_path / MARK).write_bytes(mark)
    assert await repository.get_events_since("j", 0) == expected
    await repository.add_events("j", lines(2))
    assert len(await repository.get_events_since("j", 0)) == len(expected) + 2
