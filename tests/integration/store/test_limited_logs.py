"""A log that is over its head is known to be: each of its lines is one call, as those of all others are."""

from collections.abc import AsyncIterator

import pytest

from ci_common.errors import JobNotFoundError
from ci_common.models import Job, JobEvent
from ci_eventstore.connection.nodes import Nodes
from ci_eventstore.jobs import store
from ci_eventstore.repository import RedisJobRepository
from tests.integration.store.test_completions import calls
from tests.servers import RealServer


@pytest.fixture
async def small(valkey: RealServer, server: Nodes) -> AsyncIterator[RedisJobRepository]:
    """A repository whose logs have small heads."""
    async with RedisJobRepository.from_url(valkey.url, max_head_bytes=10) as repository:
        yield repository


async def write(repository: RedisJobRepository, server: Nodes, job_id: str = "a", data: str = "123456") -> int:
    """Write a line; return how many script calls that took."""
    before = await calls(server)
    await repository.add_event(job_id, JobEvent("log", data))
    return await calls(server) - before


async def test_only_the_first_line_over_the_head_takes_two_calls(small: RedisJobRepository, server: Nodes) -> None:
    """Also when the job has ended, which has late output as well."""
    await small.create_job(Job(id="a", status="running"))
    assert [await write(small, server) for _ in range(4)] == [1, 2, 1, 1]
    await small.cancel_job("a")
    assert await write(small, server) == 1
    events = await small.get_events_since("a", 0)
    assert [event.data for event in events if event.type == "log"].count("123456") == 5
    assert await small.verify() == []


async def test_another_job_of_that_id_has_another_log(small: RedisJobRepository) -> None:
    """What is known is forgotten when there is none, or when the job is created."""
    known = small.engine.jobs._limited
    known.add("a")
    with pytest.raises(JobNotFoundError):
        await small.add_event("a", JobEvent("log", "x"))
    assert "a" not in known
    known.add("a")
    await small.create_job(Job(id="a", status="running"))
    assert "a" not in known


async def test_what_is_wrongly_known_does_no_harm(small: RedisJobRepository, server: Nodes) -> None:
    """The lines are written all the same, and so is the end."""
    await small.create_job(Job(id="a", status="running"))
    small.engine.jobs._limited.add("a")
    assert [await write(small, server) for _ in range(2)] == [1, 1]
    await small.cancel_job("a")
    assert [event.data for event in await small.get_events_since("a", 0)][:2] == ["123456", "123456"]
    assert await small.verify() == []


async def test_not_more_are_known_than_fit(
    small: RedisJobRepository, server: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that were forgotten take two calls again, once."""
    monkeypatch.setattr(store, "LIMITED_NOTED", 1)
    for job_id in ("a", "b"):
        await small.create_job(Job(id=job_id, status="running"))
        assert [await write(small, server, job_id) for _ in range(3)] == [1, 2, 1]
    assert [await write(small, server) for _ in range(2)] == [2, 1]
