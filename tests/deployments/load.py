"""Writers, followers and controllers on a deployment that a test breaks, and what came of what they were told.

A writer's job has one follower. Controllers take jobs from a queue and write down what they do, as those of
`chaos_controller_program` do, which they are.
"""

import asyncio
import contextlib
import itertools
import random
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from ci_common.models import Job, JobEvent, utc_now
from ci_common.transitions import ENDED
from ci_eventstore.controllers import Controller, ControllerSettings
from ci_eventstore.errors import (
    AcknowledgedEventsLostError,
    OutcomeUnknownError,
    StoreUnavailableError,
)
from ci_eventstore.following.follower import Follower
from ci_eventstore.following.records import Notice, NoticeType
from ci_eventstore.repository import RedisJobRepository
from tests.claim_history import (
    ClaimHistory,
    Story,
    check_claims,
    claims_are_counted,
    jobs_end_once,
    nobody_writes_after_a_release,
    read_journals,
)
from tests.history import Call, History, Outcome, check, lines_of
from tests.integration.store.chaos_controller_program import Journal, Order, Worker
from tests.integration.store.fact_readers import keep_facts, untold
from tests.records import records_of

PATIENCE_SECONDS = 90.0
#: Of jobs in the queue, so many wait or run.
BUSY_JOBS = 6
LEASE_SECONDS = 4.0
#: What holds of a job's stream whatever was lost of it and of others.
ALONE = (claims_are_counted, jobs_end_once, nobody_writes_after_a_release)
Kind = Literal["writer", "follower", "controller"]
#: Who must have a write before it is acknowledged, as settings say it; Sentinels watch a primary and two replicas.
ACKNOWLEDGED_BY: Mapping[str, dict[str, Any]] = MappingProxyType(
    {
        "server": {"durability": "server"},
        "replicated": {"durability": "replicated"},
        "everywhere": {"durability": "replicated", "replicas": 2},
    }
)


class Silence:
    """How long somebody heard nothing of the store."""

    def __init__(self) -> None:
        self.longest = 0.0
        self._heard: dict[str, float] = {}
        self.count = 0

    def heard(self, who: str) -> None:
        """Note that somebody got an answer, an event or a job."""
        now = time.monotonic()
        self.longest = max(self.longest, now - self._heard.get(who, now))
        self._heard[who] = now
        self.count += 1

    def quietest(self, names: Sequence[str], since: float) -> list[str]:
        """Return those who have heard nothing since then."""
        return [name for name in names if self._heard.get(name, 0.0) < since]

    def begin(self) -> None:
        """Forget how long it was up to now."""
        self.longest = 0.0
        self._heard = dict.fromkeys(self._heard, time.monotonic())


@dataclass(eq=False)
class Writer:
    """Writes to a job of its own, and keeps what it was told of each write."""

    job_id: str
    silence: Silence
    history: History = field(default_factory=History)
    #: Calls that were acknowledged before the writer was told of a loss; one list for each time.
    forgiven: list[list[Call]] = field(default_factory=list)

    async def run(self, repository: RedisJobRepository, stop: asyncio.Event) -> None:
        """Write until the end, then complete the job."""
        for number in itertools.count():
            if stop.is_set():
                break
            lines = [f"{self.job_id} {number}.{place}" for place in range(random.choice((1, 1, 1, 3)))]
            with self._told(self.history.begin(self.job_id, lines)):
                await repository.add_events(self.job_id, [JobEvent("log", line) for line in lines])
            await asyncio.sleep(random.uniform(0.01, 0.05))
        while True:
            try:
                return await repository.complete_job(self.job_id, True, utc_now())
            except AcknowledgedEventsLostError:
                self._forgive()
            except (OutcomeUnknownError, StoreUnavailableError):
                await asyncio.sleep(0.05)

    @contextlib.contextmanager
    def _told(self, call: Call) -> Iterator[None]:
        try:
            with call.under_way():
                yield
        except AcknowledgedEventsLostError:
            self._forgive()
            call.outcome = Outcome.REFUSED
        if call.outcome is Outcome.ACKNOWLEDGED:
            self.silence.heard(self.job_id)

    def _forgive(self) -> None:
        calls = [call for call in self.history.calls if call.outcome is Outcome.ACKNOWLEDGED]
        self.forgiven.append(calls)
        for call in calls:
            call.outcome = Outcome.OPEN

    def findings(self, events: Sequence[JobEvent], *, may_lose: bool) -> list[str]:
        """Return what is wrong with the job's events: lost without a word, or there twice, or told for nothing."""
        found = check(self.history, events)
        if self.forgiven and not may_lose:
            found.append(f"{self.job_id}: it was told {len(self.forgiven)} times of a loss")
        there = {line for event in events for line in lines_of(event)}
        uncertain = [call for call in self.history.calls if call.outcome in (Outcome.OPEN, Outcome.UNKNOWN)]
        if self.forgiven and all(line in there for call in uncertain for line in call.lines):
            found.append(f"{self.job_id}: it was told of a loss, and nothing is missing")
        return found


@dataclass(eq=False)
class Reader:
    """Follows a job as a client does: keeps what it was handed, and forgets it at a reset."""

    job_id: str
    silence: Silence
    events: list[JobEvent] = field(default_factory=list)
    incarnation: str | None = None
    resets: int = 0

    async def run(self, repository: RedisJobRepository) -> None:
        """Follow to the job's end, through outages."""
        while True:
            follower = None
            try:
                follower = await repository.follow(self.job_id, len(self.events), incarnation=self.incarnation)
                if await self._read(follower):
                    return
            except StoreUnavailableError:
                await asyncio.sleep(0.05)
            finally:
                if follower is not None:
                    follower.close()

    async def _read(self, follower: Follower) -> bool:
        while True:
            page = await follower.read()
            for record in page.records:
                if isinstance(record, JobEvent):
                    self.events.append(record)
                    if record.id != len(self.events):
                        raise AssertionError(f"{self.job_id}: event {record.id} came as number {len(self.events)}")
                    self.silence.heard(self.job_id)
                elif isinstance(record, Notice):
                    if record.type is not NoticeType.RESET:
                        raise AssertionError(f"{self.job_id}: {record}")
                    self.resets += 1
                    self.events.clear()
            self.incarnation = follower.incarnation
            if page.is_last:
                return True


class NotedJournal(Journal):
    """A journal of which it is noted when something was written."""

    def __init__(self, order: Order, silence: Silence) -> None:
        super().__init__(order)
        self._silence = silence

    def note(self, **what: object) -> None:
        """Write a line; controllers are heard together, since one may have nothing to do."""
        super().note(**what)
        if what.get("outcome", Outcome.ACKNOWLEDGED.value) == Outcome.ACKNOWLEDGED.value:
            self._silence.heard("controllers")


class Load:
    """All who are at work on a store."""

    def __init__(self, repository: RedisJobRepository, folder: Path, writers: int, *, may_lose: bool) -> None:
        self.repository = repository
        self.silence: dict[Kind, Silence] = {"writer": Silence(), "follower": Silence(), "controller": Silence()}
        self.writers = [Writer(f"w{number}", self.silence["writer"]) for number in range(writers)]
        self.readers = [Reader(writer.job_id, self.silence["follower"]) for writer in self.writers]
        self.queued: dict[str, Outcome] = {}
        self._folder = folder
        self._may_lose = may_lose
        self._stop = asyncio.Event()
        self._tasks: list[asyncio.Task[Any]] = []
        self._controllers: list[Controller] = []
        self._running: list[asyncio.Task[Any]] = []

    async def begin(
        self, group: asyncio.TaskGroup, stack: contextlib.AsyncExitStack, reading: RedisJobRepository, controllers: int
    ) -> None:
        """Create the jobs, and let everybody begin."""
        await keep_facts(self.repository)
        for writer in self.writers:
            await self.repository.create_job(Job(id=writer.job_id, status="running"))
        self._tasks += [group.create_task(writer.run(self.repository, self._stop)) for writer in self.writers]
        self._tasks += [group.create_task(reader.run(reading)) for reader in self.readers]
        self._tasks.append(group.create_task(self._submit()))
        settings = ControllerSettings(
            concurrency=2, lease_seconds=LEASE_SECONDS, max_attempts=1000, poll_seconds=0.5, grace_seconds=5.0
        )
        for number in range(controllers):
            name = f"c{number}"
            order = Order("", name, str(self._folder / f"{name}.jsonl"), number, LEASE_SECONDS, 10.0, 0.05)
            controller = await stack.enter_async_context(Controller(reading, name=name, settings=settings))
            self._controllers.append(controller)
            worker = Worker(order, NotedJournal(order, self.silence["controller"]))
            self._running.append(group.create_task(controller.run(worker.work)))

    async def progress(self, seconds: float = PATIENCE_SECONDS) -> None:
        """Wait until every writer was acknowledged a write, every follower got an event and a controller did something.

        TimeoutError names those who don't go on.
        """
        since, names = time.monotonic(), [writer.job_id for writer in self.writers]
        wanted: dict[Kind, list[str]] = {"writer": names, "follower": names, "controller": ["controllers"]}
        if not self._controllers:
            del wanted["controller"]
        while left := {
            kind: quiet for kind, who in wanted.items() if (quiet := self.silence[kind].quietest(who, since))
        }:
            if time.monotonic() - since > seconds:
                raise TimeoutError(f"not within {seconds:g} seconds: {left}")
            await asyncio.sleep(0.02)

    def begin_silence(self) -> None:
        """Measure silences from now on."""
        for silence in self.silence.values():
            silence.begin()

    async def findings(self) -> dict[str, list[str]]:
        """Let everybody end, and return what is wrong for whom; nothing if all is as everybody was told."""
        self._stop.set()
        late = await _end_all(self._tasks)
        await self._until_idle()
        for controller in self._controllers:
            controller.stop()
        late += await _end_all(self._running)
        found: dict[str, list[str]] = {"writer": [], "follower": [], "controller": await self._findings_of_claims()}
        found["store"] = [f"{late} of those at work don't end"] if late else []
        found["store"] += [str(one) for one in await self.repository.verify()] + await untold(self.repository)
        for writer, reader in zip(self.writers, self.readers, strict=True):
            events = await self.repository.get_events_since(writer.job_id, 0)
            found["writer"] += writer.findings(events, may_lose=self._may_lose)
            if reader.events != events:
                found["follower"].append(
                    f"{reader.job_id}: it was handed {len(reader.events)} events, {len(events)} are there"
                )
        return {who: sentences for who, sentences in found.items() if sentences}

    async def _submit(self) -> None:
        for number in itertools.count():
            while len(await self._busy()) >= BUSY_JOBS and not self._stop.is_set():  # noqa: ASYNC110 - controllers end them
                await asyncio.sleep(0.1)
            if self._stop.is_set() or not self._controllers:
                return
            call = Call("", ())
            with call.under_way():
                await self.repository.create_job(
                    Job(id=f"q{number}", status="queued", user_id=("ann", "ann", "bob")[number % 3])
                )
            self.queued[f"q{number}"] = call.outcome
            await asyncio.sleep(0.02)

    async def _busy(self) -> list[str]:
        """Return the jobs of the queue that haven't ended, as far as that is known."""
        with contextlib.suppress(StoreUnavailableError):
            # Of several listings, a job that moves meanwhile might be in none.
            jobs = await self.repository.list_jobs()
            return [job.id for job in jobs if job.id.startswith("q") and job.status not in ENDED]
        return ["the store is away"] * BUSY_JOBS

    async def _until_idle(self) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while (left := await self._busy()) and self._controllers:
            if time.monotonic() > deadline:
                raise TimeoutError(f"these jobs don't end: {left}")
            await asyncio.sleep(0.1)

    async def _findings_of_claims(self) -> list[str]:
        journals = [path.read_text().splitlines(keepends=True) for path in sorted(self._folder.glob("*.jsonl"))]
        histories, found = read_journals(journals), list[str]()
        for job_id, outcome in self.queued.items():
            history = histories.pop(job_id, ClaimHistory())
            job = await self.repository.get_job_summary(job_id)
            if job is None:
                if outcome is Outcome.ACKNOWLEDGED and not self._may_lose:
                    found.append(f"{job_id} is gone: its creation was acknowledged")
                continue
            records = [
                record
                for _, record in await records_of(
                    self.repository.engine.reader.source, self.repository.engine.keys.job(job_id)
                )
            ]
            if job.status not in ENDED:
                found.append(f"{job_id} is {job.status}")
            if self._may_lose:
                found += [f"{job_id}: {one}" for rule in ALONE for one in rule(ClaimHistory(), Story.of(records))]
            else:
                found += [f"{job_id}: {one}" for one in check_claims(history, records)]
        return found + [f"{job_id}: nobody submitted it" for job_id in histories]

    @property
    def losses(self) -> int:
        """How often a writer was told that acknowledged events were lost."""
        return sum(len(writer.forgiven) for writer in self.writers)


async def _end_all(tasks: Sequence[asyncio.Task[Any]]) -> int:
    """Wait for the end of tasks; cancel those that don't come to it, and return how many they are."""
    if not tasks:
        return 0
    _, late = await asyncio.wait(tasks, timeout=PATIENCE_SECONDS)
    for task in late:
        task.cancel()
    return len(late)


@contextlib.asynccontextmanager
async def open_load(
    url: str,
    folder: Path,
    *,
    writers: int = 6,
    controllers: int = 2,
    durability: str = "server",
    partitions: int | None = None,
    prefix: str = "ci",
    may_lose: bool = False,
) -> AsyncIterator[Load]:
    """Let all of them work on a new store; with `may_lose`, a loss that they are told of is no finding.

    `durability` is one of ACKNOWLEDGED_BY.
    """
    settings = {**ACKNOWLEDGED_BY[durability], "partitions": partitions, "prefix": prefix}
    async with (
        RedisJobRepository.from_url(url, **settings) as writing,
        RedisJobRepository.from_url(url, **settings) as reading,
        contextlib.AsyncExitStack() as stack,
        asyncio.TaskGroup() as group,
    ):
        load = Load(writing, folder, writers, may_lose=may_lose)
        await load.begin(group, stack, reading, controllers)
        yield load
