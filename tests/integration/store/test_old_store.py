"""Stores of earlier format versions, upgraded: it verifies clean, reads, goes on, and verifies clean again."""

from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from datetime import timedelta
from pathlib import Path

import fakeredis
import pytest
from redis.asyncio import Redis

from ci_common.errors import JobGoneError, LogDeletedError
from ci_common.models import Job, JobEvent, utc_now
from ci_eventstore.connection.deployments import from_client, from_url
from ci_eventstore.controllers.claimed_job import ClaimedJob
from ci_eventstore.history.seal import Sealed
from ci_eventstore.repository import RedisJobRepository
from tests import claims, old_store
from tests.integration.store.sealing import NOW, seal_job
from tests.servers import RealServer, find_redis7, find_valkey


async def open_fake(version: int) -> Redis:
    client = fakeredis.FakeAsyncRedis(server=fakeredis.FakeServer(version=(7, 0)))
    await old_store.load(client, version)
    await old_store.upgraded(from_client(client))
    return client


async def load_into(server: RealServer, version: int) -> RedisJobRepository:
    async with Redis(unix_socket_path=str(server.socket_path)) as client:
        await old_store.load(client, version)
    await old_store.upgraded(from_url(server.url))
    return RedisJobRepository.from_url(server.url)


@pytest.fixture(
    params=[
        pytest.param((1, find_valkey), id="1-valkey"),
        pytest.param((1, find_redis7), id="1-redis7"),
        pytest.param((2, find_valkey), id="2-valkey"),
        pytest.param((3, find_valkey), id="3-valkey"),
        pytest.param((4, find_valkey), id="4-valkey"),
        pytest.param((4, find_redis7), id="4-redis7"),
        # A simulated server takes four times as long.
        pytest.param((1, None), id="1-fake", marks=pytest.mark.slow),
        pytest.param((2, None), id="2-fake", marks=pytest.mark.slow),
        pytest.param((3, None), id="3-fake", marks=pytest.mark.slow),
        pytest.param((4, None), id="4-fake", marks=pytest.mark.slow),
    ],
)
async def repository(request: pytest.FixtureRequest) -> AsyncIterator[RedisJobRepository]:
    """The old store, upgraded and opened by today's program; its projections must agree with its streams in the end."""
    version: int = request.param[0]
    find: Callable[[], Path] | None = request.param[1]
    if find is None:
        async with RedisJobRepository(await open_fake(version)) as opened:
            yield opened
            assert await opened.verify() == []
        return
    try:
        binary = find()
    except LookupError as reason:
        pytest.skip(str(reason))
    with RealServer(binary, "appendonly no") as server:
        async with await load_into(server, version) as opened:
            yield opened
            assert await opened.verify() == []


async def text_of(repository: RedisJobRepository, job_id: str) -> str:
    return "".join(event.data or "" for event in await repository.get_events_since(job_id, 0))


async def test_it_is_whole_and_readable(repository: RedisJobRepository) -> None:
    """Nothing differs, and jobs, logs, users and keys are what they were."""
    assert await repository.verify() == []
    jobs = {job.id: job for job in await repository.list_jobs() if not job.id.startswith(("2-", "3-", "4-"))}
    assert set(jobs) == old_store.ALL
    assert {name for name, job in jobs.items() if job.status == "queued"} == old_store.QUEUED
    assert {name for name, job in jobs.items() if job.status == "running"} == old_store.CLAIMED | old_store.RUNNING
    assert jobs["waiting-1"].command == ["make", "test ü"]
    text = await text_of(repository, "running")
    assert text.startswith("line 0\n")
    assert "invalid \udcff\udc80 utf-8\0 ü 😀\n" in text
    assert text.endswith("invalid \udcff compressed " * 100 + "\n")
    ended = await text_of(repository, "truncated-ended")
    assert ended.endswith("the end\n")
    assert await repository.position_of_line("long", 2001) > 0
    assert {user.id for user in await repository.list_users()} == {"ada", "bob", "Zoë", "naive"}
    assert (await repository.get_user_by_email("ZOË@example.ORG")) is not None
    key = await repository.get_api_key_by_hash("f" * 64)
    assert key is not None
    assert not key.is_active


async def test_what_only_version_3_has_goes_on(repository: RedisJobRepository) -> None:
    """Sealed logs, some with late output, and what was deleted: they are read, verified, sealed and written to."""
    jobs = {job.id: job for job in await repository.list_jobs() if job.id.startswith("3-")}
    if not jobs:
        # It was a store of version 1 or 2.
        return
    assert {job.user_id for job in jobs.values() if job.id in ("3-sealed", "3-log-deleted")} == {"u1"}
    assert (await text_of(repository, "3-large")).endswith("line 1499 of 3-large\n")
    assert (await text_of(repository, "3-late")).endswith("line 4 of 3-late\nlate\n")
    with pytest.raises(JobGoneError):
        await repository.get_job("3-deleted")
    # Its tombstone has a sort key of version 3.
    ids = [job.id for job in await repository.page_jobs(limit=1000) if not job.id.startswith("4-")]
    assert [job.id for job in await repository.page_jobs(limit=1000, before="3-deleted")] == ids[1:]
    with pytest.raises(LogDeletedError):
        await text_of(repository, "3-log-deleted")
    for job_id in ("3-sealed", "3-late", "3-large"):
        await repository.add_event(job_id, JobEvent("log", "later\n", timestamp=utc_now()))
    assert await repository.verify(deep=True) == []
    for job_id in ("3-sealed", "3-late", "3-unsealed"):
        assert await seal_job(repository, job_id) is Sealed.SEALED
    assert await repository.verify(deep=True) == []
    assert (await text_of(repository, "3-sealed")).endswith("line 11 of 3-sealed\nlater\n")
    assert await repository.get_job_summary("3-late") == jobs["3-late"]


async def test_what_only_version_4_has_goes_on(repository: RedisJobRepository) -> None:
    """Records that say where their logs end, and have whole times in their pieces."""
    jobs = {job.id: job for job in await repository.list_jobs() if job.id.startswith("4-")}
    if not jobs:
        # It was a store of an earlier version.
        return
    read = repository.engine.nodes.read
    once, archived = (repository.engine.keys.job(job_id).hash for job_id in ("4-packed-once", "4-archived"))
    assert [await read("HEXISTS", key, name) for key in (once, archived) for name in ("position", "part")] == [1] * 4
    assert len(await read("HGET", archived, "r0")) == 43
    assert (jobs["4-archived"].end_time, jobs["4-archived"].name) == (NOW + timedelta(hours=1), "build")
    assert (await text_of(repository, "4-archived")).endswith("line 11 of 4-archived\n")
    assert (await text_of(repository, "4-late-before")).endswith("line 11 of 4-late-before\nbefore\n")
    with pytest.raises(LogDeletedError):
        await text_of(repository, "4-log-deleted")
    for job_id in ("4-sealed", "4-late", "4-late-before", "4-archived", "4-log-deleted"):
        await repository.add_event(job_id, JobEvent("log", "later\n", timestamp=utc_now()))
    assert await repository.verify(deep=True) == []
    for job_id in ("4-sealed", "4-late", "4-late-before", "4-archived", "4-log-deleted", "4-unsealed"):
        assert await seal_job(repository, job_id) is Sealed.SEALED
    assert await repository.verify(deep=True) == []
    assert (await text_of(repository, "4-archived")).endswith("line 11 of 4-archived\nlater\n")
    assert {job_id: await repository.get_job_summary(job_id) for job_id in jobs} == jobs
    await repository.delete_job("4-packed-once")
    await repository.delete_job("4-late")


async def test_its_jobs_go_on(repository: RedisJobRepository) -> None:
    """Appends, a status, a completion, a cancel and a truncated log's end go on where the old program stopped."""
    await repository.add_events("running", [JobEvent("log", "more\n"), JobEvent("log", "and more\n")])
    await repository.complete_job("running", True, utc_now())
    await repository.add_event("running", JobEvent("log", "late\n"))
    await repository.add_event("truncated", JobEvent("log", "the end\n"))
    await repository.complete_job("truncated", False, utc_now())
    await repository.update_job_status("updated", "failed")
    await repository.cancel_job("waiting-2")
    await repository.cancel_job("claimed")
    await repository.complete_job("completed", True, utc_now())
    await repository.create_job(Job(id="new", status="queued", user_id="ada"))
    assert (await text_of(repository, "running")).endswith("more\nand more\nlate\n")
    assert (await text_of(repository, "truncated")).endswith("t\nthe end\n")


async def test_its_queues_go_on(repository: RedisJobRepository) -> None:
    """The lost job is taken over first, waiting ones come in turn, and all of them can be ended."""
    claimed = await claims.claim(repository, "work", "controller-new", 5, 30.0)
    assert [(one.job.id, one.lost_by) for one in claimed] == [("lost", "controller-dead")]
    waiting = await claims.claim(repository, "default", "controller-new", 10, 30.0)
    assert {one.job.id for one in waiting} == old_store.QUEUED - {"waiting-zip", "requeued"}
    builds = await claims.claim(repository, "builds", "controller-new", 1, 30.0)
    assert [(one.job.id, one.attempts) for one in builds] == [("waiting-zip", 1)]
    again = await claims.claim(repository, "other", "controller-new", 1, 30.0)
    assert [one.job.id for one in again] == ["requeued"]
    for one in [*claimed, *waiting, *builds, *again]:
        async with ClaimedJob(repository, one) as job:
            if one.job.id in ("lost", "waiting-1"):
                await job.write("done\n")
    taken = old_store.QUEUED | {"lost"}
    assert {job.status for job in await repository.list_jobs() if job.id in taken} == {"completed"}


async def test_its_jobs_can_be_followed(repository: RedisJobRepository) -> None:
    """A follower gets what was there, then what comes, to the end."""
    seen: list[str] = []
    async with aclosing(repository.follow_events("running", 20)) as events:
        async for event in events:
            seen.append(event.data or event.type)
            if len(seen) == 5:
                await repository.add_event("running", JobEvent("log", "new\n"))
                await repository.complete_job("running", True, utc_now())
    assert seen[0] == "naive\n"
    assert seen[-2:] == ["new\n", "complete"]


async def test_its_projections_can_be_made_again(repository: RedisJobRepository) -> None:
    """Rebuilding each job of a store in which nothing differs finds nothing to mend."""
    for job_id in sorted(old_store.ALL):
        assert await repository.rebuild(job_id) == []
    assert await repository.rebuild() == []
