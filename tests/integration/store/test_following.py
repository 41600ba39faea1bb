"""Those who follow live jobs, through everything that may happen between them and the store."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from pathlib import Path

import pytest
from redis.asyncio import Redis

from ci_common.errors import JobNotFoundError
from ci_common.models import Job, JobEvent, utc_now
from ci_eventstore.controllers.controller import Controller
from ci_eventstore.errors import NotInitializedError, StoreUnavailableError, StreamDamagedError
from ci_eventstore.following import hub
from ci_eventstore.following.follower import Follower
from ci_eventstore.following.records import Followed, Notice, NoticeType
from ci_eventstore.repository import RedisJobRepository
from ci_eventstore.server import client
from ci_eventstore.server import subscription as subscriptions
from tests.fault_proxy import Fault, FaultProxy, at
from tests.servers import RealServer, find_redis7, find_valkey
from tests.waiting import wait_until

Ids = list[int | str | None]


@pytest.fixture(params=[find_redis7, find_valkey], ids=["redis7", "valkey"])
def find_server(request: pytest.FixtureRequest) -> Callable[[], Path]:
    found: Callable[[], Path] = request.param
    return found


@pytest.fixture
async def store(repository: RedisJobRepository, valkey: RealServer) -> AsyncIterator[RedisJobRepository]:
    """A repository that only reads, as another process has; the jobs are written with `repository`."""
    async with RedisJobRepository.from_url(valkey.url) as opened:
        yield opened


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is looked at now and then is looked at often."""
    monkeypatch.setattr(hub, "WATCH_SECONDS", 0.05)
    monkeypatch.setattr(subscriptions, "PING_SECONDS", 0.1)


def logs(first: int, last: int) -> list[JobEvent]:
    return [JobEvent("log", f"{number}\n") for number in range(first, last + 1)]


async def create(repository: RedisJobRepository, events: int = 0, job_id: str = "j") -> None:
    await repository.create_job(Job(id=job_id, status="running"))
    if events:
        await repository.add_events(job_id, logs(1, events))


def admin_of(server: RealServer) -> Redis:
    """Return a client for what only an operator does."""
    return Redis(unix_socket_path=str(server.socket_path))


def in_short(record: Followed) -> int | str | None:
    return record.id if isinstance(record, JobEvent) else str(record.type)


@asynccontextmanager
async def following(repository: RedisJobRepository, job_id: str = "j", after: int = 0) -> AsyncIterator[Follower]:
    follower = await repository.follow(job_id, after)
    try:
        yield follower
    finally:
        follower.close()


async def next_page(follower: Follower) -> Ids:
    """Return the next page in short: ids of events, types of facts and notices; it has to come in time."""
    async with asyncio.timeout(30):
        page = await follower.read()
    return [in_short(record) for record in page.records]


async def rest_of(follower: Follower) -> Ids:
    """Return all that comes until the job's end."""
    found: Ids = []
    async with asyncio.timeout(60):
        while True:
            page = await follower.read()
            found += [in_short(record) for record in page.records]
            if page.is_last:
                return found


def events_in(found: Ids) -> Ids:
    return [item for item in found if isinstance(item, int)]


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
        channels = await admin.pubsub_numsub("{ci:0}:events:j")
        assert channels == [(b"{ci:0}:events:j", 1)]
    assert store.following_stats().followers == 0
    async with admin_of(valkey) as admin:
        async with asyncio.timeout(30):
            while (await admin.pubsub_numsub("{ci:0}:events:j"))[0][1]:  # noqa: ASYNC110 - only the server knows
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


@pytest.mark.usefixtures("often")
async def test_who_is_cancelled_while_joining_leaves_nothing(own: RealServer, proxy: FaultProxy) -> None:
    """The server hasn't confirmed yet that it tells of new events."""
    async with RedisJobRepository.from_url(own.url) as writer, RedisJobRepository.from_url(proxy.url) as reader:
        await create(writer)
        proxy.plan = at(Fault.HALF_OPEN, b"SUBSCRIBE")
        joining = asyncio.create_task(reader.follow("j"))
        await wait_until(lambda: proxy.faults == 1)
        assert reader.following_stats().jobs == 1
        joining.cancel()
        await asyncio.wait({joining})
        assert (reader.following_stats().jobs, reader.following_stats().followers) == (0, 0)


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


async def write_and_complete(repository: RedisJobRepository, first: int, last: int) -> None:
    for number in range(first, last + 1):
        await repository.add_event("j", JobEvent("log", f"{number}\n"))
    await repository.complete_job("j", True, utc_now())


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


async def collect_all(repository: RedisJobRepository, job_id: str, after: int = 0) -> Ids:
    async with asyncio.timeout(60):
        return [event.id async for event in repository.follow_events(job_id, after)]


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
        live = store._store.hub._live["{ci:0}:events:j"]
        assert live.feed._kept_bytes < 2 * 256 * 1024
        await repository.complete_job("j", True, utc_now())
        taken += events_in(await rest_of(slow))
        assert fast_found + events_in(await rest_of(fast)) == taken == list(range(1, 8002))


@pytest.mark.usefixtures("often")
async def test_lost_messages_cost_time_only(own: RealServer, proxy: FaultProxy) -> None:
    """The stream is looked at now and then; no event is missing or doubled."""
    async with RedisJobRepository.from_url(own.url) as writer, RedisJobRepository.from_url(proxy.url) as reader:
        await create(writer)
        async with following(reader) as follower:
            await next_page(follower)
            proxy.loses_messages = True
            writing = asyncio.create_task(write_and_complete(writer, 1, 100))
            assert events_in(await rest_of(follower)) == list(range(1, 102))
            await writing
            assert proxy.faults


@pytest.mark.usefixtures("often")
@pytest.mark.parametrize("fault", ["cut", "silent"])
async def test_a_subscription_that_fails(
    own: RealServer, proxy: FaultProxy, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its connection is cut again and again, or nothing comes over it any more: followers don't notice."""
    monkeypatch.setattr(hub, "WATCH_SECONDS", 60.0)
    async with RedisJobRepository.from_url(own.url) as writer, RedisJobRepository.from_url(proxy.url) as reader:
        await create(writer)
        async with following(reader) as follower:
            await next_page(follower)
            found: Ids = []
            for number in range(1, 101):
                await writer.add_event("j", JobEvent("log", f"{number}\n"))
                if number % 20 == 0:
                    proxy.cut_all() if fault == "cut" else proxy.silence()
                    await writer.add_event("j", JobEvent("log", "x\n"))
                while len(found) < number + number // 20:
                    found += events_in(await next_page(follower))
            assert found == list(range(1, 106))


async def test_a_server_that_is_killed_and_restarted(own: RealServer) -> None:
    """A hundred followers of ten jobs get all that was acknowledged, once, in order."""
    async with RedisJobRepository.from_url(own.url) as writer, RedisJobRepository.from_url(own.url) as reader:
        jobs = [f"j{number}" for number in range(10)]
        for job_id in jobs:
            await create(writer, 3, job_id)
        watching = [asyncio.create_task(collect_all(reader, job_id)) for job_id in jobs for _ in range(10)]
        await wait_until(lambda: reader.following_stats().followers == 100)
        for round_number in range(3):
            writing = [asyncio.create_task(write_lines(writer, job_id, 4 + round_number * 50, 50)) for job_id in jobs]
            await asyncio.sleep(0.02)
            own.kill()
            await asyncio.to_thread(own.start)
            await asyncio.gather(*writing)
        for job_id in jobs:
            await writer.complete_job(job_id, True, utc_now())
        assert await asyncio.gather(*watching) == [list(range(1, 155))] * 100
        assert await writer.verify() == []


async def write_lines(repository: RedisJobRepository, job_id: str, first: int, count: int) -> None:
    for event in logs(first, first + count - 1):
        await repository.add_event(job_id, event)


@pytest.mark.usefixtures("often")
async def test_a_store_that_stays_away_is_told(own: RealServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for ever: followers are told once patience is over, and a new one works when it is back."""
    # Long enough for what is well, on a busy machine.
    monkeypatch.setitem(client.PINNED, "socket_timeout", 0.5)
    monkeypatch.setattr(client, "PATIENCE_SECONDS", 2.0)
    monkeypatch.setattr(hub, "PATIENCE_SECONDS", 2.0)
    async with RedisJobRepository.from_url(own.url) as repository:
        await create(repository, 1)
        async with following(repository) as follower:
            await next_page(follower)
            own.suspend()
            try:
                with pytest.raises(StoreUnavailableError):
                    await next_page(follower)
            finally:
                own.resume()
        async with following(repository) as follower:
            assert events_in(await next_page(follower)) == [1]


@pytest.mark.usefixtures("often")
async def test_events_that_are_lost(own: RealServer) -> None:
    """A store that has fewer events than were handed out: a reset, then the log from its beginning."""
    async with (
        RedisJobRepository.from_url(own.url) as repository,
        Redis(unix_socket_path=str(own.socket_path)) as admin,
    ):
        await create(repository, 3)
        before = await admin.dump("{ci:0}:events:j"), await admin.dump("{ci:0}:job:j")
        await repository.add_events("j", logs(4, 6))
        async with following(repository) as follower, following(repository, after=6) as late:
            assert events_in(await next_page(follower)) == [1, 2, 3, 4, 5, 6]
            await go_back(admin, *before)
            assert await next_page(follower) == ["reset"]
            assert await next_page(late) == ["reset"]
            assert await next_page(follower) == ["created", 1, 2, 3]
            assert await next_page(late) == ["created", 1, 2, 3]
            async with following(repository, after=5) as resumed:
                assert await next_page(resumed) == ["reset"]
            async with aclosing(repository.follow_events("j", 3)) as events:
                waiting = asyncio.ensure_future(anext(events))
                await repository.complete_job("j", False, utc_now())
                assert (await waiting).id == 4
            assert await rest_of(follower) == ["end_time_set", 4]


@pytest.mark.usefixtures("often")
async def test_other_events_in_the_place_of_lost_ones(own: RealServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not fewer events, but others: what was handed out last is compared on each new connection."""
    monkeypatch.setattr(hub, "WATCH_SECONDS", 60.0)
    async with (
        RedisJobRepository.from_url(own.url) as repository,
        Redis(unix_socket_path=str(own.socket_path)) as admin,
    ):
        await create(repository, 3)
        before = await admin.dump("{ci:0}:events:j"), await admin.dump("{ci:0}:job:j")
        await repository.add_events("j", logs(4, 6))
        async with aclosing(repository.follow_events("j")) as events:
            assert [(await anext(events)).id for _ in range(6)] == [1, 2, 3, 4, 5, 6]
            await admin.client_kill_filter(_type="pubsub")
            await go_back(admin, *before)
            async with RedisJobRepository.from_url(own.url) as writer:
                await writer.add_events("j", [JobEvent("log", f"other {number}\n") for number in range(4, 9)])
            with pytest.raises(StreamDamagedError):
                await anext(events)


async def go_back(admin: Redis, stream: bytes | None, job: bytes | None) -> None:
    """Let the store be as it was, as a replica does that was behind."""
    assert stream is not None
    assert job is not None
    async with admin.pipeline(transaction=True) as pipe:
        pipe.restore("{ci:0}:events:j", 0, stream, replace=True)
        pipe.restore("{ci:0}:job:j", 0, job, replace=True)
        pipe.delete("{ci:0}:calls:j")
        await pipe.execute()


async def test_events_that_are_no_longer_there(own: RealServer) -> None:
    """A gap is told with the position that it goes on at, to those who read history and to those at the live end."""
    async with (
        RedisJobRepository.from_url(own.url) as repository,
        Redis(unix_socket_path=str(own.socket_path)) as admin,
    ):
        await create(repository, 2000)
        async with following(repository, after=2000) as live:
            await admin.xtrim("{ci:0}:events:j", minid="1800-0", approximate=False)
            async with following(repository) as follower:
                page = await follower.read()
                assert page.records[0] == Notice(NoticeType.GAP, 1800)
                found = [in_short(record) for record in page.records[1:]]
                while len(found) < 201:
                    found += await next_page(follower)
                assert found == list(range(1800, 2001))
            await repository.add_event("j", JobEvent("log", "2001\n"))
            assert await next_page(live) == [2001]
            with pytest.raises(StreamDamagedError):
                await collect_all(repository, "j", 2)


async def test_events_that_went_while_nobody_listened(
    own: RealServer, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last event that was handed out is gone too, but so is all before it: that is a gap, not a reset."""
    monkeypatch.setattr(hub, "WATCH_SECONDS", 60.0)
    async with RedisJobRepository.from_url(own.url) as writer, RedisJobRepository.from_url(proxy.url) as reader:
        await create(writer, 10)
        async with following(reader, after=10) as live, admin_of(own) as admin:
            proxy.loses_messages = True
            await writer.add_events("j", logs(11, 15))
            await admin.xtrim("{ci:0}:events:j", minid="13-0", approximate=False)
            proxy.cut_all()
            assert await next_page(live) == ["gap", 13, 14, 15]


@pytest.mark.usefixtures("often")
async def test_a_job_that_is_gone(own: RealServer) -> None:
    """Its followers are told, and the next one is as well."""
    async with (
        RedisJobRepository.from_url(own.url) as repository,
        Redis(unix_socket_path=str(own.socket_path)) as admin,
    ):
        await create(repository, 1)
        async with following(repository) as follower:
            await next_page(follower)
            await admin.delete("{ci:0}:events:j", "{ci:0}:job:j")
            with pytest.raises(JobNotFoundError):
                await next_page(follower)
        with pytest.raises(JobNotFoundError):
            await repository.follow("j")


async def test_closing_ends_followers(own: RealServer) -> None:
    """They are told, instead of waiting for ever."""
    repository = RedisJobRepository.from_url(own.url)
    await repository.initialize()
    await create(repository)
    follower = await repository.follow("j")
    await follower.read()
    waiting = asyncio.ensure_future(follower.read())
    await asyncio.sleep(0)
    await repository.close()
    with pytest.raises(NotInitializedError):
        await waiting
    follower.close()


async def test_a_follower_that_waits_for_some_time_only(repository: RedisJobRepository) -> None:
    """Nothing came: an empty page that isn't the last."""
    await create(repository)
    async with following(repository) as follower:
        await follower.read()
        page = await follower.read(0.01)
        assert (page.records, page.is_last) == ((), False)


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
