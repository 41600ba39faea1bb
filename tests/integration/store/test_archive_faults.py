"""A bucket that fails in any way, programs that are killed: no log is lost, shorter or doubled, no deletion undone."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from ci_common.errors import JobGoneError, LogDeletedError, RepositoryError
from ci_common.models import Job, JobEvent
from ci_eventstore import archive as archives
from ci_eventstore.errors import ArchiveUnavailableError
from ci_eventstore.events.sealed_log import SealedLogs
from ci_eventstore.history.archive_check import check_archive
from ci_eventstore.history.archive_rebuild import rebuild_from_archive
from ci_eventstore.history.archiver import Archiver
from ci_eventstore.history.archiving import Moved, archive_job, unarchive_job
from ci_eventstore.history.seal import Sealed
from ci_eventstore.keys import sweeper_key
from ci_eventstore.repository import RedisJobRepository
from tests.acceptance.command_line import PROGRAM
from tests.http_faults import SECRET, HttpFault, HttpFaultProxy, HttpPlan, broken, nth
from tests.integration.store.sealing import NOW, ended_job, seal_job
from tests.servers import RealServer
from tests.waiting import wait_until


@pytest.fixture
async def in_bucket(
    repository: RedisJobRepository, bucket_proxy: HttpFaultProxy, request: pytest.FixtureRequest
) -> Archiver:
    """An archiver whose archive is a bucket."""
    engine = repository.engine
    url = f"s3://logs/{abs(hash(request.node.name))}?endpoint=http://127.0.0.1:{bucket_proxy.port}"
    archiver = Archiver(engine.nodes, engine.reader.source, engine.keys, url)
    await archiver.find()
    return archiver


class Trouble:
    """One archived or sealed job, and what may be done to it."""

    def __init__(self, repository: RedisJobRepository, archiver: Archiver) -> None:
        self.repository = repository
        self._archiver = archiver

    async def archive(self) -> Moved:
        """Archive the job."""
        engine = self.repository.engine
        there = await self._archiver.find()
        return await archive_job(engine.nodes, engine.reader.source, there, engine.keys.job("j"))

    async def unarchive(self) -> Moved:
        """Bring it back."""
        engine = self.repository.engine
        return await unarchive_job(engine.nodes, engine.reader.source, engine.keys.job("j"))

    async def delete(self) -> bool:
        """Delete it."""
        return await self.repository.delete_job("j")

    async def delete_log(self) -> bool:
        """Delete its log."""
        return await self.repository.delete_log("j")

    async def sealed_again(self) -> Sealed:
        """Seal late output with it."""
        await self.repository.add_event("j", JobEvent("log", "late\n"))
        return await seal_job(self.repository)

    @property
    def sealed(self) -> SealedLogs:
        """What reads segments."""
        return self.repository.engine.reader.source.sealed


ACTS: dict[str, Callable[[Trouble], Awaitable[object]]] = {
    "archive": Trouble.archive,
    "unarchive": Trouble.unarchive,
    "delete": Trouble.delete,
    "delete log": Trouble.delete_log,
    "late output": Trouble.sealed_again,
}


async def lose_all(repository: RedisJobRepository) -> None:
    """Have the store lose all but which one it is."""
    nodes, store = repository.engine.nodes, repository.engine.keys.store
    names = ("format", "partitions", "incarnation")
    known = await nodes.read("HMGET", store, *names)
    await nodes.read("FLUSHALL")
    await nodes.read("HSET", store, *(part for pair in zip(names, known, strict=True) for part in pair))


async def prepare(trouble: Trouble, act: str) -> Job | None:
    """Have a sealed job, archived if that is what is needed."""
    await lose_all(trouble.repository)
    await ended_job(trouble.repository, count=40)
    await seal_job(trouble.repository)
    if act != "archive":
        assert await trouble.archive() is Moved.MOVED
    trouble.sealed.forget()
    return await trouble.repository.get_job("j")


async def settle(trouble: Trouble, act: str, before: Job | None) -> None:
    """See that nothing is lost while all works again, and that the same call then does it."""
    trouble.sealed.forget()
    is_deletion = act.startswith("delete")
    try:
        found = await trouble.repository.get_job("j")
        assert found is not None
        assert before is not None
        assert is_deletion or not found.log_deleted
        assert found.log_deleted or found.events[: len(before.events)] == before.events
    except (JobGoneError, LogDeletedError):
        assert is_deletion
    await ACTS[act](trouble)
    trouble.sealed.forget()
    assert await trouble.repository.verify(deep=True) == []
    if is_deletion:
        with pytest.raises((JobGoneError, LogDeletedError)):
            await trouble.repository.get_events_since("j", 0)


async def act_while(trouble: Trouble, act: str, proxy: HttpFaultProxy, plan: HttpPlan) -> bool:
    """Do it while requests are broken; tell whether one was. An error has a name, and nothing secret in it."""
    seen, proxy.plan = proxy.faults, plan
    result = (await asyncio.gather(ACTS[act](trouble), return_exceptions=True))[0]
    assert not isinstance(result, BaseException) or (isinstance(result, RepositoryError) and SECRET not in str(result))
    is_there = await trouble.repository.engine.nodes.read("EXISTS", trouble.repository.engine.keys.job("j").hash)
    assert len(await trouble.repository.page_jobs()) == is_there
    proxy.plan = lambda _: None
    return proxy.faults > seen


#: What keeps a request from being done, or its answer from being right.
FAILURES = [fault for fault in HttpFault if fault is not HttpFault.DRIP]


@pytest.fixture
def patience(monkeypatch: pytest.MonkeyPatch) -> Callable[[HttpFault | None], None]:
    """Sets how long a call to the archive may take: with no answer to wait for, long enough for a busy machine."""

    def set_patience(fault: HttpFault | None) -> None:
        monkeypatch.setattr(archives, "CALL_SECONDS", 1.0 if fault is HttpFault.STALL else 20.0)

    set_patience(None)
    return set_patience


@pytest.mark.slow  # it waits for requests that are tried again
@pytest.mark.parametrize("act", list(ACTS))
async def test_a_request_fails(
    repository: RedisJobRepository,
    bucket_proxy: HttpFaultProxy,
    patience: Callable[[HttpFault | None], None],
    in_bucket: Archiver,
    act: str,
) -> None:
    """Each request of each act, in each way: it is done, or refused with a name; then the job is whole, or deleted."""
    trouble = Trouble(repository, in_bucket)
    for fault in FAILURES:
        for number in range(1, 3 if fault is HttpFault.STALL else 12):
            before = await prepare(trouble, act)
            patience(fault)
            was_broken = await act_while(trouble, act, bucket_proxy, nth(fault, number))
            patience(None)
            await settle(trouble, act, before)
            if not was_broken:
                break
    await lose_all(repository)


#: What may happen to all requests of a method.
WHOLE_OUTAGES = [
    *(("PUT", fault) for fault in FAILURES if fault not in (HttpFault.BODY_CUT, HttpFault.BYTE_FLIPPED)),
    *(("GET", fault) for fault in (HttpFault.BODY_CUT, HttpFault.BYTE_FLIPPED, HttpFault.BROKEN, HttpFault.FORBIDDEN)),
    ("GET", HttpFault.DRIP),
    *(("DELETE", fault) for fault in (HttpFault.BROKEN, HttpFault.FORBIDDEN, HttpFault.ANSWER_LOST)),
]


@pytest.mark.slow  # it waits for requests that are tried again
@pytest.mark.parametrize("act", list(ACTS))
async def test_all_requests_fail(
    repository: RedisJobRepository,
    bucket_proxy: HttpFaultProxy,
    patience: Callable[[HttpFault | None], None],
    in_bucket: Archiver,
    act: str,
) -> None:
    """Of a method, in each way, for as long as it is tried: named; writes and lists go on; later it is done."""
    trouble = Trouble(repository, in_bucket)
    for method, fault in WHOLE_OUTAGES:
        before = await prepare(trouble, act)
        patience(fault)
        await act_while(trouble, act, bucket_proxy, broken(fault, method))
        patience(None)
        await settle(trouble, act, before)
    await lose_all(repository)


@pytest.fixture
def endless(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody gives up on the archive while a test lasts; to be there before the archive is opened."""
    monkeypatch.setattr(archives, "CALL_SECONDS", 100.0)
    monkeypatch.setattr(archives, "REQUEST_SECONDS", 100)


@pytest.fixture
async def ten_archived(
    repository: RedisJobRepository, bucket_proxy: HttpFaultProxy, endless: None, in_bucket: Archiver
) -> dict[str, int]:
    """Archived jobs of which nothing is kept in memory, and how many events each has."""
    for number in range(10):
        await ended_job(repository, f"old{number}", 5 + number)
        await seal_job(repository, f"old{number}")
    assert (await in_bucket.sweep(-1e8)).done == 10
    repository.engine.reader.source.sealed.forget()
    return {f"old{number}": 6 + number for number in range(10)}


async def live_life(repository: RedisJobRepository) -> None:
    """Create a job, follow it while it is written to and listed, and see its end."""
    await repository.create_job(Job(id="live", status="running", user_id="ada"))
    follower = asyncio.create_task(_texts(repository, "live"))
    for number in range(20):
        await repository.add_event("live", JobEvent("log", f"line {number}\n"))
        assert [job.id for job in await repository.page_jobs(status="running")] == ["live"]
    await repository.complete_job("live", True, NOW)
    assert await follower == [*(f"line {number}\n" for number in range(20)), None]
    assert len(await repository.get_events_since("live", 0)) == 21
    assert len(await repository.list_jobs()) == 11


async def _texts(repository: RedisJobRepository, job_id: str) -> list[str | None]:
    return [event.data async for event in repository.follow_events(job_id)]


@pytest.mark.slow  # a bucket
async def test_an_archive_that_hangs_holds_up_no_live_job(
    repository: RedisJobRepository, bucket_proxy: HttpFaultProxy, ten_archived: dict[str, int]
) -> None:
    """While fifty reads of archived logs wait for it, a job is written to, listed and followed to its end."""
    bucket_proxy.plan = broken(HttpFault.STALL, "GET")
    wanted = [job_id for job_id in ten_archived for _ in range(5)]
    reads = [asyncio.create_task(repository.get_events_since(job_id, 0)) for job_id in wanted]
    await wait_until(lambda: bucket_proxy.stalled >= len(ten_archived))
    async with asyncio.timeout(30):
        await live_life(repository)
    assert bucket_proxy.stalled >= len(ten_archived)
    assert not [read for read in reads if read.done()]
    bucket_proxy.plan = lambda _: None
    bucket_proxy.cut_stalled()
    found = await asyncio.gather(*reads)
    assert [len(events) for events in found] == [ten_archived[job_id] for job_id in wanted]
    assert await repository.verify(deep=True) == []
    await lose_all(repository)


@pytest.mark.slow  # a bucket
@pytest.mark.usefixtures("patience")
async def test_a_bucket_gives_jobs_back(
    repository: RedisJobRepository,
    bucket_proxy: HttpFaultProxy,
    in_bucket: Archiver,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In pages that end within a job; broken off by the bucket and repeated; without what was deleted."""
    monkeypatch.setattr(archives, "PAGE_NAMES", 3)
    for number in range(8):
        await ended_job(repository, f"j{number}", 5)
        await seal_job(repository, f"j{number}")
    assert (await in_bucket.sweep(-1e8)).done == 8
    before = await repository.get_events_since("j7", 0)
    for job_id in ("j2", "j5"):
        await repository.delete_job(job_id)
    await lose_all(repository)
    archive = await in_bucket.find()
    bucket_proxy.plan = nth(HttpFault.FORBIDDEN, 15)
    with pytest.raises(ArchiveUnavailableError):
        await rebuild_from_archive(repository.engine, archive)
    bucket_proxy.plan = lambda _: None
    report = await rebuild_from_archive(repository.engine, archive)
    assert report.left == {}
    repository.engine.reader.source.sealed.forget()
    assert sorted(job.id for job in await repository.page_jobs()) == ["j0", "j1", "j3", "j4", "j6", "j7"]
    assert await repository.get_events_since("j7", 0) == before
    assert await repository.verify(deep=True) == []
    found = await check_archive(repository.engine, archive, is_deep=True)
    assert (found.jobs, found.is_whole, found.orphans, found.unknown) == (6, True, [], {})
    await lose_all(repository)


@pytest.mark.slow  # it starts many processes
async def test_programs_are_killed_again_and_again(own: RealServer, seed: int, tmp_path: Path) -> None:
    """Whatever two archivers, a sealer and a deleter were doing, with late output: all is there, or gone."""
    choose, jobs, written = random.Random(seed), [f"j{number}" for number in range(24)], Counter[str]()
    there = ("--url", own.url)
    commands = [
        (*there, "archive", "sweep", "--older-than", "0s", "--archive", tmp_path.as_uri()),
        (*there, "archive", "sweep", "--older-than", "0s"),
        (*there, "seal", "--after", "0s"),
    ]
    async with RedisJobRepository.from_url(own.url) as repository:
        for job_id in jobs:
            await ended_job(repository, job_id, choose.randrange(1, 200))
        lengths = {job_id: len(await repository.get_events_since(job_id, 0)) for job_id in jobs}
        deleted = set[str]()
        ends_at = time.monotonic() + 20
        while time.monotonic() < ends_at:
            doomed = choose.choice([job_id for job_id in jobs if job_id not in deleted])
            deleting = (*there, "jobs", "delete", doomed)
            programs = [
                await asyncio.create_subprocess_exec(str(PROGRAM), *command, stderr=asyncio.subprocess.DEVNULL)
                for command in (*commands, deleting)
            ]
            deleted.add(doomed)
            kills_at = time.monotonic() + 0.8 + 1.5 * choose.random()
            while time.monotonic() < kills_at:
                job_id = choose.choice(jobs)
                try:
                    await repository.add_event(job_id, JobEvent("log", f"late {written[job_id]}\n"))
                    written[job_id] += 1
                    assert len(await repository.get_events_since(job_id, 0)) == lengths[job_id] + written[job_id]
                except JobGoneError:
                    assert job_id in deleted
            for program in programs:
                if program.returncode is None:
                    program.kill()
                await program.wait()
            for sweeper in ("sealer", "archiver"):
                # Or the next ones would wait for its lease to run out.
                await repository.engine.nodes.read("DEL", sweeper_key("{ci:0}", sweeper))
        for job_id in jobs:
            if job_id in deleted:
                await repository.delete_job(job_id)
                assert not list((tmp_path / "ci/0" / job_id).rglob("0.1-*"))
            else:
                events = await repository.get_events_since(job_id, 0)
                assert [event.id for event in events] == list(range(1, lengths[job_id] + written[job_id] + 1))
        assert await repository.verify(deep=True) == []
        engine = repository.engine
        archive = await engine.reader.source.sealed.archived.remember(engine.keys, tmp_path.as_uri())
        assert (await check_archive(engine, archive, is_deep=True, removes=True)).is_whole
        assert await repository.verify(deep=True) == []
