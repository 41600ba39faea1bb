"""A crowd of writers on a few jobs, who write down what they do while the test breaks the network and the server."""

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from enum import Enum

from ci_common.models import EventType, Job, JobEvent, JobStatus, utc_now
from ci_eventstore.errors import OutcomeUnknownError, StoreUnavailableError
from ci_eventstore.repository import RedisJobRepository
from ci_eventstore.writer.log_writer import WriterSettings
from tests.history import Call, History, Outcome, check, lines_of
from tests.integration.store.fact_readers import keep_facts, untold
from tests.waiting import wait_until

WRITERS = 50
JOBS = 4


class Kind(Enum):
    """How a writer writes."""

    SINGLE = "one event after the other"
    SEVERAL = "several events in a call"
    AT_ONCE = "several calls, without waiting for one before the next"
    #: It goes away while its call is on its way, as a caller with a timeout does.
    HASTY = "several events, but not for long"
    LOG = "a log writer for some lines, then the next"


KINDS = (*[Kind.SINGLE] * 5, Kind.SEVERAL, Kind.SEVERAL, Kind.AT_ONCE, Kind.HASTY, Kind.LOG)


@dataclass(eq=False, slots=True)
class WatchedJob:
    """A job, what was written to it, and what was read of it up to now."""

    id: str
    history: History = field(default_factory=History)
    events: list[JobEvent] = field(default_factory=list)
    lines: set[str] = field(default_factory=set)
    reading: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def read_on(self, repository: RedisJobRepository) -> None:
        """Read what came since the last time, as soon as the server is there."""
        async with self.reading:
            while True:
                with contextlib.suppress(StoreUnavailableError):
                    new = await repository.get_events_since(self.id, len(self.events))
                    break
            self.events += new
            self.lines.update(line for event in new for line in lines_of(event))


class Crowd:
    """Writers of several repositories."""

    def __init__(
        self,
        repositories: Sequence[RedisJobRepository],
        observer: RedisJobRepository,
        group: asyncio.TaskGroup,
        seed: int,
    ) -> None:
        #: How many calls ended in which way.
        self.ended = Counter[Outcome]()
        #: Whether a read after an error says for good whether the call took effect.
        self.settles = True
        self._repositories = repositories
        self._observer = observer
        self._jobs = [WatchedJob(f"job-{number}") for number in range(JOBS)]
        self._seed = seed
        self._is_over = False
        self._rounds = 0
        self._group = group
        self._tasks: list[asyncio.Task[None]] = []

    async def begin(self) -> None:
        """Create the jobs, and let the writers begin."""
        await keep_facts(self._observer)
        for job in self._jobs:
            await self._observer.create_job(Job(id=job.id, status="running"))
        self._tasks += [self._group.create_task(self._write(number)) for number in range(WRITERS)]

    async def stop(self) -> None:
        """Let every writer end the call that it is at, and settle what can be settled."""
        self._is_over = True
        while pending := [task for task in self._tasks if not task.done()]:
            await asyncio.wait(pending)

    async def progress(self, calls: int = 500, outcome: Outcome = Outcome.ACKNOWLEDGED) -> None:
        """Wait until so many more calls have ended in a way."""
        wanted = self.ended[outcome] + calls
        await wait_until(lambda: self.ended[outcome] >= wanted)

    async def write_everywhere(self) -> None:
        """Let every repository write a line to every job, again until it is stored."""
        for number, repository in enumerate(self._repositories):
            for job in self._jobs:
                outcome = Outcome.OPEN
                while outcome is not Outcome.ACKNOWLEDGED:
                    self._rounds += 1
                    call = job.history.begin(f"repository-{number}", [f"repository-{number} line {self._rounds}"])
                    with call.under_way():
                        await repository.add_event(job.id, JobEvent("log", call.lines[0]))
                    outcome = call.outcome

    async def complete_jobs(self) -> None:
        """Let every repository complete every job at the same time, until it is told that they are."""
        now = utc_now()

        async def complete(repository: RedisJobRepository, job: WatchedJob) -> None:
            while True:
                with contextlib.suppress(OutcomeUnknownError, StoreUnavailableError):
                    return await repository.complete_job(job.id, True, now)

        async with asyncio.TaskGroup() as group:
            for repository in self._repositories:
                for job in self._jobs:
                    group.create_task(complete(repository, job))

    async def findings(self) -> list[str]:
        """Return what is wrong with the jobs, now that everybody has stopped."""
        found = [str(difference) for difference in await self._observer.verify()]
        found += await untold(self._observer)
        for job in self._jobs:
            events = await self._observer.get_events_since(job.id, 0)
            found += [f"{job.id}: {finding}" for finding in check(job.history, events)]
            if job.events != events[: len(job.events)]:
                found.append(f"{job.id}: its first {len(job.events)} events aren't those that were read before")
            summary = await self._observer.get_job_summary(job.id)
            ends = sum(event.type == EventType.COMPLETE for event in events)
            if summary is None or (summary.status, summary.success, ends) != (JobStatus.COMPLETED, True, 1):
                found.append(f"{job.id}: it should be completed once, and is {summary} with {ends} completions")
        return found

    async def _write(self, number: int) -> None:
        """Be one of the writers, until it is over."""
        chance = random.Random(f"{self._seed} {number}")
        job, repository = chance.choice(self._jobs), self._repositories[number % len(self._repositories)]
        kind, name, sent = KINDS[number % len(KINDS)], f"writer-{number}", 0
        while not self._is_over:
            count = 1 if kind is Kind.SINGLE else chance.randint(2, 6)
            lines = [f"{name} line {sent + place}" for place in range(count)]
            sent += count
            seconds = chance.uniform(0, 0.05) if kind is Kind.HASTY else None
            async with asyncio.TaskGroup() as group:
                for part in [[line] for line in lines] if kind is Kind.AT_ONCE else [lines]:
                    # A log goes out piece by piece.
                    call = job.history.begin(name, part, is_one_step=kind is not Kind.LOG)
                    group.create_task(self._make(call, job, _send(repository, job.id, part, kind), seconds))

    async def _make(
        self, call: Call, job: WatchedJob, sending: Coroutine[None, None, None], seconds: float | None
    ) -> None:
        with contextlib.suppress(TimeoutError), call.under_way():
            async with asyncio.timeout(seconds):
                await sending
        self.ended[call.outcome] += 1
        if call.outcome is Outcome.UNKNOWN and self.settles:
            # Beside the writing: the server may be away.
            self._tasks.append(self._group.create_task(self._settle(job, call)))

    async def _settle(self, job: WatchedJob, call: Call) -> None:
        await job.read_on(self._observer)
        call.settle(job.lines)
        self.ended[call.outcome] += 1


async def _send(repository: RedisJobRepository, job_id: str, lines: Sequence[str], kind: Kind) -> None:
    if kind is Kind.LOG:
        async with repository.log_writer(job_id, settings=WriterSettings(pause_seconds=0.01)) as writer:
            for line in lines:
                await writer.write(f"{line}\n")
                await asyncio.sleep(0)
    elif len(lines) == 1:
        await repository.add_event(job_id, JobEvent("log", lines[0]))
    else:
        await repository.add_events(job_id, [JobEvent("log", line) for line in lines])


@asynccontextmanager
async def open_crowd(urls: Sequence[str], observer_url: str, seed: int) -> AsyncIterator[Crowd]:
    """Let a crowd write through repositories at several addresses; an error of a writer ends the body."""
    async with AsyncExitStack() as stack:
        opened = [await stack.enter_async_context(RedisJobRepository.from_url(url)) for url in (observer_url, *urls)]
        async with asyncio.TaskGroup() as group:
            crowd = Crowd(opened[1:], opened[0], group, seed)
            await crowd.begin()
            yield crowd
            await crowd.stop()
