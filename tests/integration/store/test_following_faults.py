"""Those who follow live jobs, through everything that may happen between them and the store."""

import asyncio
from contextlib import aclosing

import pytest
from redis.asyncio import Redis

from ci_common.errors import JobNotFoundError
from ci_common.models import JobEvent, utc_now
from ci_eventstore.connection import connections, node
from ci_eventstore.connection import subscription as subscriptions
from ci_eventstore.errors import (
    AcknowledgedEventsLostError,
    NotInitializedError,
    StoreFormatError,
    StoreUnavailableError,
    StreamDamagedError,
)
from ci_eventstore.following import hub
from ci_eventstore.following.records import Notice, NoticeType
from ci_eventstore.repository import RedisJobRepository
from tests.fault_proxy import Fault, FaultProxy, at
from tests.integration.store.followers import (
    Ids,
    admin_of,
    collect_all,
    create,
    events_in,
    following,
    in_short,
    logs,
    next_page,
    rest_of,
    write_and_complete,
)
from tests.integration.store.servers_found import finding
from tests.servers import BINARIES, RealServer
from tests.waiting import wait_until

find_server = finding(BINARIES)


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is looked at now and then is looked at often."""
    monkeypatch.setattr(hub, "WATCH_SECONDS", 0.05)
    monkeypatch.setattr(subscriptions, "PING_SECONDS", 0.1)


@pytest.mark.usefixtures("often")
async def test_who_is_cancelled_while_joining_leaves_nothing(own: RealServer, proxy: FaultProxy) -> None:
    """The server hasn't confirmed yet that it tells of new events."""
    async with RedisJobRepository.from_url(own.url) as writer, RedisJobRepository.from_url(proxy.url) as reader:
        await create(writer)
        proxy.plan = at(Fault.HALF_OPEN, b"SUBSCRIBE", b"SSUBSCRIBE")
        joining = asyncio.create_task(reader.follow("j"))
        await wait_until(lambda: proxy.faults == 1)
        assert reader.following_stats().jobs == 1
        joining.cancel()
        await asyncio.wait({joining})
        assert (reader.following_stats().jobs, reader.following_stats().followers) == (0, 0)


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


@pytest.mark.slow
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


@pytest.mark.slow
@pytest.mark.usefixtures("often")
async def test_a_store_that_stays_away_is_told(own: RealServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for ever: followers are told once patience is over, and a new one works when it is back."""
    # Long enough for what is well, on a busy machine.
    monkeypatch.setitem(connections.PINNED, "socket_timeout", 0.5)
    monkeypatch.setattr(node, "PATIENCE_SECONDS", 2.0)
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
                with pytest.raises(AcknowledgedEventsLostError):
                    await repository.complete_job("j", False, utc_now())
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


@pytest.mark.usefixtures("often")
@pytest.mark.parametrize("is_told", [True, False], ids=["in a message", "in the stream"])
async def test_an_entry_of_a_newer_program(own: RealServer, is_told: bool) -> None:
    """Followers of that job end with an error; those of other jobs notice nothing, whatever is said on channels."""
    async with RedisJobRepository.from_url(own.url) as repository, admin_of(own) as admin:
        await create(repository, 1, "j")
        await create(repository, 1, "other")
        async with following(repository) as follower, following(repository, "other") as other:
            assert events_in(await next_page(follower)) == events_in(await next_page(other)) == [1]
            newer = b"\x94\x09\xa3log\xc0\xa1x"
            await admin.xadd("{ci:0}:events:j", {"e": newer}, id="2-0")
            await admin.hset("{ci:0}:job:j", "position", "2")
            await admin.publish("{ci:0}:events:other", b"no message")
            if is_told:
                await admin.publish("{ci:0}:events:j", b"1-0 2-0:%d\n" % len(newer) + newer)
            with pytest.raises(StoreFormatError):
                await next_page(follower)
            await repository.add_event("other", JobEvent("log", "2\n"))
            assert await next_page(other) == [2]
