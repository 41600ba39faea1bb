"""Jobs that are sealed, for tests."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

from ci_common.models import Job, JobEvent
from ci_eventstore.archive import Archive, object_name
from ci_eventstore.connection.nodes import Nodes
from ci_eventstore.events.sealed_log import references_in
from ci_eventstore.history.seal import Sealed, seal
from ci_eventstore.jobs.state import to_hash
from ci_eventstore.keys import Keys, segment_key
from ci_eventstore.repository import RedisJobRepository

NOW = datetime(2026, 11, 26, tzinfo=UTC)


def lines(count: int, start: int = 0) -> list[JobEvent]:
    """Return log events with times of their own, not all in ASCII."""
    return [
        JobEvent("log", f"line {start + n} ü\n", timestamp=NOW + timedelta(milliseconds=start + n))
        for n in range(count)
    ]


async def seal_job(repository: RedisJobRepository, job_id: str = "j") -> Sealed:
    """Seal a job as a sweep does."""
    engine = repository.engine
    return await seal(engine.nodes, engine.reader.source, engine.keys, job_id)


async def ended_job(repository: RedisJobRepository, job_id: str = "j", count: int = 30) -> None:
    """Create a job, write to its log, and end it."""
    await repository.create_job(Job(id=job_id, status="running", user_id="ada", name="build", command=["make"]))
    await repository.add_events(job_id, lines(count))
    await repository.complete_job(job_id, True, NOW + timedelta(hours=1))


async def archive_job(
    repository: RedisJobRepository, server: Nodes, keys: Keys, folder: Path, job_id: str = "j"
) -> list[str]:
    """Put a sealed job's segments into an archive and have its record say so; return their objects' names."""
    archive, job = Archive(folder.as_uri()), keys.job(job_id)
    await archive.prepare()
    await server.read("HSET", keys.store, "archive", archive.url)
    state = await repository.engine.jobs.state(job_id)
    assert state is not None
    references, names = references_in(job_id, state.log or ""), list[str]()
    for one in references:
        key = segment_key(job, one.name)
        names.append(object_name(keys.prefix, int(job.tag[1:-1].split(":")[1]), job_id, state.incarnation, one.name))
        await archive.put(names[-1], await server.read("GET", key))
        await server.read("DEL", key)
    log = " ".join(str(one._replace(is_archived=True)) for one in references)
    fields = {**to_hash(state), "log": log}
    await server.read("HSET", job.hash, *(part for field in fields.items() for part in field))
    repository.engine.reader.source.sealed.forget()
    return names
