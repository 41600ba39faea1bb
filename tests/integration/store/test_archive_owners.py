"""What an archive has of a store's name is one store's: another one of that name is refused before it writes."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ci_eventstore.archive import MARK, OWNER, Archive
from ci_eventstore.connection.nodes import Nodes
from ci_eventstore.errors import ConfigurationError
from ci_eventstore.history.archiver import Archiver
from ci_eventstore.history.archiving import Moved
from ci_eventstore.repository import RedisJobRepository
from tests.cancelling import Counted, Steps
from tests.integration.store.sealing import archive_sealed, ended_job, seal_job
from tests.integration.store.test_archive_check import restore, saved
from tests.integration.store.test_archiving import archive
from tests.servers import RealServer


@pytest.fixture
async def other(own: RealServer) -> AsyncIterator[RedisJobRepository]:
    """A store of the same name on another server."""
    async with RedisJobRepository.from_url(own.url) as opened:
        yield opened


def archiver(repository: RedisJobRepository, folder: Path | None = None) -> Archiver:
    """Return what sweeps a store, and says where the archive is, if a folder is given."""
    engine = repository.engine
    return Archiver(engine.nodes, engine.reader.source, engine.keys, folder.as_uri() if folder else None)


async def test_another_store_of_that_name_is_refused(
    repository: RedisJobRepository, other: RedisJobRepository, tmp_path: Path
) -> None:
    """It keeps no URL, and writes nothing there, until it takes the archive over: then the first one is refused."""
    for one in (repository, other):
        await ended_job(one)
        await seal_job(one)
    [name] = await archive_sealed(repository, tmp_path)
    before = {path for path in tmp_path.rglob("*") if path.is_file()}  # noqa: ASYNC240 - of a test
    for _ in range(2):
        with pytest.raises(ConfigurationError, match=r"another store named 'ci'.*archive rebuild --archive file:///"):
            await archiver(other, tmp_path).sweep(-1e8)
    assert {path for path in tmp_path.rglob("*") if path.is_file()} == before  # noqa: ASYNC240 - of a test
    assert await other.engine.nodes.read("HGET", other.engine.keys.store, "archive") is None
    await archiver(other, tmp_path).find(takes_over=True)
    assert (await archiver(other).sweep(-1e8)).done == 1
    with pytest.raises(ConfigurationError, match="another store"):
        await archiver(repository).sweep(-1e8)
    repository.engine.reader.source.sealed.forget()
    assert len(await repository.get_events_since("j", 0)) == 31
    assert (tmp_path / name).is_file()


async def test_a_restored_store_is_the_one_that_it_was(
    repository: RedisJobRepository, server: Nodes, tmp_path: Path
) -> None:
    """Also if it was restored again, from a backup of before its first archive."""
    await ended_job(repository)
    await seal_job(repository)
    backup = await saved(server)
    assert await archive(repository, tmp_path) is Moved.MOVED
    for folder in (None, tmp_path):
        await repository.restored()
        await archiver(repository, folder).find()
    await restore(repository, server, backup)
    for _ in range(2):
        assert await archive(repository, tmp_path) in (Moved.MOVED, Moved.ALREADY)
        await repository.restored()
    assert await repository.verify(deep=True) == []


async def test_an_older_archive_is_the_first_ones(
    repository: RedisJobRepository, other: RedisJobRepository, tmp_path: Path
) -> None:
    """It has no owner yet, and both stores have its URL: the first one that sweeps has it, the other one is told."""
    for one in (repository, other):
        await one.engine.nodes.read("HSET", one.engine.keys.store, "archive", tmp_path.as_uri())
    await Archive(tmp_path.as_uri()).prepare()
    found = await asyncio.gather(archiver(repository).find(), archiver(other).find(), return_exceptions=True)
    assert [type(one) for one in found if isinstance(one, Exception)] == [ConfigurationError]


async def test_who_is_killed_has_it_or_not(
    repository: RedisJobRepository, other: RedisJobRepository, tmp_path: Path
) -> None:
    """At any await, while taking it over, too: the same one goes on, and never have both of them an archive."""
    at, stores = 0, (repository, other)
    while True:
        at += 1
        folder = tmp_path / str(at)
        folder.mkdir()
        for one in stores:
            await one.engine.nodes.read("HDEL", one.engine.keys.store, "archive")
        await archiver(repository, folder).find()
        steps = Steps(at, 1)

        async def take_over(folder: Path = folder) -> None:
            await archiver(other, folder).find(takes_over=True)

        steps.victim = taking = asyncio.create_task(Counted(take_over(), steps))
        await asyncio.gather(taking, return_exceptions=True)
        found = await asyncio.gather(*(archiver(one).find() for one in stores), return_exceptions=True)
        assert any(isinstance(one, ConfigurationError) for one in found), at
        await take_over()
        assert {path.name for path in folder.rglob("*") if path.is_file()} == {MARK, OWNER}
        with pytest.raises(ConfigurationError):
            await archiver(repository).find()
        if not steps.was_reached:
            break
    assert at > 5
