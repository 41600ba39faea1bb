"""`Controller`: claims jobs and has them run."""

import asyncio
import logging
import os
import platform
import random
import secrets
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from ci_common.errors import RepositoryError
from ci_common.validation import check_id
from ci_eventstore.claims.claim import Claim, Claimed
from ci_eventstore.claims.claimer import Claimer, Heard
from ci_eventstore.claims.lease_keeper import LeaseKeeper
from ci_eventstore.controllers.claimed_job import ClaimedJob
from ci_eventstore.errors import ConfigurationError
from ci_eventstore.repository import RedisJobRepository

logger = logging.getLogger("ci_eventstore.controllers")

#: For so many times of the poll an offer stands: a controller that hangs is given no job after that.
OFFER_POLLS = 2.0

#: A controller that has many jobs claims them in so many parts, none smaller than this: while some run, others come.
WAVES = 4
SMALL_WAVE = 16
#: After so many turns of the event loop a task's request has left.
TURNS_TO_LEAVE = 3

#: Runs a claimed job. False: it did not succeed; anything else: it did, unless the handler has ended the job itself.
Handler = Callable[[ClaimedJob], Awaitable[bool | None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class ControllerSettings:
    """How a controller works; ConfigurationError for what can't be."""

    #: How many jobs it has at a time.
    concurrency: int = 1
    #: How long a job stays its own without a sign of life; it gives one three times as often.
    lease_seconds: float = 30.0
    #: A job that was claimed so often already fails instead of being run once more.
    max_attempts: int = 5
    #: How long running jobs may go on when the controller is stopped, before they are given back.
    grace_seconds: float = 30.0
    #: How often it looks for jobs that it wasn't told of, at most; while it has nothing to do, it is given new ones.
    poll_seconds: float = 2.0

    def __post_init__(self) -> None:
        """Refuse what can't be."""
        if self.concurrency < 1 or self.max_attempts < 1:
            raise ConfigurationError("concurrency and max_attempts must be 1 or more")
        if self.lease_seconds < 1:
            raise ConfigurationError(f"lease_seconds={self.lease_seconds} must be 1 or more")


class Controller:
    """Takes jobs out of queues and has them run, as many at a time as it may.

        async with Controller(repository, queues=["default"]) as controller:
            await controller.run(build)

    `run` goes on until `stop()` was called. Each job is the controller's as long as it renews its lease; a controller
    that dies, hangs or is cut off loses its jobs to others, and can't write to them any more.
    """

    def __init__(
        self,
        repository: RedisJobRepository,
        *,
        queues: Sequence[str] = ("default",),
        name: str | None = None,
        secrets: Iterable[str] = (),
        settings: ControllerSettings | None = None,
    ) -> None:
        """Use an open repository. Secrets are masked in what is written to the jobs' logs."""
        self.name = name or new_name()
        if any(character.isspace() for character in check_id("controller", self.name)):
            raise ConfigurationError(f"the controller's name {self.name!r} must have no blanks")
        self.settings = settings or ControllerSettings()
        self._repository = repository
        self._queues = [check_id("queue", queue) for queue in queues]
        self._secrets = tuple(secrets)
        self._running: dict[Claim, ClaimedJob] = {}
        self._woken = asyncio.Event()
        #: Jobs that an offer has brought and that aren't begun.
        self._brought: list[ClaimedJob] = []
        self._stopping = asyncio.Event()
        self._claimer: Claimer | None = None
        self._keeper: LeaseKeeper | None = None

    async def __aenter__(self) -> Self:
        """Begin to renew leases and to listen for new jobs."""
        loop = asyncio.get_running_loop()

        def notify(claim: Claim, answer: str) -> None:
            loop.call_soon_threadsafe(self._interrupt, claim, answer)

        lease_seconds, offer_seconds = self.settings.lease_seconds, OFFER_POLLS * self.settings.poll_seconds
        claims = self._repository.claims
        self._claimer = Claimer(claims, self.name, self._queues, lease_seconds, offer_seconds, self._hear)
        self._keeper = self._repository.keep_leases(lease_seconds, notify)
        self._keeper.start()
        self._claimer.listen()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Give back what is still claimed, and sign off."""
        self.stop()
        await self._take_back_offer()
        # From here on nobody hears what it might be given.
        await self._open_claimer().close()
        for job in list(self._running.values()):
            await self._give_back(job)
        if self._keeper is not None:
            await self._keeper.stop()
        await self._open_claimer().sign_off()

    def stop(self) -> None:
        """Claim no more jobs; those that run have a time of grace."""
        self._stopping.set()
        self._woken.set()

    def hurry(self) -> None:
        """Claim no more jobs, and give back at once those that run."""
        self.stop()
        for job in list(self._running.values()):
            job.interrupt()

    async def run(self, handler: Handler) -> None:
        """Run claimed jobs until stopped; then wait for those that run, and give back those that take too long."""
        tasks: set[asyncio.Task[None]] = set()
        async with aclosing(self.claims()) as claims:
            async for job in claims:
                task = asyncio.create_task(self._attend(job, handler))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
        if tasks:
            await asyncio.wait(tasks, timeout=self.settings.grace_seconds)
        for job in list(self._running.values()):
            job.interrupt()
        if tasks:
            await asyncio.wait(tasks)

    async def claims(self) -> AsyncGenerator[ClaimedJob, None]:
        """Yield claimed jobs, as many as may run at a time, until stopped; each is to be entered with `async with`."""
        asking: asyncio.Task[list[ClaimedJob]] | None = None
        try:
            while not self._stopping.is_set():
                self._woken.clear()
                if asking is None:
                    wanted = self._wanted()
                    found = await self._ask(wanted)
                else:
                    found, asking = await asyncio.shield(asking), None
                is_more_likely, wanted = len(found) == wanted, self._wanted()
                if is_more_likely and wanted:
                    # The next question is on its way while these are begun.
                    asking = asyncio.create_task(self._ask(wanted))
                    for _ in range(TURNS_TO_LEAVE):
                        await asyncio.sleep(0)
                for job in found:
                    if await self._is_to_run(job):
                        yield job
                if found:
                    # They begin before the next question is asked.
                    await asyncio.sleep(0)
                else:
                    await self._wait()
        finally:
            if asking is not None:
                for job in await asking:
                    await self._give_back(job)
            await self._take_back_offer()

    async def _take_back_offer(self) -> None:
        """Make no offer any more, and give back what it has brought."""
        claimer = self._open_claimer()
        self._brought += [self._take_over(claimed) for claimed in await claimer.withdraw()]
        while self._brought:
            await self._give_back(self._brought.pop())

    def _open_claimer(self) -> Claimer:
        assert self._claimer is not None, "a controller is used in `async with`"
        return self._claimer

    def _wanted(self) -> int:
        """Return how many jobs to ask for: not all that may run if they are many, so that some run as others come."""
        free = self.settings.concurrency - len(self._running)
        return min(free, max(self.settings.concurrency // WAVES, SMALL_WAVE))

    async def _ask(self, count: int) -> list[ClaimedJob]:
        """Claim up to so many jobs, or return those that an offer has brought; they are held already."""
        if self._brought:
            found, self._brought = self._brought, []
            return found
        if count < 1:
            return []
        is_idle = not self._running and not self._stopping.is_set()
        claimed = await self._open_claimer().claim(count, is_idle=is_idle)
        return [self._take_over(one) for one in claimed]

    def _take_over(self, claimed: Claimed) -> ClaimedJob:
        job = ClaimedJob(self._repository, claimed, self._secrets, on_end=self._drop)
        self._running[job.claim] = job
        if self._keeper is not None:
            self._keeper.hold(claimed.queue.name, job.claim)
        return job

    async def _is_to_run(self, job: ClaimedJob) -> bool:
        """Give a job back after a stop; end one that only has to be ended, as it was cancelled or tried too often."""
        if self._stopping.is_set():
            await self._give_back(job)
            return False
        if not job.cancelled.is_set() and job.attempts <= self.settings.max_attempts:
            return True
        try:
            if job.cancelled.is_set():
                await job.cancel()
            else:
                last = f", the last time by {job.lost_by}, which was lost" if job.lost_by else ""
                await job.fail(f"given up: it was tried {job.attempts - 1} times{last}")
        except RepositoryError as error:
            logger.warning("a job couldn't be ended: %s", error, extra={"job_id": job.job.id})
        self._drop(job)
        return False

    async def _attend(self, job: ClaimedJob, handler: Handler) -> None:
        try:
            async with job:
                job.success = await handler(job) is not False
        except RepositoryError as error:
            logger.error("a job couldn't be ended: %s", error, extra={"job_id": job.job.id})
        finally:
            self._drop(job)

    def _drop(self, job: ClaimedJob) -> None:
        """Forget a job that is over, one way or the other."""
        if self._running.pop(job.claim, None) is not None and self._keeper is not None:
            self._keeper.let_go(job.claim)
        self._woken.set()

    async def _give_back(self, job: ClaimedJob) -> None:
        try:
            await job.release(patiently=False)
        except RepositoryError as error:
            logger.warning("a job couldn't be given back: %s", error, extra={"job_id": job.job.id})
        self._drop(job)

    def _interrupt(self, claim: Claim, answer: str) -> None:
        job = self._running.get(claim)
        if job is not None:
            job.interrupt(lost=answer == "lost", cancelled=answer == "cancel")

    async def _wait(self) -> None:
        """Wait for a message, an end of a job, or for a while that differs between controllers."""
        try:
            async with asyncio.timeout(self.settings.poll_seconds * random.uniform(0.5, 1.0)):
                await self._woken.wait()
        except TimeoutError:
            pass

    def _hear(self, heard: Heard) -> None:
        if heard.given is not None:
            self._brought.append(self._take_over(heard.given))
        if heard.cancelled is None:
            self._woken.set()
        elif self._keeper is not None and heard.cancelled in {claim.job_id for claim in self._running}:
            self._keeper.look()


def new_name() -> str:
    """Return a name for a controller: its machine, its process, something random."""
    host = "".join(character if character.isalnum() or character in "-." else "-" for character in platform.node())
    return f"{host or 'host'}-{os.getpid()}-{secrets.token_hex(3)}"
