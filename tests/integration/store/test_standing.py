"""Whether there is a job: by its hash and its stream, for everyone who asks."""

from collections.abc import Awaitable, Callable

import pytest

from ci_common.errors import JobAlreadyExistsError, JobNotFoundError, RepositoryError
from ci_common.models import Job, JobEvent, utc_now
from ci_eventstore.connection.nodes import Nodes
from ci_eventstore.errors import ProjectionMissingError, StreamDamagedError
from ci_eventstore.events.log_source import Standing, read_standing
from ci_eventstore.keys import Keys
from ci_eventstore.repository import RedisJobRepository
from tests.integration.store.test_script_libraries import run

#: Whether there is a hash and whether there is a stream, and what that makes of an id.
TABLE = [
    (True, True, Standing.THERE),
    (True, False, Standing.THERE),
    (False, True, Standing.UNPROJECTED),
    (False, False, Standing.MISSING),
]
#: What an id of each standing is answered with where the job has to be there.
REFUSED: dict[Standing, type[RepositoryError] | None] = {
    Standing.THERE: None,
    Standing.UNPROJECTED: ProjectionMissingError,
    Standing.MISSING: JobNotFoundError,
}

Use = Callable[[RedisJobRepository], Awaitable[object]]


async def follow(repository: RedisJobRepository) -> None:
    """Begin to follow the job."""
    follower = await repository.follow("j")
    follower.close()


USES: dict[str, Use] = {
    "append": lambda repository: repository.add_event("j", JobEvent("log", "more\n")),
    "change": lambda repository: repository.update_job_status("j", "running"),
    "complete": lambda repository: repository.complete_job("j", True, utc_now()),
    "cancel": lambda repository: repository.cancel_job("j"),
    "read": lambda repository: repository.read_events("j", 2),
    "follow": follow,
}


async def make(repository: RedisJobRepository, nodes: Nodes, keys: Keys, has_hash: bool, has_stream: bool) -> None:
    """Create a job with two events, and take from it what it shall not have."""
    await repository.create_job(Job(id="j", status="queued", events=[JobEvent("log", "a\n"), JobEvent("log", "b\n")]))
    job = keys.job("j")
    for key in [job.hash] * (not has_hash) + [job.stream] * (not has_stream):
        await nodes.read("DEL", key)


async def remove(repository: RedisJobRepository, nodes: Nodes, keys: Keys) -> None:
    """Remove the job, and what points to it."""
    await nodes.read("DEL", *keys.job("j").all())
    await repository.rebuild()
    assert await repository.verify() == []


@pytest.mark.parametrize(("has_hash", "has_stream", "standing"), TABLE)
async def test_scripts_and_programs_agree(
    repository: RedisJobRepository, server: Nodes, keys: Keys, has_hash: bool, has_stream: bool, standing: Standing
) -> None:
    """The function of scripts says what Python's says."""
    await make(repository, server, keys, has_hash, has_stream)
    job = keys.job("j")
    body = "return standing_of(redis.call('EXISTS', KEYS[1]) == 1, KEYS[2])"
    assert await run(server, "existence", body, keys=(job.hash, job.stream)) == standing.value.encode()
    assert await read_standing(server, job) is standing
    await remove(repository, server, keys)


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize(("has_hash", "has_stream", "standing"), TABLE)
async def test_a_use_of_a_job(
    repository: RedisJobRepository,
    server: Nodes,
    keys: Keys,
    has_hash: bool,
    has_stream: bool,
    standing: Standing,
    use: str,
) -> None:
    """Whoever uses a job is told by its standing alone; a log that is gone is damage where it is followed."""
    await make(repository, server, keys, has_hash, has_stream)
    refused = REFUSED[standing]
    if use == "follow" and standing is Standing.THERE and not has_stream:
        refused = StreamDamagedError
    if refused is None:
        await USES[use](repository)
    else:
        with pytest.raises(refused):
            await USES[use](repository)
        assert bool(await server.read("EXISTS", keys.job("j").stream)) == has_stream
    await remove(repository, server, keys)


@pytest.mark.parametrize("status", ["queued", "running"])
@pytest.mark.parametrize(("has_hash", "has_stream", "standing"), TABLE)
async def test_a_creation(
    repository: RedisJobRepository,
    server: Nodes,
    keys: Keys,
    has_hash: bool,
    has_stream: bool,
    standing: Standing,
    status: str,
) -> None:
    """An id is given to a new job if it is missing, and in no other case: by both scripts that create jobs."""
    await make(repository, server, keys, has_hash, has_stream)
    if standing is Standing.MISSING:
        await repository.create_job(Job(id="j", status=status))
    else:
        with pytest.raises(JobAlreadyExistsError):
            await repository.create_job(Job(id="j", status=status))
    await remove(repository, server, keys)


@pytest.mark.parametrize(("has_hash", "has_stream", "standing"), TABLE)
async def test_a_look_at_a_job(
    repository: RedisJobRepository, server: Nodes, keys: Keys, has_hash: bool, has_stream: bool, standing: Standing
) -> None:
    """A job that may be mended isn't said to be missing, neither by a look at it nor by `verify`."""
    await make(repository, server, keys, has_hash, has_stream)
    if standing is Standing.UNPROJECTED:
        with pytest.raises(ProjectionMissingError):
            await repository.get_job_summary("j")
        assert await repository.rebuild("j")
        assert await repository.verify("j") == []
    elif standing is Standing.MISSING:
        assert await repository.get_job_summary("j") is None
        with pytest.raises(JobNotFoundError):
            await repository.verify("j")
    else:
        assert await repository.get_job_summary("j") is not None
        assert (await repository.verify("j") == []) == has_stream
    await remove(repository, server, keys)
