"""A server that has forgotten acknowledged writes tells everyone who goes on, once, whatever they go on with."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ci_common.errors import JobNotFoundError
from ci_common.models import Job, JobEvent, utc_now
from ci_eventstore.connection.nodes import Nodes
from ci_eventstore.controllers.claimed_job import ClaimedJob
from ci_eventstore.errors import AcknowledgedEventsLostError
from ci_eventstore.repository import RedisJobRepository
from ci_eventstore.writer.chunk_sender import LOST_LINE
from ci_eventstore.writer.log_writer import LogWriter, WriterSettings
from tests import claims
from tests.examples import examples
from tests.forgetting import forget, remember
from tests.servers import RealServer

#: Nothing is sent by time alone.
PATIENT = WriterSettings(pause_seconds=3600)

Write = Callable[[RedisJobRepository], Awaitable[None]]


async def complete(repository: RedisJobRepository) -> None:
    await repository.complete_job("j", True, utc_now())


async def cancel(repository: RedisJobRepository) -> None:
    await repository.cancel_job("j", "enough")


async def fail(repository: RedisJobRepository) -> None:
    await repository.update_job_status("j", "failed")


async def give_back(repository: RedisJobRepository) -> None:
    await repository.update_job_status("j", "queued")


async def add_late_line(repository: RedisJobRepository) -> None:
    await repository.add_event("j", JobEvent("log", "goes on\n"))


async def add_completion(repository: RedisJobRepository) -> None:
    await repository.add_events("j", [JobEvent("log", "end\n"), JobEvent("complete", success=True)])


WRITES = [complete, cancel, fail, give_back, add_late_line, add_completion]


async def texts(repository: RedisJobRepository) -> list[str]:
    return [event.data or "" for event in await repository.get_events_since("j", 0) if event.type == "log"]


async def add(repository: RedisJobRepository, text: str) -> None:
    await repository.add_event("j", JobEvent("log", text))


async def start(repository: RedisJobRepository) -> None:
    await repository.create_job(Job(id="j", status="running"))


@pytest.mark.parametrize("write", WRITES, ids=lambda write: str(write.__name__))
async def test_whatever_comes_after_lost_events_tells(
    repository: RedisJobRepository, server: Nodes, write: Write
) -> None:
    """Once; then it has its effect, and nothing is told any more."""
    await start(repository)
    await add(repository, "kept\n")
    before = await remember(server)
    await add(repository, "lost\n")
    await forget(server, before)
    with pytest.raises(AcknowledgedEventsLostError):
        await write(repository)
    assert await texts(repository) == ["kept\n"]
    await write(repository)
    await add(repository, "more\n")
    assert (await texts(repository))[-1] == "more\n"


@pytest.mark.parametrize("write", WRITES, ids=lambda write: str(write.__name__))
async def test_whatever_comes_after_a_lost_status_tells(
    repository: RedisJobRepository, server: Nodes, write: Write
) -> None:
    """A status change is a write like any other, and so is a refused one no obstacle."""
    await start(repository)
    await add(repository, "kept\n")
    before = await remember(server)
    await repository.update_job_status("j", "running", container_id="box")
    with pytest.raises(JobNotFoundError):
        await repository.cancel_job("j", user_id="somebody else")
    await forget(server, before)
    with pytest.raises(AcknowledgedEventsLostError):
        await write(repository)
    await write(repository)


@pytest.mark.parametrize("write", WRITES, ids=lambda write: str(write.__name__))
async def test_whatever_comes_after_a_lost_log_tells(
    repository: RedisJobRepository, server: Nodes, write: Write
) -> None:
    """What a `LogWriter` of this process has stored comes before what the process does next."""
    await start(repository)
    before = await remember(server)
    async with repository.log_writer("j") as writer:
        await writer.write("lost\n")
    await forget(server, before)
    with pytest.raises(AcknowledgedEventsLostError):
        await write(repository)
    await write(repository)


async def test_nothing_is_told_where_nothing_of_ours_is_lost(
    repository: RedisJobRepository, server: Nodes, valkey: RealServer
) -> None:
    """What another process has written and lost is that process's affair."""
    await start(repository)
    await add(repository, "kept\n")
    before = await remember(server)
    async with RedisJobRepository.from_url(valkey.url) as other:
        await add(other, "lost\n")
        await forget(server, before)
        await add(repository, "goes on\n")
        with pytest.raises(AcknowledgedEventsLostError):
            await add(other, "told\n")
    assert await texts(repository) == ["kept\n", "goes on\n"]


async def test_a_lost_job_is_missing_and_may_be_created_again(repository: RedisJobRepository, server: Nodes) -> None:
    """That says it all; a job that its process creates again comes after nothing."""
    before = await remember(server)
    await repository.create_job(Job(id="j", status="queued"))
    await forget(server, before)
    with pytest.raises(JobNotFoundError):
        await add(repository, "lost\n")
    await start(repository)
    await add(repository, "lost\n")
    await forget(server, before)
    await start(repository)
    await add(repository, "first\n")
    assert await texts(repository) == ["first\n"]


async def test_a_job_that_another_process_made_again_tells(
    repository: RedisJobRepository, server: Nodes, valkey: RealServer
) -> None:
    """It isn't the job that was written to."""
    before = await remember(server)
    await start(repository)
    await add(repository, "lost\n")
    await forget(server, before)
    async with RedisJobRepository.from_url(valkey.url) as other:
        await start(other)
    with pytest.raises(AcknowledgedEventsLostError):
        await complete(repository)
    await complete(repository)


async def take(repository: RedisJobRepository) -> ClaimedJob:
    """Submit a job and claim it."""
    await repository.create_job(Job(id="j", status="queued"))
    [claimed] = await claims.claim(repository, "default", "c1", 1, 30.0)
    return ClaimedJob(repository, claimed)


ENDS: list[tuple[Callable[[ClaimedJob], Awaitable[None]], str, bool | None]] = [
    (lambda job: job.complete(success=True), "completed", True),
    (lambda job: job.cancel(), "cancelled", False),
    (lambda job: job.release(), "queued", None),
    (lambda job: job.release(patiently=False), "queued", None),
]


@pytest.mark.parametrize(("end", "status", "success"), ENDS)
async def test_the_end_of_a_claimed_job_says_what_was_lost(
    repository: RedisJobRepository,
    server: Nodes,
    end: Callable[[ClaimedJob], Awaitable[None]],
    status: str,
    success: bool | None,
) -> None:
    """It doesn't end as if nothing had been: its log has a line that says so, then it ends as it would have."""
    async with await take(repository) as job:
        before = await remember(server)
        await job.write("lost\n")
        await job.log.flush()
        await forget(server, before)
        await end(job)
    assert (await texts(repository))[0] == LOST_LINE
    ended = await repository.get_job("j")
    assert ended is not None
    assert (ended.status, ended.success) == (status, success)


async def test_a_completion_goes_in_one_step_with_others_after_its_log(
    repository: RedisJobRepository, server: Nodes
) -> None:
    """Where nothing is lost, saying after what it comes costs a completion nothing."""
    async with await take(repository) as job:
        await job.write("stored\n")
        await job.complete(success=True)
    [answer] = [await server.read("GET", key) async for page in server.scan("{ci:0}:ends:*") for key in page]
    assert answer == b"1 y"
    assert await texts(repository) == ["stored\n"]
    assert repository.engine.jobs.flusher.ledger.last("j", 0.0) == []


@dataclass
class Told:
    """What one writer has to be told, and may be told: that its own writes, or others' before it, were lost."""

    has_to: bool = False
    may: bool = False

    def check(self, count: int) -> None:
        """Compare with how often it was told, after which nothing is left to be told."""
        assert count <= 1
        assert count == 1 or not self.has_to
        assert count == 0 or self.has_to or self.may
        self.has_to = self.may = False


@dataclass
class Writers:
    """A process that writes to job j in three ways, to a server that forgets, and what each of them has to be told."""

    repository: RedisJobRepository
    server: Nodes
    logs: dict[str, LogWriter] = field(default_factory=dict)
    told: dict[str, Told] = field(default_factory=lambda: {"lane": Told(), "one": Told(), "two": Told()})
    #: Who has written since the server last remembered, and whether that was acknowledged.
    since: list[tuple[str, bool]] = field(default_factory=list)
    count: int = 0

    async def write(self, who: str) -> None:
        """Let one of them go on."""
        self.count += 1
        text = f"{who} {self.count}\n"
        if who == "lane":
            told = await self._insist(lambda: add(self.repository, text))
        else:
            await self.logs[who].write(text)
            await self.logs[who].flush()
            [entry] = [data for data in await texts(self.repository) if data.endswith(text)]
            told = entry.count(LOST_LINE)
        self.told[who].check(told)
        self.since.append((who, True))

    async def change(self) -> None:
        """Change the job otherwise."""
        self.count += 1
        box = f"box-{self.count}"
        self.told["lane"].check(
            await self._insist(lambda: self.repository.update_job_status("j", "running", container_id=box))
        )
        self.since.append(("lane", True))

    async def be_refused(self) -> None:
        """Ask for what can't be done."""
        with pytest.raises(JobNotFoundError):
            await self.repository.cancel_job("j", user_id="somebody else")

    async def abandon(self) -> None:
        """Begin to change the job, and don't wait for it."""
        self.count += 1
        writing = asyncio.create_task(
            self.repository.update_job_status("j", "running", container_id=f"box-{self.count}")
        )
        for _ in range(self.count % 4):
            await asyncio.sleep(0)
        writing.cancel()
        await asyncio.wait({writing})
        # What was sent has arrived before any later command is answered.
        await self.server.read("PING")
        self.since.append(("lane", False))

    async def reopen(self, who: str) -> None:
        """End a log writer, which tells what was lost, and begin another one."""
        before = (await texts(self.repository)).count(LOST_LINE)
        await self.logs.pop(who).close()
        told = (await texts(self.repository)).count(LOST_LINE) - before
        self.since += [(who, True)] * told
        self.told[who].check(told)
        # What it has written can be lost, but not told to it any more.
        self.since = [("nobody" if writer == who else writer, is_sure) for writer, is_sure in self.since]
        await self.open(who)

    async def open(self, who: str) -> None:
        """Begin to write a log."""
        self.told[who].may = any(told.has_to or told.may for told in self.told.values())
        self.logs[who] = self.repository.log_writer("j", settings=PATIENT)
        self.logs[who].open()

    def lose(self) -> None:
        """Note who has lost what."""
        for who, told in self.told.items():
            told.has_to = told.has_to or (who, True) in self.since
            told.may = told.may or bool(self.since)
        self.since.clear()

    async def _insist(self, write: Callable[[], Awaitable[None]]) -> int:
        for told in range(10):
            try:
                await write()
            except AcknowledgedEventsLostError:
                continue
            return told
        raise AssertionError("it is told again and again")


OFTEN = ["lane", "one", "two", "remember", "forget"]
steps = st.sampled_from([*OFTEN, *OFTEN, "change", "refused", "abandon", "reopen", "together"])


@settings(max_examples=examples(60), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(plan=st.lists(steps, max_size=20))
async def test_each_loss_is_told_once_to_each_writer(
    repository: RedisJobRepository, server: Nodes, plan: list[str]
) -> None:
    """Whoever lost something hears of it at its next write, once; nobody hears of a loss where there was none."""
    await server.read("FLUSHALL")
    await start(repository)
    writers, snapshot = Writers(repository, server), await remember(server)
    for who in ("one", "two"):
        await writers.open(who)
    for step in plan:
        match step:
            case "change":
                await writers.change()
            case "refused":
                await writers.be_refused()
            case "abandon":
                await writers.abandon()
            case "reopen":
                await writers.reopen("one")
            case "together":
                await asyncio.gather(*(writers.write(who) for who in ("lane", "one", "two")))
            case "remember":
                snapshot = await remember(server)
                writers.since.clear()
            case "forget":
                await forget(server, snapshot)
                writers.lose()
            case who:
                await writers.write(who)
    for who in ("one", "two"):
        await writers.reopen(who)
        await writers.logs[who].close()
    writers.told["lane"].check(await writers._insist(lambda: complete(repository)))
    assert await repository.verify() == []
