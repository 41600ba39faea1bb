"""Lists of jobs of all statuses, which are merged from those of each: nothing is missed, and nothing comes twice."""

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from functools import partial
from itertools import pairwise

import pytest
from redis import Redis

from ci_common.models import Job, JobStatus, utc_now
from ci_eventstore.keys import Keys, jobs_key
from ci_eventstore.members import listing_member
from ci_eventstore.repository import RedisJobRepository
from tests.fault_proxy import Fault, FaultProxy
from tests.servers import RealServer
from tests.waiting import wait_until

STATUSES = [status.value for status in JobStatus]


async def pages_of(repository: RedisJobRepository, limit: int) -> list[str]:
    """Return the ids on all pages, in their order."""
    found, before = list[str](), None
    while page := await repository.page_jobs(limit=limit, before=before):
        found += [job.id for job in page]
        before = found[-1]
    return found


@pytest.mark.parametrize("limit", [1, 3, 50])
async def test_pages_go_by_creation_whatever_the_status(repository: RedisJobRepository, limit: int) -> None:
    """The newest first, of all users and of one, and each status has its own pages."""
    begun, jobs = utc_now(), list[Job]()
    for number in range(20):
        created = begun + timedelta(seconds=number // 2)
        status = STATUSES[number * 7 % len(STATUSES)]
        jobs.append(Job(id=f"j{number:02}", status=status, user_id="ada" if number % 3 else None, created_at=created))
        await repository.create_job(jobs[-1])
    expected = [job.id for job in reversed(jobs)]
    assert await pages_of(repository, limit) == expected
    assert [job.id for job in await repository.list_jobs()] == expected
    assert [job.id for job in await repository.list_jobs("ada")] == [name for name in expected if int(name[1:]) % 3]
    for status in STATUSES:
        found = await repository.page_jobs(status=status, limit=limit)
        assert [job.id for job in found] == [job.id for job in reversed(jobs) if job.status == status][:limit]


@pytest.mark.parametrize(("away", "back"), list(pairwise([*STATUSES, STATUSES[0]])))
async def test_a_job_that_moves_while_a_page_is_read_is_on_it_once(
    own: RealServer, keys: Keys, away: str, back: str
) -> None:
    """Between any two commands of a page it is in another status's listing: it is neither missed nor doubled."""
    job = Job(id="moves", status="queued")
    listings = [jobs_key(keys.tag(0), JobStatus(status)) for status in (away, back)]
    member, seen = listing_member(job.created_at, job.id), list[str]()
    with Redis(unix_socket_path=str(own.socket_path)) as mover:

        def move(command: Sequence[bytes]) -> Fault | None:
            if command[0] == b"ZREVRANGEBYLEX":
                seen.append(command[1].decode())
                to = listings[len(seen) % 2]
                with mover.pipeline(transaction=True) as moving:
                    for status in JobStatus:
                        moving.zrem(jobs_key(keys.tag(0), status), member)
                    moving.zadd(to, {member: 0})
                    moving.execute()
            return None

        async with FaultProxy(own.socket_path) as proxy, RedisJobRepository.from_url(proxy.url) as repository:
            await repository.create_job(job)
            proxy.plan = move
            for _ in range(2):
                assert [found.id for found in await repository.page_jobs(limit=5)] == ["moves"]
    assert set(seen) == {jobs_key(keys.tag(0), status) for status in JobStatus}


async def test_jobs_that_run_meanwhile_are_on_every_list(repository: RedisJobRepository) -> None:
    """Jobs are claimed, run, and end while others page: each list has all of them once, and in order."""
    names = [f"j{number}" for number in range(12)]
    for name in names:
        await repository.create_job(Job(id=name, status="queued", user_id="ada"))
    names.reverse()
    lists = 0

    async def list_all() -> None:
        nonlocal lists
        while True:
            assert await pages_of(repository, 5) == names
            lists += 1

    def is_over(wanted: int) -> bool:
        return lists >= wanted or listing.done()

    listing = asyncio.create_task(list_all())
    for name in names:
        await repository.update_job_status(name, "running")
        await repository.complete_job(name, name != "j3", utc_now())
        await wait_until(partial(is_over, lists + 1))
    listing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await listing


async def test_damaged_listings_show_a_job_once(repository: RedisJobRepository, keys: Keys) -> None:
    """A job that stands in the listings of two statuses is on a page once, and the next page has the next job."""
    for name in ("old", "new"):
        await repository.create_job(Job(id=name, status="queued"))
    new = await repository.get_job("new")
    assert new is not None
    stray = "ZADD", jobs_key(keys.tag(0), JobStatus.FAILED), 0, listing_member(new.created_at, "new")
    await repository.engine.nodes.read(*stray)
    assert await pages_of(repository, 1) == ["new", "old"]
    assert await repository.rebuild() != []
