"""A restore of an older snapshot, under load: all that go on are told once, and those that come later, too."""

import asyncio
import shutil
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from ci_common.models import Job, JobEvent, utc_now
from ci_eventstore.controllers import ClaimedJob, Controller, ControllerSettings
from ci_eventstore.errors import AcknowledgedEventsLostError
from ci_eventstore.following.follower import Follower
from ci_eventstore.following.records import Notice
from ci_eventstore.repository import RedisJobRepository
from tests.fault_proxy import FaultProxy
from tests.history import History, Outcome, check
from tests.integration.store.followers import admin_of
from tests.servers import RealServer, find_valkey
from tests.waiting import wait_until

WRITERS = 20
#: How long the store is written to before the snapshot, after it, and after the restore.
SECONDS = 1.0


@dataclass
class Writer:
    """Writes lines to a job of its own, and notes what became of them."""

    repository: RedisJobRepository
    job_id: str
    history: History = field(default_factory=History)
    told: int = 0

    async def write(self) -> None:
        """Write the next line; if it is told of a loss, find out which lines are gone."""
        line = f"{self.job_id}: {len(self.history.calls)}"
        call = self.history.begin("it", [line])
        try:
            with call.under_way():
                await self.repository.add_event(self.job_id, JobEvent("log", f"{line}\n"))
        except AcknowledgedEventsLostError:
            call.outcome = Outcome.REFUSED
            self.told += 1
            there = {event.data for event in await self.repository.get_events_since(self.job_id, 0)}
            for earlier in self.history.calls:
                if earlier.outcome is Outcome.ACKNOWLEDGED and f"{earlier.lines[0]}\n" not in there:
                    earlier.outcome = Outcome.ABSENT

    @property
    def stored(self) -> list[str]:
        """The lines that have to be there."""
        return [f"{call.lines[0]}\n" for call in self.history.calls if call.outcome is Outcome.ACKNOWLEDGED]


@dataclass
class Reader:
    """Follows a job to its end, and begins again when it is told to."""

    follower: Follower
    lines: list[str] = field(default_factory=list)
    #: What it had been handed whenever it was told to begin again.
    dropped: list[list[str]] = field(default_factory=list)
    position: int = 0

    async def read(self) -> None:
        """Follow to the end."""
        is_last = False
        while not is_last:
            page = await self.follower.read()
            is_last = page.is_last
            for record in page.records:
                if isinstance(record, Notice):
                    self.dropped.append(self.lines)
                    self.lines, self.position = [], 0
                elif isinstance(record, JobEvent):
                    self.position = record.id or 0
                    self.lines += [record.data or ""] if record.type == "log" else []


@pytest.fixture
def server() -> Iterator[RealServer]:
    """A server whose data is what it has last saved."""
    with RealServer(find_valkey(), "appendonly no") as started:
        yield started


async def save(server: RealServer, snapshot: Path) -> None:
    """Take a snapshot, as a backup would."""
    async with admin_of(server) as admin:
        await admin.save()
    shutil.copy(server.folder / "dump.rdb", snapshot)


async def restore(server: RealServer, proxy: FaultProxy, snapshot: Path) -> None:
    """Do as docs/operations.md says: nobody comes back before the store has another incarnation."""
    proxy.upstream = server.folder / "nowhere"
    proxy.cut_all()
    await asyncio.to_thread(server.kill)
    shutil.copy(snapshot, server.folder / "dump.rdb")
    await asyncio.to_thread(server.start)
    async with RedisJobRepository.from_url(server.url) as operator:
        await operator.restored()
    proxy.upstream = server.socket_path


@dataclass
class Queue:
    """Jobs that are submitted for as long as the test goes on, and what controllers did with them."""

    repository: RedisJobRepository
    submitted: int = 0
    runs: Counter[str] = field(default_factory=Counter)

    async def submit(self) -> None:
        """Put one more job into the queue."""
        await self.repository.create_job(Job(id=f"queued-{self.submitted}", status="queued"))
        self.submitted += 1

    async def run(self, claimed: ClaimedJob) -> None:
        """Handle a job."""
        self.runs[claimed.job.id] += 1
        await claimed.write(f"attempt {claimed.attempts}\n")
        await asyncio.sleep(0.1)


async def until(is_over: asyncio.Event, step: Callable[[], Awaitable[None]], pause: float) -> None:
    """Do something again and again."""
    while not is_over.is_set():
        await step()
        await asyncio.sleep(pause)


@pytest.mark.slow
async def test_a_restore_under_load(server: RealServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """20 writers, as many readers and two controllers go on with the older data; nothing old and new is mixed."""
    # Where controllers keep what they can't store.
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    async with AsyncExitStack() as stack:
        proxy = await stack.enter_async_context(FaultProxy(server.socket_path))
        writing, reading, returning, *controlling = [
            await stack.enter_async_context(RedisJobRepository.from_url(proxy.url)) for _ in range(5)
        ]
        writers = [Writer(writing, f"j{number}") for number in range(WRITERS)]
        returned = [Writer(returning, f"late{number}") for number in range(WRITERS)]
        for writer in [*writers, *returned]:
            await writing.create_job(Job(id=writer.job_id, status="running"))
        readers = [Reader(await reading.follow(writer.job_id)) for writer in writers]
        queue, is_over = Queue(writing), asyncio.Event()
        settings = ControllerSettings(lease_seconds=2, concurrency=4)
        controllers = [
            await stack.enter_async_context(Controller(repository, settings=settings)) for repository in controlling
        ]
        async with asyncio.TaskGroup() as group:
            for reader in readers:
                group.create_task(reader.read())
            for controller in controllers:
                group.create_task(controller.run(queue.run))
            work = [group.create_task(until(is_over, writer.write, 0.01)) for writer in writers]
            work.append(group.create_task(until(is_over, queue.submit, 0.05)))
            await asyncio.sleep(SECONDS)
            kept = [len(writer.stored) for writer in writers]
            await save(server, tmp_path / "snapshot")
            for writer in returned:
                await writer.write()
            await asyncio.sleep(SECONDS)
            places = [(reader.follower.incarnation, reader.position) for reader in readers]
            await restore(server, proxy, tmp_path / "snapshot")
            await wait_until(lambda: all(writer.told for writer in writers))
            await asyncio.sleep(SECONDS)
            is_over.set()
            await asyncio.gather(*work)
            await end_all(writing, controllers)
        for writer, reader, count, place in zip(writers, readers, kept, places, strict=True):
            await check_job(reading, writer, reader, count)
            await come_back(reading, writer, place)
        for writer in returned:
            await come_back_to_write(writer)
        assert await writing.verify() == []


async def end_all(repository: RedisJobRepository, controllers: Sequence[Controller]) -> None:
    """End the writers' jobs, and wait until the queue's have been run to their ends; stop the controllers."""
    for number in range(WRITERS):
        await repository.complete_job(f"j{number}", True, utc_now())
    async with asyncio.timeout(60):
        while any(job.id.startswith("queued") and not job.success for job in await repository.page_jobs(limit=1000)):  # noqa: ASYNC110 - the store has no event to wait for
            await asyncio.sleep(0.1)
    for controller in controllers:
        controller.stop()


async def check_job(repository: RedisJobRepository, writer: Writer, reader: Reader, kept: int) -> None:
    """Writer and reader were told once, what the snapshot had is there, and the reader's log is the job's."""
    events = await repository.get_events_since(writer.job_id, 0)
    assert check(writer.history, events) == []
    assert writer.told == 1
    lost = [call for call in writer.history.calls if call.outcome is Outcome.ABSENT]
    assert lost
    assert len(writer.stored) >= kept
    assert writer.history.calls.index(lost[0]) >= kept
    assert reader.lines == writer.stored
    [dropped] = reader.dropped
    assert dropped == [f"{writer.job_id}: {number}\n" for number in range(len(dropped))]
    reader.follower.close()


async def come_back(repository: RedisJobRepository, writer: Writer, place: tuple[str, int]) -> None:
    """A reader that left before the restore begins again, once, wherever the log ends by now."""
    incarnation, position = place
    late = Reader(await repository.follow(writer.job_id, position, incarnation=incarnation))
    await late.read()
    assert (len(late.dropped), late.lines) == (1, writer.stored)
    again = Reader(await repository.follow(writer.job_id, 5, incarnation=late.follower.incarnation))
    await again.read()
    assert (again.dropped, again.lines) == ([], writer.stored[5:])
    for reader in (late, again):
        reader.follower.close()


async def come_back_to_write(writer: Writer) -> None:
    """A writer that has done nothing since is told by its next write, once."""
    for _ in range(2):
        await writer.write()
    assert writer.told == 1
    events = await writer.repository.get_events_since(writer.job_id, 0)
    assert check(writer.history, events) == []
    assert [call.outcome for call in writer.history.calls] == [Outcome.ABSENT, Outcome.REFUSED, Outcome.ACKNOWLEDGED]
