"""A copied store reads as the one that it was copied from, whatever the partitions, and wherever a copy is stopped."""

import asyncio
import contextlib
import random
import secrets
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from ci_common.errors import JobGoneError
from ci_common.memory import MemoryJobRepository
from ci_common.models import APIKey, Job, JobEvent, User
from ci_eventstore.errors import ConfigurationError, MissingRightsError
from ci_eventstore.facts.groups import Entries
from ci_eventstore.history import freezing
from ci_eventstore.history.copied_stores import StoreSource, StoreTarget
from ci_eventstore.history.copying import Copier, CopyReport
from ci_eventstore.history.copying_by_contract import copy_accounts, copy_jobs
from ci_eventstore.history.freezing import frozen
from ci_eventstore.keys import all_keys_pattern, facts_key, segment_key
from ci_eventstore.repository import RedisJobRepository
from tests.acceptance.command_line import PROGRAM
from tests.cancelling import Counted, Steps
from tests.claims import claim
from tests.examples import slow
from tests.integration.store.sealing import NOW, archive_sealed, ended_job, lines, seal_job
from tests.servers import RealServer
from tests.waiting import wait_until


@asynccontextmanager
async def store(own: RealServer, prefix: str, partitions: int = 1) -> AsyncIterator[RedisJobRepository]:
    """Open a store of its own on a server."""
    async with RedisJobRepository.from_url(own.url, prefix=prefix, partitions=partitions) as opened:
        yield opened


async def copy(source: RedisJobRepository, target: RedisJobRepository) -> CopyReport:
    """Copy all of a store."""
    copier = Copier(StoreSource(source.engine), StoreTarget(target.engine))
    await copy_accounts(source, target, copier.report)
    return await copier.copy()


async def fill(repository: RedisJobRepository, choose: random.Random, jobs: int) -> None:
    """Make users, keys, and jobs: waiting, ended, sealed, with late output, deleted."""
    for name in ("ada", "bob"):
        await repository.create_user(User(id=name, name=name, email=f"{name}@example.org", created_at=NOW))
    await repository.update_user_active("bob", False)
    await repository.create_api_key(APIKey(id="k", user_id="ada", key_hash="hash", created_at=NOW))
    for number in range(jobs):
        job_id = f"j{number}-{choose.randrange(1000)}"
        if number % 5 == 0:
            job = Job(id=job_id, status="queued", user_id=choose.choice(["ada", None]), command=["make"])
            await repository.create_job(job)
            continue
        await ended_job(repository, job_id, choose.randrange(40))
        if number % 5 > 1:
            await seal_job(repository, job_id)
        if number % 5 == 2:
            await repository.keep_job(job_id)
        if number % 5 > 2:
            await repository.add_events(job_id, lines(choose.randrange(1, 5), 100))
        if number % 10 == 9:
            await repository.delete_job(job_id)


async def seen(repository: RedisJobRepository) -> dict[str, Any]:
    """Return all that readers get of a store."""
    jobs = await repository.list_jobs()
    return {
        "jobs": sorted(map(repr, jobs)),
        "order": [job.id for job in await repository.page_jobs()],
        "events": {job.id: await repository.get_events_since(job.id, 0) for job in jobs},
        "users": await repository.list_users(),
        "keys": await repository.list_api_keys(),
        "of ada": sorted(job.id for job in await repository.page_jobs(user_id="ada")),
    }


async def kept_for_a_while(repository: RedisJobRepository) -> list[str]:
    """Return the keys of jobs and segments that expire, and whatever is staged."""
    engine = repository.engine
    keys = [key async for page in engine.nodes.scan(all_keys_pattern(engine.keys)) for key in page]
    ends = await engine.nodes.read_many([("PTTL", key) for key in keys])
    return [key for key, end in zip(keys, ends, strict=True) if end != -1 or ":staged:" in key]


async def fields_of_records(repository: RedisJobRepository) -> dict[str, int]:
    """Return how many fields the record of each job has: few if it is packed."""
    engine = repository.engine
    jobs = [engine.keys.job(job.id) for job in await repository.list_jobs()]
    sizes = await engine.nodes.read_many([("HLEN", keys.hash) for keys in jobs])
    return {keys.job_id: size for keys, size in zip(jobs, sizes, strict=True)}


@pytest.mark.parametrize(
    "jobs", [5, pytest.param(120, marks=pytest.mark.slow(reason="many jobs, read several times"))], ids=str
)
async def test_a_copy_reads_as_the_store_did(own: RealServer, seed: int, jobs: int) -> None:
    """From one partition to four, to three, and back to one; a second copy changes nothing."""
    async with (
        store(own, "a") as first,
        store(own, "b", 4) as second,
        store(own, "c", 3) as third,
        store(own, "d") as last,
    ):
        await fill(first, random.Random(seed), jobs)
        before = await seen(first)
        for source, target in ((first, second), (second, third), (third, last)):
            report = await copy(source, target)
            assert (report.left, report.different) == ({}, [])
            assert report.source_digest == report.target_digest
            assert await seen(target) == before
            assert await target.verify(deep=True) == []
            again = await copy(source, target)
            assert (again.copied, again.deleted, again.already) == (0, 0, report.copied)
        waiting = [job.id for job in await first.list_jobs() if job.status == "queued"]
        for repository in (second, third, last):
            assert await kept_for_a_while(repository) == []
            records = await fields_of_records(repository)
            assert records == await fields_of_records(first)
        claimed = await claim(last, "default", "c", len(waiting), 30)
        assert {one.job.id for one in claimed} == set(waiting)


async def test_what_is_new_or_longer_is_copied(own: RealServer) -> None:
    """Late output, a job that has ended since, one that was sealed, one that was deleted; what runs is named."""
    async with store(own, "a") as source, store(own, "b", 2) as target:
        for job_id in ("late", "gone", "sealed"):
            await ended_job(source, job_id, 5)
        await source.create_job(Job(id="waits", status="queued"))
        await source.create_job(Job(id="runs", status="running"))
        report = await copy(source, target)
        assert (report.copied, report.left, report.compared) == (4, {"job runs": "it is running"}, 4)
        await seal_job(target, "late")
        await seal_job(source, "sealed")
        await source.add_events("late", lines(3, 50))
        await source.delete_job("gone")
        await source.cancel_job("waits")
        await source.complete_job("runs", True, NOW)
        report = await copy(source, target)
        assert (report.copied, report.already, report.deleted) == (3, 1, 1)
        assert report.is_whole
        assert await seen(target) == await seen(source)
        with pytest.raises(JobGoneError):
            await target.get_job("gone")
        # The target's own segments went with what they held.
        late = segment_key(target.engine.keys.job("late"), "*")
        assert [key async for page in target.engine.nodes.scan(late) for key in page] == []
        assert await target.verify(deep=True) == []


async def test_what_the_target_has_otherwise_stays(own: RealServer) -> None:
    """Another job of that id, one that went on there, one that was deleted there, another user: named, and left."""
    async with store(own, "a") as source, store(own, "b") as target:
        await source.create_user(User(id="ada", name="Ada", email="ada@example.org", created_at=NOW))
        await target.create_user(User(id="ada", name="Eve", email="eve@example.org", created_at=NOW))
        await ended_job(target, "other")
        for job_id in ("other", "went on", "gone"):
            await ended_job(source, job_id, 5)
        assert set((await copy(source, target)).left) == {"user ada", "job other"}
        await target.add_event("went on", JobEvent("log", "there\n"))
        for text in ("here\n", "and here\n"):
            await source.add_event("went on", JobEvent("log", text))
        await target.delete_job("gone")
        before = await seen(target)
        report = await copy(source, target)
        assert set(report.left) == {"user ada", "job other", "job went on", "job gone"}
        assert await seen(target) == before
        assert await target.verify() == []


async def test_damage_is_named_and_stops_nothing(own: RealServer) -> None:
    """An entry that is missing keeps its job from the target, and no other."""
    async with store(own, "a") as source, store(own, "b") as target:
        for job_id in ("bad", "good"):
            await ended_job(source, job_id, 5)
        await source.engine.nodes.read("XDEL", source.engine.keys.job("bad").stream, "3-0")
        report = await copy(source, target)
        assert list(report.left) == ["job bad"]
        assert [job.id for job in await target.list_jobs()] == ["good"]
        assert await target.verify() == []


@pytest.mark.parametrize("stride", [7, slow(1)])
async def test_a_copy_may_stop_anywhere(own: RealServer, stride: int) -> None:
    """Cancelled at any await, it leaves no half of a job, and the next copy completes it."""
    async with store(own, "a") as source:
        await ended_job(source, "live", 3)
        await ended_job(source, "late", 3)
        await seal_job(source, "late")
        await source.add_event("late", JobEvent("log", "late\n"))
        await source.create_job(Job(id="waits", status="queued"))
        before = await seen(source)
        at = 0
        while True:
            at += stride
            async with store(own, f"b{at}", 2) as target:
                steps = Steps(at, 1)

                async def work(target: RedisJobRepository = target) -> None:
                    await copy(source, target)

                steps.victim = task = asyncio.create_task(Counted(work(), steps))
                await asyncio.gather(task, return_exceptions=True)
                half = await seen(target)
                assert all(before["events"][job_id] == events for job_id, events in half["events"].items())
                assert await target.verify() == []
                assert (await copy(source, target)).is_whole
                assert await seen(target) == before
                assert await target.verify() == []
            if not steps.was_reached:
                break


async def test_groups_are_told_of_jobs_that_a_killed_copy_brought(
    own: RealServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A gap, by the next copy at the latest, though that brings nothing; one more copy tells nothing."""
    async with store(own, "a") as source, store(own, "b", 2) as target:
        await ended_job(source, "j", 3)
        await target.engine.facts.begin_here("group")
        facts = [facts_key(tag) for tag in target.engine.keys.tags]

        async def kill(target: StoreTarget) -> None:
            raise asyncio.CancelledError

        with monkeypatch.context() as patch:
            patch.setattr(StoreTarget, "finish", kill)
            with pytest.raises(asyncio.CancelledError):
                await copy(source, target)
        assert await target.get_job("j") == await source.get_job("j")
        assert (await copy(source, target)).copied == 0
        assert [await target.engine.nodes.read("EXISTS", key) for key in facts] == [0, 0]
        for tag in target.engine.keys.tags:
            found = await target.engine.facts.read(tag, "group", "reader", 10, limit=1)
            assert isinstance(found, Entries)
            assert found.has_gap
        await copy(source, target)
        assert [await target.engine.nodes.read("EXISTS", key) for key in facts] == [1, 1]


async def test_a_store_of_another_kind_is_copied(own: RealServer) -> None:
    """What its readers get, users and keys included; what runs is named, and a job that is otherwise there stays."""
    async with MemoryJobRepository() as source, store(own, "a", 2) as target:
        await source.create_user(User(id="ada", name="Ada", email="ada@example.org", created_at=NOW))
        await source.create_api_key(APIKey(id="k", user_id="ada", key_hash="hash", created_at=NOW))
        for job_id, status in (("ended", "running"), ("waits", "queued"), ("runs", "running"), ("other", "queued")):
            await source.create_job(Job(id=job_id, status=status, user_id="ada", created_at=NOW))
        await source.add_events("ended", lines(1500))
        await source.complete_job("ended", True, NOW)
        await target.create_job(Job(id="other", status="queued", created_at=NOW))
        for count in (2, 0):
            report = CopyReport()
            await copy_accounts(source, target, report)
            await copy_jobs(source, target, report)
            assert (report.copied, report.already, report.compared) == (count, 3 - count, 3)
            assert (report.left, report.different) == ({"job runs": "it is running"}, ["other"])
            assert await target.get_job("ended") == await source.get_job("ended")
            assert await target.list_users() == await source.list_users()
            assert await target.verify() == []


@pytest.mark.slow
async def test_copies_are_killed_again_and_again_while_writers_write(own: RealServer, seed: int) -> None:
    """Slow, as it starts many processes: the target never has anything but beginnings of jobs, and all in the end."""
    choose, url = random.Random(seed), own.url
    arguments = ["copy", "--from", url, "--prefix", "a", "--to", url, "--to-prefix", "b", "--partitions", "3"]
    async with store(own, "a") as source, store(own, "b", 3) as target:
        await fill(source, choose, 60)
        jobs, is_over = [job.id for job in await source.list_jobs() if job.status != "queued"], False

        async def write() -> None:
            while not is_over:
                await source.add_event(choose.choice(jobs), JobEvent("log", "late\n"))
                job_id = choose.choice(jobs)
                await seal_job(source if choose.random() < 0.5 else target, job_id)

        writer = asyncio.create_task(write())
        for number in range(8):
            process = await asyncio.create_subprocess_exec(str(PROGRAM), *arguments, stderr=asyncio.subprocess.DEVNULL)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), 0.6 + number * 0.2)
            if process.returncode is None:
                process.kill()
                await process.wait()
            there = [job.id for job in await target.list_jobs()]
            for job_id in there:
                copied = await target.get_events_since(job_id, 0)
                assert (await source.get_events_since(job_id, 0))[: len(copied)] == copied
            assert await target.verify() == []
        is_over = True
        await writer
        report = await copy(source, target)
        assert report.is_whole
        assert await seen(target) == await seen(source)
        assert await target.verify(deep=True) == []


async def test_archived_logs_are_copied(own: RealServer, tmp_path: Path) -> None:
    """The target has them itself, and needs no archive; one whose archive is away is named."""
    async with store(own, "a") as source, store(own, "b", 2) as target:
        await ended_job(source)
        await seal_job(source)
        await archive_sealed(source, tmp_path)
        assert (await copy(source, target)).is_whole
        shutil.rmtree(tmp_path)
        assert len(await target.get_events_since("j", 0)) == 31
        assert await target.verify(deep=True) == []
        async with store(own, "c") as third:
            assert list((await copy(source, third)).left) == ["job j"]
            assert await third.list_jobs() == []


async def test_nothing_is_written_to_a_frozen_source(own: RealServer, valkey: RealServer) -> None:
    """A writer waits, and goes on afterwards: nothing that it was told is lost, and the copy lacks nothing."""
    async with store(own, "a") as source, store(valkey, f"b{secrets.token_hex(4)}", 2) as target:
        await ended_job(source, "j", 5)
        written, is_over = 0, False

        async def write() -> None:
            nonlocal written
            async with store(own, "a") as writer:
                while not is_over:
                    await writer.add_event("j", JobEvent("log", f"late {written}\n"))
                    written += 1

        writing = asyncio.create_task(write())
        await wait_until(lambda: written > 5)
        async with frozen(source.engine.nodes, target.engine.nodes):
            before = await source.get_events_since("j", 0)
            assert (await copy(source, target)).is_whole
            assert await source.get_events_since("j", 0) == before == await target.get_events_since("j", 0)
        known = written
        await wait_until(lambda: written > known + 5)
        is_over = True
        await writing
        late = [event.data for event in await source.get_events_since("j", 6)]
        assert late == [f"late {number}\n" for number in range(written)]


async def test_a_freeze_ends_with_its_process(own: RealServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody lets writes through, and they are soon; a freeze that goes on is renewed."""
    monkeypatch.setattr(freezing, "HOLD_MS", 300)
    async with store(own, "a") as source:
        await ended_job(source, "j", 5)
        async with frozen(source.engine.nodes):
            writing = asyncio.create_task(source.add_event("j", JobEvent("log", "x\n")))
            await asyncio.sleep(1)
            assert not writing.done()
        await writing
        await freezing._hold(source.engine.nodes)
        await source.add_event("j", JobEvent("log", "y\n"))
        assert len(await source.get_events_since("j", 0)) == 8


async def test_a_copy_on_one_server_can_not_be_frozen(own: RealServer) -> None:
    """Its own writes would be held back; nothing is."""
    async with store(own, "a") as source, store(own, "b") as target:
        with pytest.raises(ConfigurationError, match="one server"):
            async with frozen(source.engine.nodes, target.engine.nodes):
                pytest.fail("it is frozen")
        await ended_job(source, "j", 5)


async def test_writers_are_kept_out_by_the_server(own: RealServer) -> None:
    """As docs/operations.md says: who loses the right to write is refused at once, and the copy has everything."""
    async with store(own, "a") as admin, store(own, "b", 2) as target:
        await admin.engine.nodes.read("ACL", "SETUSER", "ci-server", "on", ">pw", "allkeys", "allchannels", "+@all")
        url = own.url.replace("unix://", "unix://ci-server:pw@")
        async with RedisJobRepository.from_url(url, prefix="a") as source:
            await ended_job(source, "j", 5)
            await source.create_job(Job(id="runs", status="running"))
            await admin.engine.nodes.read("ACL", "SETUSER", "ci-server", "-@write")
            for job_id in ("runs", "j"):
                with pytest.raises(MissingRightsError):
                    await source.add_event(job_id, JobEvent("log", "x"))
            report = await copy(admin, target)
            assert (report.left, report.different) == ({"job runs": "it is running"}, [])
            assert await source.get_events_since("j", 0) == await target.get_events_since("j", 0)
            await admin.engine.nodes.read("ACL", "SETUSER", "ci-server", "+@write")
            await source.add_event("runs", JobEvent("log", "x"))
