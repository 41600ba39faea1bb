"""Those who follow live jobs: what they get, what they cost, and that they don't disturb each other."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing

import pytest

from ci_common.models import Job, JobEvent, utc_now
from ci_eventstore.controllers.controller import Controller
from ci_eventstore.following import hub
from ci_eventstore.following.records import Followed
from ci_eventstore.repository import RedisJobRepository
from tests.deployments.homes import Home
from tests.integration.store.followers import (
    Ids,
    admin_of,
    collect_all,
    create,
    events_in,
    following,
    in_short,
    listeners,
    logs,
    next_page,
    rest_of,
    write_and_complete,
)
from tests.servers import RealServer
from tests.waiting import wait_until


@pytest.fixture
async def store(repository: RedisJobRepository, valkey: RealServer) -> AsyncIterator[RedisJobRepository]:
    """A repository that only reads, as another process has; the jobs are written with `repository`."""
    async with RedisJobRepository.from_url(valkey.url) as opened:
        yield opened


async def test_what_comes_while_following(repository: RedisJobRepository, store: RedisJobRepository) -> None:
    """Facts too, in their order; behind the job's end nothing."""
    await create(repository, 2)
    async with following(store) as follower:
        assert await next_page(follower) == ["created", 1, 2]
        await repository.add_event("j", JobEvent("log", "3\n"))
        assert await next_page(follower) == [3]
        await repository.add_events("j", logs(4, 2000))
        await repository.complete_job("j", True, utc_now())
        assert await rest_of(follower) == [*range(4, 2001), "end_time_set", 2001]
        assert (await follower.read()).is_last


async def test_messages_alone_bring_what_is_small(
    repository: RedisJobRepository, store: RedisJobRepository, valkey: RealServer
) -> None:
    """A follower at the live end asks the server for nothing; what is big is read."""
    await create(repository)
    async with following(store) as follower, admin_of(valkey) as admin:
        await next_page(follower)
        await admin.config_resetstat()
        for number in range(1, 51):
            await repository.add_event("j", JobEvent("log", f"{number}\n"))
            assert await next_page(follower) == [number]
        assert "cmdstat_xrange" not in await admin.info("commandstats")
        await repository.add_event("j", JobEvent("log", os.urandom(20_000).hex()))
        assert await next_page(follower) == [51]
        assert "cmdstat_xrange" in await admin.info("commandstats")


async def test_many_followers_cost_one_reader(
    repository: RedisJobRepository, store: RedisJobRepository, valkey: RealServer
) -> None:
    """They share pages, what is encoded, and the connection; and what the history needs is read once."""
    await create(repository, 1500)
    async with AsyncExitStack() as stack, admin_of(valkey) as admin:
        followers = [await stack.enter_async_context(following(store)) for _ in range(50)]
        await admin.config_resetstat()
        while True:
            pages = await asyncio.gather(*(follower.read() for follower in followers))
            assert len({id(page) for page in pages}) == 1
            if pages[0].records[-1] == JobEvent("log", "1500\n", timestamp=pages[0].records[-1].timestamp):  # type: ignore[union-attr]
                break
        assert (await admin.info("commandstats"))["cmdstat_xrange"]["calls"] < 10
        waiting = asyncio.gather(*(follower.read() for follower in followers))
        await asyncio.sleep(0)
        await repository.add_event("j", JobEvent("log", "1501\n"))
        pages = await waiting
        assert len({id(page.encoded(repr_of)) for page in pages}) == 1
        assert store.following_stats().followers == 50
        assert store.following_stats().jobs == 1
        assert await listeners(admin, "{ci:0}:events:j") == 1
    assert store.following_stats().followers == 0
    async with admin_of(valkey) as admin:
        async with asyncio.timeout(30):
            while await listeners(admin, "{ci:0}:events:j"):  # noqa: ASYNC110 - only the server knows
                await asyncio.sleep(0.01)


def repr_of(record: Followed) -> bytes:
    return repr(record).encode()


async def test_coming_and_going_disturbs_nobody(repository: RedisJobRepository, store: RedisJobRepository) -> None:
    """One follower stays while others of its job and of another one come and go, some of them cancelled."""
    await create(repository)
    await create(repository, 0, "other")
    async with following(store) as staying:
        found: Ids = []
        for number in range(1, 200):
            job_id = ("j", "other")[number % 2]
            passing = asyncio.create_task(collect(store, job_id, number % 7))
            await repository.add_event("j", JobEvent("log", f"{number}\n"))
            if number % 3:
                passing.cancel()
            found += events_in(await next_page(staying))
            passing.cancel()
            await asyncio.wait({passing})
        assert found == list(range(1, 200))


async def collect(repository: RedisJobRepository, job_id: str, count: int) -> Ids:
    """Follow a job until some events came, as a caller does who may be cancelled at any await."""
    found: Ids = []
    async with aclosing(repository.follow_events(job_id)) as events:
        async for event in events:
            found.append(event.id)
            if len(found) >= count:
                break
    return found


async def test_a_read_that_is_cancelled_loses_nothing(
    repository: RedisJobRepository, store: RedisJobRepository
) -> None:
    """After any number of turns of the event loop; the next read goes on where the last one that returned ended."""
    await create(repository, 3000)
    async with following(store) as follower:
        found: Ids = []
        writing = asyncio.create_task(write_and_complete(repository, 3001, 4000))
        turns = 0
        while True:
            reading = asyncio.create_task(follower.read())
            for _ in range(turns % 9):
                await asyncio.sleep(0)
            turns += 1
            if not reading.done():
                reading.cancel()
            await asyncio.wait({reading})
            if not reading.cancelled():
                found += [in_short(record) for record in reading.result().records]
                if reading.result().is_last:
                    break
        await writing
        assert events_in(found) == list(range(1, 4002))


async def test_who_is_cancelled_disturbs_no_other_reader(
    repository: RedisJobRepository, store: RedisJobRepository
) -> None:
    """Two wait for the same page of history; one of them goes away."""
    await create(repository, 10)
    async with following(store) as one, following(store) as other:
        reading = [asyncio.create_task(follower.read()) for follower in (one, other)]
        await asyncio.sleep(0)
        reading[0].cancel()
        assert len((await reading[1]).records) == 11


async def test_a_claim_and_its_end_are_told_at_once(
    repository: RedisJobRepository, store: RedisJobRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They come from other scripts than all else."""
    monkeypatch.setattr(hub, "WATCH_SECONDS", 60.0)
    await repository.create_job(Job(id="j", status="queued"))
    async with following(store) as follower:
        assert await next_page(follower) == ["created"]
        async with Controller(repository) as controller:
            async for claim in controller.claims():
                assert await next_page(follower) == ["claimed"]
                await claim.complete(True)
                assert await next_page(follower) == [1]
                break


async def test_the_last_line_races_the_end(repository: RedisJobRepository, store: RedisJobRepository) -> None:
    """Whichever the server takes first, followers see what the stream says up to the end, and all end."""
    for number in range(60):
        job_id = f"race-{number}"
        await create(repository, 1, job_id)
        watching = [asyncio.create_task(collect_all(store, job_id)) for _ in range(3)]
        for _ in range(number % 12):
            await asyncio.sleep(0)
        await asyncio.gather(
            repository.add_event(job_id, JobEvent("log", "last\n")), store.complete_job(job_id, True, utc_now())
        )
        events = await repository.get_events_since(job_id, 0)
        end = next(event.id for event in events if event.type == "complete")
        assert await asyncio.gather(*watching) == [list(range(1, end + 1))] * 3  # type: ignore[operator]


@pytest.mark.slow  # It takes over a second of a CPU.
async def test_a_slow_follower_beside_a_fast_one(repository: RedisJobRepository, store: RedisJobRepository) -> None:
    """The fast one isn't held up; the slow one gets everything; what waits for it is bounded."""
    await create(repository)
    async with following(store) as fast, following(store) as slow:
        taken: Ids = events_in(await next_page(slow))
        fast_found: Ids = events_in(await next_page(fast))
        for first in range(1, 8001, 100):
            await repository.add_events("j", [JobEvent("log", f"{n:0400d}\n") for n in range(first, first + 100)])
            while len(fast_found) < first + 99:
                fast_found += events_in(await next_page(fast))
        live = store.engine.hub._live["{ci:0}:events:j"]
        assert live.feed._kept_bytes < 2 * 256 * 1024
        await repository.complete_job("j", True, utc_now())
        taken += events_in(await rest_of(slow))
        assert fast_found + events_in(await rest_of(fast)) == taken == list(range(1, 8002))


async def test_a_follower_that_waits_for_some_time_only(repository: RedisJobRepository) -> None:
    """Nothing came: an empty page that isn't the last."""
    await create(repository)
    async with following(repository) as follower:
        await follower.read()
        page = await follower.read(0.01)
        assert (page.records, page.is_last) == ((), False)


@pytest.mark.slow
async def test_a_crowd(repository: RedisJobRepository, store: RedisJobRepository, valkey: RealServer) -> None:
    """A thousand followers of two hundred running jobs, over few connections: all events, in order."""
    jobs = [f"j{number}" for number in range(200)]
    for job_id in jobs:
        await create(repository, 2, job_id)
    watching = [asyncio.create_task(collect_all(store, jobs[number % 200], number % 3)) for number in range(1000)]
    await wait_until(lambda: store.following_stats().followers == 1000)
    async with admin_of(valkey) as admin:
        for number in range(3, 8):
            await asyncio.gather(*(repository.add_event(job_id, JobEvent("log", f"{number}\n")) for job_id in jobs))
        assert len(await admin.client_list()) <= 2 * 40
    await asyncio.gather(*(repository.complete_job(job_id, True, utc_now()) for job_id in jobs))
    found = await asyncio.gather(*watching)
    assert found == [list(range(number % 3 + 1, 9)) for number in range(1000)]


async def test_pages_of_another_job_of_the_same_id_are_not_taken(
    repository: RedisJobRepository, store: RedisJobRepository, valkey: Home
) -> None:
    """Pages are kept for a moment: a store that was emptied meanwhile may have another job by then."""
    for text in ("one\n", "another\n"):
        valkey.empty()
        await repository.create_job(Job(id="j", status="running"))
        await repository.add_events("j", [JobEvent("log", text)] * 20)
        await repository.complete_job("j", True, utc_now())
        found = [event.data async for event in store.follow_events("j")]
        assert found == [*[text] * 20, None]
