"""Sweeps move what is due to the archive, past what can't be moved, and stop when the archive is away."""

from pathlib import Path

import pytest

from ci_eventstore.archive import MARK
from ci_eventstore.connection.nodes import Nodes
from ci_eventstore.errors import ArchiveUnavailableError, ConfigurationError
from ci_eventstore.history import archiver as archivers
from ci_eventstore.history.archiver import Archiver
from ci_eventstore.keys import sweeper_key
from ci_eventstore.repository import RedisJobRepository
from tests.integration.store.sealing import ended_job, seal_job
from tests.integration.store.test_archiving import segments_in_store


@pytest.fixture(autouse=True)
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few jobs take several pages."""
    monkeypatch.setattr(archivers, "PAGE_JOBS", 3)


async def test_a_sweep_moves_what_is_due(repository: RedisJobRepository, server: Nodes, tmp_path: Path) -> None:
    """Not what isn't sealed, nor what ended lately; a whole page that can't be moved stops nothing."""
    engine, damaged = repository.engine, [f"j{number:02}" for number in (1, 4, 5, 6, 7, 11)]
    for number in range(12):
        await ended_job(repository, f"j{number:02}", 3)
        if number:
            await seal_job(repository, f"j{number:02}")
    archiver = Archiver(engine.nodes, engine.reader.source, engine.keys, tmp_path.as_uri())
    segments = {}
    for job_id in damaged:
        [key] = [key async for page in server.scan(f"{{ci:0}}:segment:{job_id}:*") for key in page]
        segments[key] = await server.read("GETDEL", key)
    assert (await archiver.sweep(1e9)).done == 0
    sweep = await archiver.sweep(-1e8)
    assert (sweep.done, sorted(sweep.left), sweep.busy) == (5, damaged, 0)
    assert all("missing" in why or "0 bytes" in why for why in sweep.left.values())
    for key, data in segments.items():
        await server.read("SET", key, data)
    await seal_job(repository, "j00")
    archiver = Archiver(engine.nodes, engine.reader.source, engine.keys)
    await server.read("SET", sweeper_key("{ci:0}", "archiver"), "somebody")
    assert (await archiver.sweep(-1e8)).busy == 1
    await server.read("DEL", sweeper_key("{ci:0}", "archiver"))
    assert (await archiver.sweep(-1e8)).done == 7
    assert await segments_in_store(server) == await server.read("EXISTS", sweeper_key("{ci:0}", "archiver")) == 0
    assert await repository.verify(deep=True) == []


async def test_a_sweep_goes_on_where_the_last_one_ended(repository: RedisJobRepository, tmp_path: Path) -> None:
    """It looks at what has ended since, and not at those that it left; another one looks at all."""
    engine = repository.engine
    for number in range(8):
        await ended_job(repository, f"j{number}", 3)
        if number:
            await seal_job(repository, f"j{number}")
    archiver = Archiver(engine.nodes, engine.reader.source, engine.keys, tmp_path.as_uri())
    assert (await archiver.sweep(-1e8)).done == 7
    for job_id in ("j0", "j8", "j9"):
        if job_id != "j0":
            await ended_job(repository, job_id, 3)
        await seal_job(repository, job_id)
    assert (await archiver.sweep(-1e8)).done == 2
    assert (await archiver.sweep(-1e8)).done == 0
    archiver = Archiver(engine.nodes, engine.reader.source, engine.keys)
    assert (await archiver.sweep(-1e8)).done == 1
    assert await repository.verify(deep=True) == []


async def test_a_sweep_stops_when_the_archive_is_away(repository: RedisJobRepository, tmp_path: Path) -> None:
    """It says so, names no jobs for it, and goes on where it was."""
    engine = repository.engine
    for number in range(3):
        await ended_job(repository, f"j{number}", 3)
        await seal_job(repository, f"j{number}")
    archiver = Archiver(engine.nodes, engine.reader.source, engine.keys, tmp_path.as_uri())
    await archiver.find()
    mark = (tmp_path / MARK).read_bytes()
    (tmp_path / MARK).unlink()
    with pytest.raises(ArchiveUnavailableError):
        await archiver.sweep(-1e8)
    (tmp_path / MARK).write_bytes(mark)
    archiver = Archiver(engine.nodes, engine.reader.source, engine.keys)
    assert (await archiver.sweep(-1e8)).done == 3
    await engine.nodes.read("HDEL", engine.keys.store, "archive")
    with pytest.raises(ConfigurationError, match="--archive URL"):
        await archiver.sweep(0)
