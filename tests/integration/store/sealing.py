"""Jobs that are sealed, for tests."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

from ci_common.models import Job, JobEvent
from ci_eventstore.events.archived_log import name_in_archive
from ci_eventstore.events.sealed_log import references_in
from ci_eventstore.history.archiving import Moved, archive_job
from ci_eventstore.history.seal import Sealed, seal
from ci_eventstore.repository import RedisJobRepository

NOW = datetime(2026, 11, 26, tzinfo=UTC)


def lines(count: int, start: int = 0) -> list[JobEvent]:
    """Return log events with times of their own, not all in ASCII, some of them so long that they are stored packed."""
    return [
        JobEvent("log", _line(number), timestamp=NOW + timedelta(milliseconds=number))
        for number in range(start, start + count)
    ]


def _line(number: int) -> str:
    return f"line {number} ü{'.' * (number % 7 // 6 * 600)}\n"


async def seal_job(repository: RedisJobRepository, job_id: str = "j") -> Sealed:
    """Seal a job as a sweep does."""
    engine = repository.engine
    return await seal(engine.nodes, engine.reader.source, engine.keys, job_id)


async def ended_job(repository: RedisJobRepository, job_id: str = "j", count: int = 30) -> None:
    """Create a job, write to its log, and end it."""
    await repository.create_job(Job(id=job_id, status="running", user_id="ada", name="build", command=["make"]))
    await repository.add_events(job_id, lines(count))
    await repository.complete_job(job_id, True, NOW + timedelta(hours=1))


async def archive_sealed(repository: RedisJobRepository, folder: Path, job_id: str = "j") -> list[str]:
    """Move a sealed job's segments to an archive in a folder; return their objects' names."""
    engine = repository.engine
    keys, source = engine.keys.job(job_id), engine.reader.source
    archive = await source.sealed.archived.remember(engine.keys, folder.as_uri())
    assert await archive_job(engine.nodes, source, archive, keys) in (Moved.MOVED, Moved.ALREADY)
    state = await engine.jobs.state(job_id)
    assert state is not None
    source.sealed.forget()
    return [name_in_archive(keys, state.incarnation, one.name) for one in references_in(job_id, state.log or "")]
