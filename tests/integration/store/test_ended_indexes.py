"""The indexes of ended jobs, `ended` and `unsealed`: who stands there, since when, and how they are mended."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

import pytest

from ci_common.models import Job, JobEvent, utc_now
from ci_eventstore.connection.nodes import Nodes
from ci_eventstore.connection.replies import as_texts
from ci_eventstore.controllers.claimed_job import ClaimedJob
from ci_eventstore.keys import Keys
from ci_eventstore.members import listing_member
from ci_eventstore.repository import RedisJobRepository
from tests import claims
from tests.integration.store.test_key_leaks import LIVES, LOG, Life

LONG_AGO = datetime(2024, 1, 2, tzinfo=UTC)


async def ended_of(server: Nodes, keys: Keys) -> list[str]:
    return as_texts(await server.read("ZRANGE", keys.job("").ended, 0, -1))


async def unsealed_of(server: Nodes, keys: Keys) -> dict[str, int]:
    reply = as_texts(await server.read("ZRANGE", keys.job("").unsealed, 0, -1, "WITHSCORES"))
    return {name: int(score) for name, score in zip(reply[::2], reply[1::2], strict=True)}


async def server_ms(server: Nodes) -> int:
    seconds, microseconds = await server.read("TIME")
    return int(seconds) * 1000 + int(microseconds) // 1000


@pytest.mark.parametrize("life", LIVES)
async def test_who_has_ended_stands_there(
    repository: RedisJobRepository, server: Nodes, keys: Keys, life: Life
) -> None:
    """A job stands in both from its end on, whoever ends it, and in neither before."""
    begun = await server_ms(server)
    await life(repository, "j")
    jobs = [job for job in await repository.list_jobs() if job.status not in ("queued", "running")]
    expected = {listing_member(job.end_time or job.created_at, job.id) for job in jobs}
    assert set(await ended_of(server, keys)) == expected
    unsealed = await unsealed_of(server, keys)
    assert set(unsealed) == {job.id for job in jobs}
    now = await server_ms(server)
    assert all(begun <= score <= now for score in unsealed.values())


async def reports_late(repository: RedisJobRepository) -> None:
    await repository.add_event("j", LOG)


async def says_when_it_ended(repository: RedisJobRepository) -> None:
    await repository.complete_job("j", True, LONG_AGO)


@pytest.mark.parametrize("write", [reports_late, says_when_it_ended])
async def test_a_late_write_counts(
    repository: RedisJobRepository,
    server: Nodes,
    keys: Keys,
    write: Callable[[RedisJobRepository], Awaitable[None]],
) -> None:
    """What comes after the end sets the time of the last write; another end moves the job."""
    await repository.create_job(Job(id="j", status="running"))
    await repository.add_event("j", JobEvent("complete", success=True))
    await server.read("ZADD", keys.job("j").unsealed, 7, "j")
    await write(repository)
    assert (await unsealed_of(server, keys))["j"] > 7
    job = await repository.get_job_summary("j")
    assert job is not None
    assert job.end_time is not None
    assert await ended_of(server, keys) == [listing_member(job.end_time, "j")]
    assert (job.end_time == LONG_AGO) == (write is says_when_it_ended)


async def test_many_that_are_completed_together(repository: RedisJobRepository, server: Nodes, keys: Keys) -> None:
    """Each stands there by its own end."""
    for number in range(5):
        await repository.create_job(Job(id=f"j{number}", status="queued"))
    claimed = await claims.claim(repository, "default", "controller", 5, 30.0)
    for one in claimed:
        async with ClaimedJob(repository, one):
            pass
    jobs = await repository.list_jobs()
    assert sorted(await ended_of(server, keys)) == sorted(
        listing_member(job.end_time, job.id) for job in jobs if job.end_time
    )
    assert set(await unsealed_of(server, keys)) == {f"j{number}" for number in range(5)}


async def test_what_is_wrong_in_them_is_found_and_mended(
    repository: RedisJobRepository, server: Nodes, keys: Keys
) -> None:
    """Members that are missing, of jobs that run, of jobs that there aren't, and of another end than the job's."""
    await repository.create_job(Job(id="ended", status="running"))
    await repository.complete_job("ended", True, utc_now())
    await repository.create_job(Job(id="running", status="running"))
    job, [member] = keys.job("ended"), await ended_of(server, keys)
    await server.read("DEL", job.ended, job.unsealed)
    found = await repository.verify()
    assert [(one.subject, one.place, one.expected, one.found) for one in found] == [
        ("job ended", f"listing {key}", "member", None) for key in (job.ended, job.unsealed)
    ]
    assert await repository.rebuild("ended") == found
    assert await repository.verify() == []
    strays = [listing_member(LONG_AGO, name) for name in ("ended", "running", "gone")]
    await server.read("ZADD", job.ended, 0, strays[0], 0, strays[1], 0, strays[2])
    await server.read("ZADD", job.unsealed, 5, "running", 5, "gone")
    found = await repository.verify(fast=True)
    assert {(one.place, one.found) for one in found} == {
        *((f"listing {job.ended}", stray) for stray in strays),
        *((f"listing {job.unsealed}", name) for name in ("running", "gone")),
    }
    assert set(await repository.verify()) == set(found)
    assert set(await repository.rebuild()) == set(found)
    assert (await ended_of(server, keys), set(await unsealed_of(server, keys))) == ([member], {"ended"})
    await server.read("SET", job.unsealed, "text")
    await repository.rebuild("ended")
    assert await repository.verify() == []
