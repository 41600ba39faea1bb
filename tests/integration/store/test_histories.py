"""Another history under the same positions: a demoted primary, a restored backup, a job that was created again."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest

from ci_common.errors import JobNotFoundError
from ci_common.models import Job, JobEvent, utc_now
from ci_eventstore.errors import AcknowledgedEventsLostError, StreamDamagedError
from ci_eventstore.events.records import Fact
from ci_eventstore.following import hub
from ci_eventstore.following.follower import Follower
from ci_eventstore.following.records import Followed, Notice
from ci_eventstore.repository import RedisJobRepository
from tests.fault_proxy import FaultProxy
from tests.integration.store.followers import admin_of, following
from tests.integration.store.replicas import Pair, replicate
from tests.integration.store.servers_found import finding
from tests.servers import BINARIES, RealServer

Texts = list[str | None]


find_server = finding(BINARIES)


@pytest.fixture
async def address(pair: Pair) -> AsyncIterator[FaultProxy]:
    """The primary's address, which may move; connections are left open."""
    async with FaultProxy(pair[0].socket_path) as opened:
        yield opened


async def promote(replica: RealServer) -> None:
    async with admin_of(replica) as admin:
        await admin.execute_command("REPLICAOF", "NO", "ONE")


def logs(name: str, first: int, last: int) -> list[JobEvent]:
    return [JobEvent("log", f"{name}{number}") for number in range(first, last + 1)]


def in_short(record: Followed) -> str | None:
    """Return an event's text, `complete`, a notice's type; None for a fact."""
    if isinstance(record, Notice):
        return str(record.type)
    return None if isinstance(record, Fact) else record.data or record.type


async def read_until(follower: Follower, last: str) -> Texts:
    """Return what a follower is handed, up to a text."""
    found: Texts = []
    async with asyncio.timeout(60):
        while last not in found:
            page = await follower.read()
            found += [text for record in page.records if (text := in_short(record)) is not None]
            assert not page.is_last or last in found, found
    return found


@pytest.mark.slow
@pytest.mark.parametrize("new_last", [4, 6, 8], ids=["shorter", "as long", "longer"])
async def test_a_demoted_primary_whose_connections_survive(pair: Pair, address: FaultProxy, new_last: int) -> None:
    """The new one has other events where the old one's were seen; old ones and new ones are never mixed."""
    old, new = pair
    async with RedisJobRepository.from_url(address.url) as reader, RedisJobRepository.from_url(old.url) as writer:
        await writer.create_job(Job(id="j", status="running"))
        await writer.add_events("j", logs("both", 1, 3))
        await replicate(new, old)
        async with following(reader) as follower:
            assert await read_until(follower, "both3") == ["both1", "both2", "both3"]
            await promote(new)
            await writer.add_events("j", logs("old", 4, 6))
            assert await read_until(follower, "old6") == ["old4", "old5", "old6"]
            before = follower.incarnation
            async with RedisJobRepository.from_url(new.url) as successor:
                await successor.add_events("j", logs("new", 4, new_last))
                await replicate(old, new)
                address.upstream = new.socket_path
                for number in range(new_last + 1, 12):
                    await successor.add_event("j", JobEvent("log", f"new{number}"))
                await successor.complete_job("j", True, utc_now())
                everything = [f"both{n}" for n in (1, 2, 3)] + [f"new{n}" for n in range(4, 12)] + ["complete"]
                assert await read_until(follower, "complete") == ["reset", *everything]
                assert follower.incarnation != before
                async with following(successor, after=5) as late:
                    assert await read_until(late, "complete") == everything[5:]
                late = await successor.follow("j", 5, incarnation=before)
                assert await read_until(late, "complete") == ["reset", *everything]
                late.close()
                late = await successor.follow("j", 5, incarnation=follower.incarnation)
                assert await read_until(late, "complete") == everything[5:]
                late.close()
                assert await successor.verify() == []


@pytest.mark.slow
async def test_a_demoted_primary_that_nobody_writes_to(
    pair: Pair, address: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No message tells of the other history, and it goes as far as the old one: the mark in the job's hash does."""
    monkeypatch.setattr(hub, "WATCH_SECONDS", 0.2)
    old, new = pair
    async with RedisJobRepository.from_url(address.url) as reader, RedisJobRepository.from_url(old.url) as writer:
        await writer.create_job(Job(id="j", status="running", events=logs("both", 1, 3)))
        await replicate(new, old)
        async with following(reader) as follower:
            await promote(new)
            await writer.add_events("j", logs("old", 4, 6))
            assert (await read_until(follower, "old6"))[-1] == "old6"
            async with RedisJobRepository.from_url(new.url) as successor:
                await successor.add_events("j", logs("new", 4, 6))
            await replicate(old, new)
            address.upstream = new.socket_path
            assert await read_until(follower, "new6") == ["reset", "both1", "both2", "both3", "new4", "new5", "new6"]


@pytest.mark.parametrize("how", ["DEL", "FLUSHALL"])
async def test_a_job_that_is_created_again(own: RealServer, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    """It has the old one's id and is another job: its followers are told, now and later."""
    monkeypatch.setattr(hub, "WATCH_SECONDS", 60.0)
    async with RedisJobRepository.from_url(own.url) as repository, admin_of(own) as admin:
        await repository.create_job(Job(id="j", status="running"))
        await repository.add_events("j", logs("old", 1, 6))
        async with following(repository) as follower:
            await read_until(follower, "old6")
            before = follower.incarnation
            if how == "DEL":
                keys = [key async for key in admin.scan_iter("*:j")]
                await admin.delete(*keys)
                for key in [key async for key in admin.scan_iter("*:jobs:*")]:
                    await admin.delete(key)
            else:
                await admin.flushall()
            async with RedisJobRepository.from_url(own.url) as another:
                await another.create_job(Job(id="j", status="running", events=logs("new", 1, 7)))
                await another.add_event("j", JobEvent("log", "new8"))
                assert await read_until(follower, "new8") == ["reset", *(f"new{n}" for n in range(1, 9))]
                after = follower.incarnation
                assert after != before
                late = await another.follow("j", 6, incarnation=before)
                assert (await read_until(late, "new8"))[:2] == ["reset", "new1"]
                late.close()
                late = await another.follow("j", 6, incarnation=after)
                assert await read_until(late, "new8") == ["new7", "new8"]
                late.close()


async def test_a_job_that_is_created_again_for_somebody_else(own: RealServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever followed the one that was their own isn't shown the other one."""
    monkeypatch.setattr(hub, "WATCH_SECONDS", 60.0)
    async with RedisJobRepository.from_url(own.url) as repository, admin_of(own) as admin:
        await repository.create_job(Job(id="j", status="running", user_id="ada", events=logs("old", 1, 3)))
        follower = await repository.follow("j", user_id="ada")
        await read_until(follower, "old3")
        await admin.flushall()
        async with RedisJobRepository.from_url(own.url) as another:
            await another.create_job(Job(id="j", status="running", user_id="bob", events=logs("secret", 1, 2)))
            await another.add_event("j", JobEvent("log", "secret3"))
            assert await read_until(follower, "reset") == ["reset"]
            with pytest.raises(JobNotFoundError):
                await follower.read()
        follower.close()


async def back_up(server: RealServer) -> Path:
    """Return a copy of a server's files as they are now."""
    await asyncio.to_thread(server.stop)
    copy = server.folder / "backup"
    shutil.copytree(server.folder / "appendonlydir", copy)
    await asyncio.to_thread(server.start)
    return copy


async def restore(server: RealServer, copy: Path) -> None:
    """Let a server go on with older files."""
    await asyncio.to_thread(server.stop)
    shutil.rmtree(server.folder / "appendonlydir")
    shutil.copytree(copy, server.folder / "appendonlydir")
    await asyncio.to_thread(server.start)


@pytest.mark.slow
async def test_a_loss_that_only_a_writer_notices(own: RealServer) -> None:
    """Nobody follows when the older data comes back; who comes later is told all the same, once for each loss."""
    async with RedisJobRepository.from_url(own.url) as repository:
        await repository.create_job(Job(id="j", status="running", events=logs("both", 1, 3)))
        await repository.create_job(Job(id="other", status="running"))
        copy = await back_up(own)
        for job_id in ("j", "other"):
            await repository.add_events(job_id, logs("old", 4, 6))
        before = await repository.incarnation("j")
        await restore(own, copy)
        for job_id in ("j", "other"):
            with pytest.raises(AcknowledgedEventsLostError):
                await repository.add_events(job_id, logs("new", 4, 8))
            await repository.add_events(job_id, logs("new", 4, 8))
        after = await repository.incarnation("j")
        late = await repository.follow("j", 6, incarnation=before)
        assert (await read_until(late, "new8"))[:2] == ["reset", "both1"]
        assert late.incarnation == after
        late.close()
        late = await repository.follow("j", 6, incarnation=after)
        assert await read_until(late, "new8") == ["new7", "new8"]
        late.close()
        assert await repository.verify() == []


@pytest.mark.slow
async def test_a_restored_backup(own: RealServer) -> None:
    """Those who follow are told; later ones are once the operator has said so, though the log has grown past them."""
    async with RedisJobRepository.from_url(own.url) as repository:
        await repository.create_job(Job(id="j", status="running", events=logs("both", 1, 3)))
        await repository.create_job(Job(id="other", status="running", events=logs("x", 1, 3)))
        copy = await back_up(own)
        await repository.add_events("j", logs("old", 4, 6))
        async with following(repository) as follower, following(repository, "other") as other:
            await read_until(follower, "old6")
            await read_until(other, "x3")
            before, other_before = follower.incarnation, other.incarnation
            await restore(own, copy)
            async with RedisJobRepository.from_url(own.url) as another:
                await another.add_events("j", logs("new", 4, 8))
                found = await read_until(follower, "new8")
                assert found == ["reset", "both1", "both2", "both3", *(f"new{n}" for n in range(4, 9))]
                # A loss that some process noticed is told to all; one that nobody did, when the operator says so.
                await another.restored()
                late = await another.follow("j", 6, incarnation=before)
                assert (await read_until(late, "new8"))[:2] == ["reset", "both1"]
                late.close()
                late = await another.follow("other", 3, incarnation=other_before)
                assert await read_until(late, "x3") == ["reset", "x1", "x2", "x3"]
                late.close()
                await another.add_event("other", JobEvent("log", "x4"))
                assert await read_until(other, "x4") == ["x4"]
                assert await another.verify() == []


@pytest.mark.slow
@pytest.mark.parametrize("is_ended_again", [True, False])
async def test_a_slow_reader_of_an_ended_job_across_a_restore(own: RealServer, is_ended_again: bool) -> None:
    """Page by page, what follows is compared with what was read; it follows on if the job runs again."""
    async with RedisJobRepository.from_url(own.url) as repository:
        await repository.create_job(Job(id="j", status="running", events=logs("both", 1, 100)))
        copy = await back_up(own)
        await repository.add_events("j", logs("old", 101, 3000))
        await repository.complete_job("j", True, utc_now())
        async with following(repository) as follower:
            first = await follower.read()
            assert 100 < first.until.position < 3000
            await restore(own, copy)
            async with RedisJobRepository.from_url(own.url) as another:
                await another.add_events("j", logs("new", 101, 3500))
                if is_ended_again:
                    await another.complete_job("j", False, utc_now())
                reading = asyncio.create_task(read_until(follower, "complete"))
                if not is_ended_again:
                    await asyncio.sleep(0.2)
                    await another.complete_job("j", False, utc_now())
                found = await reading
                expected = [f"both{n}" for n in range(1, 101)] + [f"new{n}" for n in range(101, 3501)]
                assert found == ["reset", *expected, "complete"]


async def test_a_slow_reader_of_a_running_job(own: RealServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """It reads history while the live end is another one already: told once, and never handed both."""
    monkeypatch.setattr(hub, "WATCH_SECONDS", 60.0)
    async with RedisJobRepository.from_url(own.url) as repository, admin_of(own) as admin:
        await repository.create_job(Job(id="j", status="running", events=logs("old", 1, 1200)))
        async with following(repository) as slow, following(repository, after=1200) as live:
            assert len((await slow.read()).records) < 1000
            await admin.flushall()
            async with RedisJobRepository.from_url(own.url) as another:
                await another.create_job(Job(id="j", status="running", events=logs("new", 1, 1200)))
                expected = ["reset", *(f"new{n}" for n in range(1, 1201))]
                assert await read_until(slow, "new1200") == expected
                assert await read_until(live, "new1200") == expected
                await another.add_event("j", JobEvent("log", "new1201"))
                assert await read_until(slow, "new1201") == ["new1201"]
                assert await read_until(live, "new1201") == ["new1201"]
        assert repository.following_stats().resets == 1


async def test_following_events_ends_with_an_error(own: RealServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Events of another history are never yielded; another follower begins with it."""
    monkeypatch.setattr(hub, "WATCH_SECONDS", 60.0)
    async with RedisJobRepository.from_url(own.url) as repository, admin_of(own) as admin:
        await repository.create_job(Job(id="j", status="running", events=logs("old", 1, 3)))
        async with aclosing(repository.follow_events("j")) as events:
            assert [(await anext(events)).data for _ in range(3)] == ["old1", "old2", "old3"]
            await admin.flushall()
            async with RedisJobRepository.from_url(own.url) as another:
                await another.create_job(Job(id="j", status="running", events=logs("new", 1, 4)))
                await another.add_event("j", JobEvent("log", "new5"))
            with pytest.raises(StreamDamagedError):
                await anext(events)
        async with aclosing(repository.follow_events("j")) as events:
            assert (await anext(events)).data == "new1"
