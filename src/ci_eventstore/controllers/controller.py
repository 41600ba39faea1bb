"""`Controller`: claims jobs and has them run."""

import asyncio
import logging
import os
import platform
import random
import secrets
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Self

from ci_common.errors import RepositoryError
from ci_common.validation import check_id, check_texts
from ci_eventstore.controllers.claimed_job import ClaimedJob
from ci_eventstore.controllers.handlers import STORE_SECONDS, Handler, Handlers, give_up_in_time
from ci_eventstore.controllers.intake import Intake
from ci_eventstore.controllers.machine import MachineHealth
from ci_eventstore.errors import ConfigurationError
from ci_eventstore.queues.claimed import CANCELLER, Claim, Claimed
from ci_eventstore.queues.claimer import Claimer, Heard
from ci_eventstore.queues.lease_keeper import LeaseKeeper
from ci_eventstore.queues.offers import OFFER_POLLS
from ci_eventstore.repository import RedisJobRepository
from ci_eventstore.settings import check_number
from ci_eventstore.tasks import finish
from ci_eventstore.writer.masking import SecretTexts, prepared

logger = logging.getLogger("ci_eventstore.controllers")

#: A controller with many jobs claims them in this many parts, none below SMALL_WAVE: while some run, others come.
WAVES = 4
SMALL_WAVE = 16
#: A task's request has left after this many turns of the event loop.
TURNS_TO_LEAVE = 3

#: A shorter poll would keep the server busy; nothing here should wait for more than a week.
SHORTEST_POLL_SECONDS = 0.01
LONGEST_SECONDS = 604_800
#: A controller that is left waits this long for jobs that were taken from `claims`.
OTHERS_SECONDS = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ControllerSettings:
    """The settings of a controller; ConfigurationError for invalid ones."""

    #: It has at most this many jobs at a time.
    concurrency: int = 1
    #: A job stays its own this long without a sign of life; it gives three in that time.
    lease_seconds: float = 30.0
    #: A job that was claimed this many times fails instead of being run once more.
    max_attempts: int = 5
    #: How long running jobs may go on when the controller is stopped, before they are given back.
    grace_seconds: float = 30.0
    #: It looks for jobs at least this often; while it is idle, new ones reach it without that.
    poll_seconds: float = 2.0

    def __post_init__(self) -> None:
        """Check all settings; ConfigurationError."""
        check_number(self, "concurrency", 1, is_whole=True)
        check_number(self, "max_attempts", 1, is_whole=True)
        check_number(self, "lease_seconds", 1, LONGEST_SECONDS)
        check_number(self, "poll_seconds", SHORTEST_POLL_SECONDS, LONGEST_SECONDS)
        check_number(self, "grace_seconds", 0, LONGEST_SECONDS)


class Controller:
    """Takes jobs from queues and has them run, at most `concurrency` at a time.

        async with Controller(repository, queues=["default"]) as controller:
            await controller.run(build)

    `run` goes on until `stop()` is called. A job is the controller's as long as it renews the lease; a controller that
    dies, hangs or is cut off loses its jobs to others, and can't write to them any more.
    """

    def __init__(
        self,
        repository: RedisJobRepository,
        *,
        queues: Sequence[str] = ("default",),
        name: str | None = None,
        secrets: SecretTexts = (),
        settings: ControllerSettings | None = None,
    ) -> None:
        """Use an open repository, and mask secrets in what is written to the jobs' logs."""
        self.name = name or new_name()
        if any(character.isspace() for character in check_id("controller", self.name)):
            raise ConfigurationError(f"the controller's name {self.name!r} must have no blanks")
        if self.name == CANCELLER:
            raise ConfigurationError(f"a controller can't be named {CANCELLER!r}: so is who ends jobs that were lost")
        self.settings = settings or ControllerSettings()
        self._repository = repository
        self._queues = [check_id("queue", queue) for queue in check_texts("queues", queues)]
        if not self._queues:
            raise ConfigurationError("a controller needs one queue at least")
        self._secrets = prepared(secrets)
        self.running: dict[Claim, ClaimedJob] = {}  # All it has: while it is empty, `stop` interrupts nobody.
        self._woken = asyncio.Event()
        self._stopping = asyncio.Event()
        self._handlers: Handlers | None = None
        self._health = MachineHealth()
        self._is_hurried = False
        #: Whether `claims` waits: nothing is being claimed, and nothing is found that isn't handed out.
        self._is_waiting = False
        #: Ids of jobs whose ends couldn't be stored.
        self.unstored: list[str] = []
        self._intake: Intake | None = None
        self._keeper: LeaseKeeper | None = None

    async def __aenter__(self) -> Self:
        """Start renewing leases and listening for new jobs."""
        tell = asyncio.get_running_loop().call_soon_threadsafe
        lease_seconds, offer_seconds = self.settings.lease_seconds, OFFER_POLLS * self.settings.poll_seconds
        engine = self._repository.engine
        claimer = Claimer(engine.nodes, engine.keys, self.name, self._queues, lease_seconds, offer_seconds, self._hear)
        self._intake = Intake(claimer, self._take_over)
        self._keeper = self._repository.keep_leases(lease_seconds, lambda *answer: tell(self._interrupt, *answer))
        self._keeper.start()
        claimer.listen()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Wait until nobody runs its jobs, give back those that are left, and sign off. It may be entered again."""
        self.stop()
        try:
            await finish(self._leave())
        finally:
            self._stopping, self._woken = asyncio.Event(), asyncio.Event()
            self._health, self._is_hurried = MachineHealth(), False

    def stop(self) -> None:
        """Claim no more jobs; running ones may go on for `grace_seconds`."""
        self._stopping.set()
        self._woken.set()
        if self._intake is not None:
            self._intake.stop()

    def hurry(self) -> None:
        """Claim no more jobs, and give running ones back at once; the store has 3 seconds for ends of jobs."""
        self._is_hurried = True
        self.stop()
        self._open_intake().hurry()
        for job in list(self.running.values()):
            job.interrupt()
            job.hurry(STORE_SECONDS)
        if self._handlers is not None:
            self._handlers.hurry()

    async def run(self, handler: Handler) -> None:
        """Run claimed jobs until stopped; then wait for running ones, and give back those that take too long.

        It also ends jobs of `ci-eventstore run` whose processes are gone. No handler runs any more when this returns,
        even if it is cancelled: then it interrupts all handlers and waits for them. It gives up the job of a handler
        that goes on for 30 seconds after that.
        """
        handlers = self._handlers = Handlers(handler, self.settings.grace_seconds, self._give_up)
        try:
            async with self._repository.engine.holders.watched(), handlers, aclosing(self.claims()) as claims:
                async for job in claims:
                    handlers.begin(job)
        finally:
            self._handlers = None
            # Claimed jobs for which no handler was started.
            await finish(self._give_back([job for job in self.running.values() if job.began_at is None]))

    async def claims(self) -> AsyncGenerator[ClaimedJob, None]:
        """Yield claimed jobs, at most `concurrency` at a time, until stopped; enter each with `async with`."""
        intake = self._open_intake()
        try:
            while not self._stopping.is_set():
                self._woken.clear()
                wanted, was_asked_ahead = self._wanted(), intake.is_asking
                found = await intake.find(wanted, is_idle=self._is_idle())
                is_more_likely, wanted = len(found) == wanted, self._wanted()
                if (is_more_likely and wanted) or intake.is_overcommitted:
                    # The next question is on its way while these are begun.
                    intake.ask_ahead(wanted, is_idle=self._is_idle())
                    for _ in range(TURNS_TO_LEAVE):
                        await asyncio.sleep(0)
                for job in found:
                    is_over = len(self.running) > self.settings.concurrency  # by an offer that stood elsewhere
                    if is_over or self._stopping.is_set() or self._health.pause(asyncio.get_running_loop().time()):
                        await self._give_back([job])
                    elif job.cancelled.is_set() or job.attempts > self.settings.max_attempts:
                        await self._turn_away(job)
                    else:
                        yield job
                if found:
                    # They begin before the next question is asked.
                    await asyncio.sleep(0)
                elif not intake.has_more and not (was_asked_ahead and self._is_idle()):
                    # Else a question that was asked ahead made no offer, and one that is idle by now asks again.
                    await self._wait()
        finally:
            await finish(self._end_intake())

    async def _end_intake(self) -> None:
        await self._give_back(await self._open_intake().end())

    async def _leave(self) -> None:
        """End running jobs, the renewal of leases and listening, within a bounded time."""
        intake = self._open_intake()
        await self._end_intake()
        # From here on it can't hear of jobs that it is given.
        await intake.close()
        await self._outlast_others()
        await self._give_back(list(self.running.values()))
        if self._keeper is not None:
            await self._keeper.stop()
        await intake.sign_off()

    async def _outlast_others(self) -> None:
        """Wait until nobody runs a job that was taken from `claims`; give up those that go on."""
        inside = [job for job in self.running.values() if job.began_at is not None]
        for job in inside:
            job.interrupt()
        seconds = STORE_SECONDS if self._is_hurried else OTHERS_SECONDS
        try:
            async with asyncio.timeout(seconds):
                while not all(job.is_over for job in inside):
                    self._woken.clear()
                    await self._woken.wait()
        except TimeoutError:
            for job in inside:
                self._give_up(job)

    def _open_intake(self) -> Intake:
        assert self._intake is not None, "a controller is used in `async with`"
        return self._intake

    def _is_idle(self) -> bool:
        """Return whether it may get the next job without asking for it."""
        return not self.running and not self._stopping.is_set() and not self._health.is_unfit

    def _wanted(self) -> int:
        """Return how many jobs to ask for: if many may run, only a part, so that some run while others come."""
        free = self._health.allowed(self.settings.concurrency - len(self.running), asyncio.get_running_loop().time())
        return min(free, max(self.settings.concurrency // WAVES, SMALL_WAVE))

    def _take_over(self, found: Sequence[Claimed]) -> list[ClaimedJob]:
        """Take over jobs of one queue that were just claimed."""
        jobs = [ClaimedJob(self._repository, claimed, self._secrets, on_end=self._drop) for claimed in found]
        self.running |= {job.claim: job for job in jobs}
        if self._keeper is not None and found:
            self._keeper.hold(found[0].queue.name, *[job.claim for job in jobs])
        return jobs

    def _receive(self, claimed: Claimed) -> None:
        """Begin a job that an offer has brought if `claims` would do nothing else first; else keep it for that."""
        [job] = self._take_over([claimed])
        is_free = self._is_waiting and not self._woken.is_set() and not self._stopping.is_set()
        is_fit = not self._health.pause(asyncio.get_running_loop().time()) and not job.cancelled.is_set()
        has_room = len(self.running) <= self.settings.concurrency and job.attempts <= self.settings.max_attempts
        if self._handlers is not None and is_free and is_fit and has_room:
            self._handlers.begin(job)
        else:
            self._open_intake().brought.append(job)

    async def _turn_away(self, job: ClaimedJob) -> None:
        """End a job that was cancelled or lost too often."""
        try:
            if job.cancelled.is_set():
                await job.cancel()
            else:
                last = f", the last time by {job.lost_by}, which was lost" if job.lost_by else ""
                await job.fail(f"given up: it was tried {job.attempts - 1} times{last}")
        except RepositoryError as error:
            logger.warning("a job couldn't be ended: %s", error, extra={"job_id": job.job.id})
        self._drop(job)

    def _drop(self, job: ClaimedJob) -> None:
        """Forget a job that has ended or was given up, and note what it shows of this machine's health."""
        if self.running.pop(job.claim, None) is not None:
            if self._keeper is not None:
                self._keeper.let_go(job.claim)
            if job.storage.unstored_end is not None:
                self.unstored.append(job.job.id)
            if job.began_at is not None and job.machine_error is not None:
                self._health.note_failure(job.machine_error, job.began_at, asyncio.get_running_loop().time())
            elif job.began_at is not None and not job.body.is_wanted:
                self._health.note_success(job.began_at)
        self._woken.set()

    async def _give_back(self, jobs: Sequence[ClaimedJob]) -> None:
        """Put jobs that nobody runs back into their queues, all at the same time."""
        await asyncio.gather(*[_give_back(job, self._is_hurried) for job in jobs if not job.is_over])

    def _give_up(self, job: ClaimedJob) -> None:
        """Stop renewing the lease of a job whose handler doesn't end; since it runs, it mustn't be given back."""
        job.interrupt(lost=True)
        self._drop(job)

    def _interrupt(self, claim: Claim, answer: str) -> None:
        if (job := self.running.get(claim)) is not None:
            give_up_in_time(job, self._give_up)
            job.interrupt(lost=answer == "lost", cancelled=answer == "cancel")

    async def _wait(self) -> None:
        """Wait for a message or a job's end, at most for a time that differs between controllers."""
        self._is_waiting = True
        try:
            async with asyncio.timeout(self.settings.poll_seconds * random.uniform(0.5, 1.0)):
                await self._woken.wait()
        except TimeoutError:
            pass
        finally:
            self._is_waiting = False

    def _hear(self, heard: Heard) -> None:
        if heard.given is not None:
            self._receive(heard.given)
        if heard.cancelled is None:
            self._woken.set()
        elif self._keeper is not None and heard.cancelled in {claim.job_id for claim in self.running}:
            self._keeper.look()


async def _give_back(job: ClaimedJob, is_hurried: bool) -> None:
    if is_hurried:
        job.hurry(STORE_SECONDS)
    try:
        await job.release(patiently=False)
    except RepositoryError as error:
        logger.warning("a job couldn't be given back: %s", error, extra={"job_id": job.job.id})


def new_name() -> str:
    """Return a name for a controller: its machine, its process, something random."""
    host = "".join(character if character.isalnum() or character in "-." else "-" for character in platform.node())
    return f"{host or 'host'}-{os.getpid()}-{secrets.token_hex(3)}"
