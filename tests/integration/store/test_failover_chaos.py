"""Failovers by hand that lose writes, while many write, follow and run jobs: what was lost is told, nothing is mixed.

The address moves from one server to the other and back; the old primary becomes a replica, and connections to it are
left open. Writes that the new primary doesn't have are acknowledged in between.
"""

import asyncio
import contextlib
import itertools
import logging
import math
import random
import tempfile
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from ci_common.models import Job, JobEvent, utc_now
from ci_common.transitions import ENDED
from ci_eventstore.controllers.claimed_job import ClaimedJob
from ci_eventstore.controllers.controller import Controller, ControllerSettings
from ci_eventstore.errors import AcknowledgedEventsLostError, OutcomeUnknownError, StoreUnavailableError
from ci_eventstore.following.follower import Follower
from ci_eventstore.following.records import Notice, NoticeType
from ci_eventstore.repository import RedisJobRepository
from tests.fault_proxy import FaultProxy
from tests.integration.store.fact_readers import keep_facts, untold
from tests.integration.store.followers import admin_of
from tests.integration.store.replicas import in_step
from tests.servers import RealServer, find_valkey
from tests.waiting import wait_until

logger = logging.getLogger("tests.chaos")

WRITERS = 20
CONTROLLERS = 2
FAILOVERS = 4
#: For how long writes are acknowledged that are lost, and how long things go well in between.
LOST_SECONDS = 0.4
CALM_SECONDS = 2.5
#: Two seconds are meant; a busy machine may take longer.
RESUMED_SECONDS = 10.0

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


@dataclass
class Pair:
    """Two servers, and the address of the one that is the primary."""

    primary: RealServer
    replica: RealServer
    address: FaultProxy
    moved_at: float = 0.0

    async def until_in_step(self) -> None:
        """Wait until the replica has all that the primary has now."""
        async with admin_of(self.replica) as admin:
            while (await admin.info("replication")).get("master_link_status") != "up":  # noqa: ASYNC110 - servers have no event to wait for
                await asyncio.sleep(0.05)
        await in_step(self.primary)

    async def fail_over(self) -> None:
        """Let the replica be the primary, after a while of which it knows nothing."""
        await self.until_in_step()
        async with admin_of(self.replica) as admin:
            await admin.execute_command("REPLICAOF", "NO", "ONE")
        await asyncio.sleep(LOST_SECONDS)
        self.primary, self.replica = self.replica, self.primary
        async with admin_of(self.replica) as admin:
            await admin.replicaof("127.0.0.1", self.primary.port)
        self.address.upstream = self.primary.socket_path
        self.moved_at = time.monotonic()


@dataclass
class Writer:
    """Writes numbered lines to a job of its own."""

    job_id: str
    #: Lines whose calls returned, and how often it was told that some of them were lost.
    acknowledged: list[str] = field(default_factory=list)
    losses: int = 0
    #: When each of these calls returned.
    times: list[float] = field(default_factory=list)

    def resumed_after(self, moved_at: float) -> float | None:
        """Return how long after the address moved the first line was acknowledged."""
        return next((at - moved_at for at in self.times if at >= moved_at), None)

    async def run(self, repository: RedisJobRepository, stop: asyncio.Event) -> None:
        """Write until the end, then end the job; a line that was refused is written again."""
        for number in itertools.count():
            if stop.is_set():
                break
            await self._write(repository, f"{self.job_id}/{number}\n")
            await asyncio.sleep(random.uniform(0.02, 0.06))
        with contextlib.suppress(AcknowledgedEventsLostError):
            await repository.complete_job(self.job_id, True, utc_now())
            return
        self.losses += 1
        await repository.complete_job(self.job_id, True, utc_now())

    async def _write(self, repository: RedisJobRepository, line: str) -> None:
        while True:
            try:
                await repository.add_event(self.job_id, JobEvent("log", line))
            except AcknowledgedEventsLostError:
                self.losses += 1
            except OutcomeUnknownError:
                return
            else:
                self.acknowledged.append(line)
                self.times.append(time.monotonic())
                return


@dataclass
class Reader:
    """Follows a job as a client does: keeps what it was handed, and forgets it at a reset."""

    job_id: str
    events: list[JobEvent] = field(default_factory=list)
    incarnation: str | None = None
    resets: int = 0

    async def run(self, repository: RedisJobRepository) -> None:
        """Follow to the job's end, through outages."""
        while True:
            try:
                follower = await repository.follow(self.job_id, len(self.events), incarnation=self.incarnation)
            except StoreUnavailableError:
                continue
            try:
                if await self._read(follower):
                    return
            except StoreUnavailableError as error:
                logger.warning("%s follows again: %s", self.job_id, error)
            finally:
                follower.close()

    async def read_some(self, repository: RedisJobRepository) -> None:
        """Read a few pages, and go away."""
        follower = await repository.follow(self.job_id, len(self.events), incarnation=self.incarnation)
        try:
            await self._read(follower, pages=5)
        finally:
            follower.close()

    async def _read(self, follower: Follower, pages: float = math.inf) -> bool:
        is_last = False
        while not is_last and pages > 0:
            page, pages = await follower.read(), pages - 1
            for record in page.records:
                if isinstance(record, JobEvent):
                    self.events.append(record)
                    assert record.id == len(self.events), (self.job_id, record)
                elif isinstance(record, Notice):
                    assert record.type is NoticeType.RESET
                    self.resets += 1
                    self.events.clear()
            self.incarnation = follower.incarnation
            is_last = page.is_last
        return is_last


@pytest.fixture
async def pair() -> AsyncIterator[Pair]:
    options = ("repl-diskless-sync-delay 0", "repl-diskless-load swapdb")
    with RealServer(find_valkey(), *options, tcp=True) as one, RealServer(find_valkey(), *options, tcp=True) as other:
        async with admin_of(other) as admin:
            await admin.replicaof("127.0.0.1", one.port)
        async with FaultProxy(one.socket_path) as address:
            pair = Pair(one, other, address)
            await pair.until_in_step()
            yield pair


async def build(job: ClaimedJob) -> bool:
    """Be a job that takes a moment."""
    for number in range(5):
        await job.log.write(f"{number}\n")
        await asyncio.sleep(0.05)
    return True


async def submit(repository: RedisJobRepository, stop: asyncio.Event) -> None:
    """Put jobs into the queue now and then."""
    for number in itertools.count():
        if stop.is_set():
            return
        with contextlib.suppress(OutcomeUnknownError):
            await repository.create_job(Job(id=f"queued{number}", status="queued"))
        await asyncio.sleep(0.3)


async def until_all_go_on(writers: list[Writer], since: float) -> float:
    """Wait until every writer has written at the new address; return how long that took the last one."""
    await wait_until(lambda: all(writer.times and writer.times[-1] >= since for writer in writers), 60)
    return max(writer.resumed_after(since) or 0.0 for writer in writers)


@pytest.fixture(autouse=True)
def _rescue_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Logs of jobs that were lost altogether are kept where they are removed with the test."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


async def test_failovers_that_lose_writes(pair: Pair) -> None:
    """Writes go on; each writer and each reader is told once of each loss; nothing of two histories is mixed."""
    url, stop = pair.address.url, asyncio.Event()
    async with (
        RedisJobRepository.from_url(url) as writing,
        RedisJobRepository.from_url(url) as reading,
        RedisJobRepository.from_url(url) as working,
    ):
        await keep_facts(writing)
        writers = [Writer(f"j{number}") for number in range(WRITERS)]
        readers = [Reader(writer.job_id) for writer in writers]
        for writer in writers:
            await writing.create_job(Job(id=writer.job_id, status="running"))
        settings = ControllerSettings(concurrency=2, lease_seconds=3, poll_seconds=0.5)
        async with contextlib.AsyncExitStack() as stack, asyncio.TaskGroup() as group:
            controllers = [
                await stack.enter_async_context(Controller(working, settings=settings)) for _ in range(CONTROLLERS)
            ]
            running = [group.create_task(controller.run(build)) for controller in controllers]
            tasks = [group.create_task(writer.run(writing, stop)) for writer in writers]
            following = [group.create_task(reader.run(reading)) for reader in readers]
            submitting = group.create_task(submit(working, stop))
            late, expected_losses = await fail_over_often(pair, writing, writers, readers)
            stop.set()
            await asyncio.wait([*tasks, *following, submitting])
            await until_idle(working)
            for controller in controllers:
                controller.stop()
            await asyncio.wait(running)
        async with RedisJobRepository.from_url(pair.primary.url) as checking:
            await check(checking, writers, readers, expected_losses)
            told = [reader.resets for reader in late]
            for reader in late:
                await reader.run(checking)
                assert reader.events == await checking.get_events_since(reader.job_id, 0)
            # However many losses there were while they were away; none for those that went after the last one.
            later = [reader.resets - before for reader, before in zip(late, told, strict=True)]
            assert 0 < sum(later) <= len(late)
            assert max(later) == 1
            assert await checking.verify() == []
            assert await untold(checking) == []


async def fail_over_often(
    pair: Pair, repository: RedisJobRepository, writers: list[Writer], readers: list[Reader]
) -> tuple[list[Reader], dict[str, int]]:
    """Move the address to and fro; return readers that went away meanwhile, and how many losses each job had."""
    late, losses = list[Reader](), dict.fromkeys((writer.job_id for writer in writers), 0)
    for _ in range(FAILOVERS):
        await asyncio.sleep(CALM_SECONDS)
        moving = asyncio.create_task(pair.fail_over())
        await asyncio.sleep(LOST_SECONDS)
        gone = [Reader(writer.job_id) for writer in random.sample(writers, 3)]
        for reader in gone:
            await reader.read_some(repository)
        late += gone
        await moving
        seconds = await until_all_go_on(writers, pair.moved_at)
        logger.warning("all writers went on %.2f s after the move", seconds)
        assert seconds < RESUMED_SECONDS
        async with RedisJobRepository.from_url(pair.primary.url) as checking:
            for writer in writers:
                kept = {event.data for event in await checking.get_events_since(writer.job_id, 0)}
                losses[writer.job_id] += bool(set(writer.acknowledged) - kept)
                writer.acknowledged = [line for line in writer.acknowledged if line in kept]
    assert sum(losses.values()) > 0
    await asyncio.sleep(CALM_SECONDS)
    return late, losses


async def queued_jobs(repository: RedisJobRepository) -> list[Job]:
    return [job for job in await repository.list_jobs() if job.id.startswith("queued")]


async def until_idle(repository: RedisJobRepository) -> None:
    """Wait until all jobs of the queue have ended."""
    async with asyncio.timeout(60):
        while any(job.status not in ENDED for job in await queued_jobs(repository)):  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.2)


async def check(
    repository: RedisJobRepository, writers: list[Writer], readers: list[Reader], losses: dict[str, int]
) -> None:
    """Compare what everybody was told with what there is."""
    for writer, reader in zip(writers, readers, strict=True):
        events = await repository.get_events_since(writer.job_id, 0)
        lines = [event.data for event in events if event.type == "log"]
        assert len(set(lines)) == len(lines), writer.job_id
        assert set(writer.acknowledged) <= set(lines), writer.job_id
        assert reader.events == events, writer.job_id
        assert (writer.job_id, writer.losses) == (writer.job_id, losses[writer.job_id])
        assert reader.resets <= FAILOVERS, writer.job_id
    logger.warning("losses %s, resets %s", [writer.losses for writer in writers], [reader.resets for reader in readers])
