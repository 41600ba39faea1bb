"""A primary with a replica: writes that wait for it, and a failover to one that was behind."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing

import pytest
from redis.asyncio import Redis

from ci_common.models import Job, JobEvent, utc_now
from ci_eventstore.connection import node
from ci_eventstore.connection.deployments import from_url
from ci_eventstore.connection.nodes import Nodes
from ci_eventstore.controllers import ClaimedJob
from ci_eventstore.errors import AcknowledgedEventsLostError, ConfigurationError, NotReplicatedError, StreamDamagedError
from ci_eventstore.repository import RedisJobRepository
from ci_eventstore.store_format import INITIALIZE
from ci_eventstore.writer.chunk_sender import LOST_LINE
from ci_eventstore.writer.log_writer import WriterSettings
from tests import claims
from tests.fault_proxy import FaultProxy
from tests.integration.store.replicas import Pair, in_step
from tests.servers import RealServer, find_valkey


@pytest.fixture
async def proxy(pair: Pair) -> AsyncIterator[FaultProxy]:
    async with FaultProxy(pair[0].socket_path) as opened:
        yield opened


def logs(count: int, first: int = 1) -> list[JobEvent]:
    return [JobEvent("log", f"{number}\n") for number in range(first, first + count)]


async def fail_over_to_one_that_is_behind(
    pair: Pair,
    proxy: FaultProxy,
    repository: RedisJobRepository,
    seen: Awaitable[object] | None = None,
    by: str = "append",
) -> None:
    """Let five events be acknowledged that the replica never gets, wait until they are seen, lead the address to it."""
    primary, replica = pair
    await in_step(primary)
    async with Redis(port=replica.port) as admin:
        await admin.execute_command("REPLICAOF", "NO", "ONE")
    if by == "append":
        await repository.add_events("j", logs(5, 6))
    else:
        async with repository.log_writer("j") as writer:
            await writer.write("".join(event.data or "" for event in logs(5, 6)))
    if seen is not None:
        await seen
    proxy.upstream = replica.socket_path
    proxy.cut_all()


async def test_a_replicated_write_is_on_the_replica(pair: Pair) -> None:
    """What was acknowledged is there, without waiting any more."""
    primary, replica = pair
    async with RedisJobRepository.from_url(primary.url, durability="replicated") as repository:
        await repository.create_job(Job(id="j", status="running"))
        for event in logs(20):
            await repository.add_event("j", event)
            async with Redis(port=replica.port) as reader:
                assert await reader.hget("{ci:0}:job:j", "position") == event.data.strip().encode()  # type: ignore[union-attr]


async def test_a_write_without_its_replica_is_told(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """The write took effect, and the error says that a failover may lose it."""
    monkeypatch.setattr(node, "REPLICATION_SECONDS", 0.05)
    primary, replica = pair
    async with RedisJobRepository.from_url(primary.url, durability="replicated") as repository:
        await repository.create_job(Job(id="j", status="running"))
        replica.kill()
        with pytest.raises(NotReplicatedError, match="0 of 1 replicas"):
            await repository.add_event("j", logs(1)[0])
        assert await repository.get_events_since("j", 0) == await repository.read_events("j", 0, 1) != []


async def run(server: Nodes) -> object:
    return await server.run(INITIALIZE, ["{ci:accounts}:store"], [1, 1, "0"])


async def test_a_call_that_is_known_already_waits_for_its_replica(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sent again over another connection it writes nothing, and yet it isn't done before the replica has it."""
    monkeypatch.setattr(node, "REPLICATION_SECONDS", 0.05)
    primary, replica = pair
    first, again = Nodes(from_url(primary.url)), Nodes(from_url(primary.url), replicas=1)
    await again.read("PING")
    await in_step(primary)
    replica.suspend()
    await run(first)
    with pytest.raises(NotReplicatedError, match="0 of 1 replicas"):
        await run(again)
    replica.resume()
    await run(again)
    await asyncio.gather(first.close(), again.close())


async def test_as_many_replicas_as_are_asked_for_have_a_write(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """With one replica of the two that are asked for, a write isn't acknowledged."""
    monkeypatch.setattr(node, "REPLICATION_SECONDS", 0.05)
    async with RedisJobRepository.from_url(pair[0].url, durability="replicated") as repository:
        await repository.create_job(Job(id="j", status="running"))
    asking = RedisJobRepository.from_url(pair[0].url, durability="replicated", replicas=2)
    with pytest.raises(NotReplicatedError, match="1 of 2 replicas"):
        async with asking as repository:
            await repository.add_event("j", logs(1)[0])


async def test_an_end_without_its_replica_is_told(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """It waits for the replica, and isn't taken for stored when the primary has it: nobody says who else does."""
    monkeypatch.setattr(node, "REPLICATION_SECONDS", 0.05)
    primary, replica = pair
    async with RedisJobRepository.from_url(primary.url, durability="replicated") as repository:
        await repository.create_job(Job(id="j", status="queued"))
        [claimed] = await claims.claim(repository, "default", "c1", 1, 30.0)
        job, waits = ClaimedJob(repository, claimed), asyncio.Event()
        job.storage._outage.failed = lambda *_: waits.set()  # type: ignore[method-assign]
        replica.suspend()
        ending = asyncio.create_task(job.complete())
        await waits.wait()
        replica.resume()
        with pytest.raises(NotReplicatedError, match="0 of 1 replicas"):
            await ending
        assert job.storage.unstored_end == "success"


async def test_a_log_waits_for_the_replica(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """A log writer and a job's end outlast a replica that is away: the log is there once, and has no loss."""
    monkeypatch.setattr(node, "REPLICATION_SECONDS", 0.05)
    primary, replica = pair
    async with RedisJobRepository.from_url(primary.url, durability="replicated") as repository:
        await repository.create_job(Job(id="j", status="running"))
        async with repository.log_writer("j", settings=WriterSettings(pause_seconds=0)) as writer:
            await writer.write("one\n")
            # It is confirmed then, and isn't waited for later on.
            await writer.flush()
            replica.suspend()
            await writer.write("two\n")
            await anext(repository.follow_events("j", 1))
            closing = asyncio.create_task(writer.close())
            await asyncio.wait([closing], timeout=0.2)
            assert not closing.done()
            replica.resume()
            await closing
        assert [event.data for event in await repository.get_events_since("j", 0)] == ["one\n", "two\n"]
        assert await repository.verify() == []


async def test_lost_acknowledged_events_are_told_once(pair: Pair, proxy: FaultProxy) -> None:
    """After a failover to a replica that was behind, the next append is refused, saying why; then it goes on."""
    async with RedisJobRepository.from_url(proxy.url) as repository:
        await repository.create_job(Job(id="j", status="running"))
        await repository.add_events("j", logs(5))
        following = repository.follow_events("j", last_event_id=9)
        await fail_over_to_one_that_is_behind(pair, proxy, repository)
        with pytest.raises(AcknowledgedEventsLostError):
            await repository.add_event("j", JobEvent("log", "refused"))
        await repository.add_event("j", JobEvent("log", "goes on\n"))
        events = await repository.get_events_since("j", 0)
        assert [event.data for event in events] == [*(event.data for event in logs(5)), "goes on\n"]
        await following.aclose()
        assert await repository.verify() == []


async def complete(repository: RedisJobRepository) -> None:
    await repository.complete_job("j", True, utc_now())


async def cancel(repository: RedisJobRepository) -> None:
    await repository.cancel_job("j")


async def give_back(repository: RedisJobRepository) -> None:
    await repository.update_job_status("j", "queued")


@pytest.mark.slow
@pytest.mark.parametrize("end", [complete, cancel, give_back], ids=lambda end: str(end.__name__))
@pytest.mark.parametrize("how", ["append", "log"])
async def test_whatever_ends_a_job_after_a_failover_tells(
    pair: Pair, proxy: FaultProxy, end: Callable[[RedisJobRepository], Awaitable[None]], how: str
) -> None:
    """Lines that were lost before it aren't passed over in silence; the second time it goes through."""
    async with RedisJobRepository.from_url(proxy.url) as repository:
        await repository.create_job(Job(id="j", status="running"))
        await fail_over_to_one_that_is_behind(pair, proxy, repository, by=how)
        with pytest.raises(AcknowledgedEventsLostError):
            await end(repository)
        await end(repository)
        assert [event.data for event in await repository.get_events_since("j", 0) if event.data == "6\n"] == []
        assert await repository.verify() == []


@pytest.mark.slow
async def test_a_restore_of_an_older_copy_is_told() -> None:
    """An operator who copies yesterday's files back loses what came since, and each writer hears of it."""
    with RealServer(find_valkey(), "appendfsync always") as own:
        async with RedisJobRepository.from_url(own.url) as repository:
            await repository.create_job(Job(id="j", status="running"))
            writer = repository.log_writer("j")
            writer.open()
            await writer.write("kept\n")
            await writer.flush()
            data = own.folder / "appendonlydir"
            copy = own.folder / "copy"
            await asyncio.to_thread(shutil.copytree, data, copy)
            await writer.write("lost\n")
            await writer.flush()
            await repository.add_event("j", JobEvent("log", "lost, too\n"))
            await asyncio.to_thread(own.stop)
            await asyncio.to_thread(shutil.rmtree, data)
            copy.rename(data)
            await asyncio.to_thread(own.start)
            with pytest.raises(AcknowledgedEventsLostError):
                await complete(repository)
            await writer.write("goes on\n")
            await writer.close()
            await complete(repository)
            events = await repository.get_events_since("j", 0)
            assert [event.data for event in events] == ["kept\n", LOST_LINE + "goes on\n", None]
            assert await repository.verify() == []


async def test_a_log_writer_says_it_in_the_log(pair: Pair, proxy: FaultProxy) -> None:
    """A writer that lost acknowledged text marks the place, and goes on."""
    async with RedisJobRepository.from_url(proxy.url) as repository:
        await repository.create_job(Job(id="j", status="running"))
        async with repository.log_writer("j", settings=WriterSettings(pause_seconds=0)) as writer:
            for text in ("one\n", "two\n"):
                await writer.write(text)
                await anext(repository.follow_events("j", {"one\n": 0, "two\n": 1}[text]))
            await fail_over_to_one_that_is_behind(pair, proxy, repository)
            async with Redis(port=pair[1].port) as admin:
                await admin.delete("{ci:0}:calls:j")
            await writer.write("three\n")
        events = await repository.get_events_since("j", 0)
        assert [event.data for event in events] == ["one\n", "two\n", LOST_LINE + "three\n"]


async def test_a_follower_ahead_of_the_store_is_told(
    pair: Pair, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A follower at a position that the store no longer has doesn't wait for ever."""
    monkeypatch.setattr("ci_eventstore.following.hub.WATCH_SECONDS", 0.05)
    async with RedisJobRepository.from_url(proxy.url) as repository:
        await repository.create_job(Job(id="j", status="running"))
        await repository.add_events("j", logs(5))
        following = repository.follow_events("j", last_event_id=4)
        assert (await anext(following)).id == 5
        reading_on = asyncio.ensure_future(anext(following))
        await fail_over_to_one_that_is_behind(pair, proxy, repository, reading_on)
        assert (await reading_on).id == 6
        with pytest.raises(StreamDamagedError):
            [event async for event in following]


async def test_a_follower_that_starts_ahead_is_told(repository: RedisJobRepository) -> None:
    """At its first step: an error, or a reset and the log from its beginning."""
    await repository.create_job(Job(id="j", status="running"))
    with pytest.raises(StreamDamagedError, match="event 2 is missing"):
        await anext(repository.follow_events("j", last_event_id=2))
    async with aclosing(repository.follow_records("j", last_event_id=2)) as following:
        await repository.add_events("j", logs(1))
        found = [await anext(following) for _ in range(3)]
    assert [record.type for record in found] == ["reset", "created", "log"]


def test_an_unknown_durability_is_refused() -> None:
    """Bad settings raise before anything is connected."""
    with pytest.raises(ConfigurationError, match="durability"):
        RedisJobRepository.from_url("redis://localhost", durability="sure")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="max_event_bytes"):
        RedisJobRepository.from_url("redis://localhost", max_event_bytes=0)
    with pytest.raises(ConfigurationError, match="replicas=2 needs durability='replicated'"):
        RedisJobRepository.from_url("redis://localhost", replicas=2)
    with pytest.raises(ConfigurationError, match="replicas=0"):
        RedisJobRepository.from_url("redis://localhost", durability="replicated", replicas=0)
