"""A job in the hands of its controller."""

import asyncio
import logging
import traceback
from collections.abc import Awaitable, Callable, Coroutine
from functools import cached_property, partial
from types import TracebackType
from typing import Any, Self

from ci_common.errors import LeaseLostError
from ci_common.models import Job, JobEvent, JobStatus, Outcome, utc_now
from ci_eventstore.controllers.interrupt import Cause, Interrupt
from ci_eventstore.controllers.storing import EndStorage
from ci_eventstore.errors import LogWriterClosedError, MachineError
from ci_eventstore.job_writer import JobWriter
from ci_eventstore.jobs.decide import HandBack, is_handed_back_too_often
from ci_eventstore.queues.claimed import Claim, Claimed
from ci_eventstore.repository import RedisJobRepository
from ci_eventstore.tasks import finish
from ci_eventstore.writer.log_writer import LogWriter
from ci_eventstore.writer.masking import SecretTexts, prepared

logger = logging.getLogger("ci_eventstore.controllers")

#: A job that ends waits this long for the store once its task is cancelled.
CANCELLED_SECONDS = 5.0


class ClaimedJob:
    r"""A job that a controller has: the claim, the log to write, and the ways to end it.

        async with claimed:
            await claimed.write("building\n")
            await claimed.complete(success=True)

    Inside `async with`, the task is cancelled when the lease is lost or someone cancels the job. Leaving it ends the
    job: with `success` if it hasn't been ended by then; as failed, with the traceback in its log, on an exception,
    `SystemExit` and a cancellation that nobody asked for included; back in its queue when the controller was stopped
    or the machine can't run it (`MachineError`); and not at all when the lease was lost.

    A cancellation doesn't keep an end that has begun from being stored; it leaves the store 5 seconds.
    """

    def __init__(
        self,
        repository: RedisJobRepository,
        claimed: Claimed,
        secrets: SecretTexts = (),
        on_end: Callable[["ClaimedJob"], None] = lambda job: None,
    ) -> None:
        self._repository = repository
        self._claimed = claimed
        self.job: Job = claimed.job
        self.claim: Claim = claimed.claim
        #: How often the job was tried, this time included; attempts that were given back in order don't count.
        self.attempts = claimed.state.attempts
        self.lost_by = claimed.lost_by
        #: Set when the claim isn't the job's any more.
        self.lost = asyncio.Event()
        #: Set when someone wants the job cancelled.
        self.cancelled = asyncio.Event()
        #: The result with which leaving completes it, and how its command ended if that is known by then.
        self.success = True
        self.outcome: Outcome | None = None
        #: Whether it was ended, released or lost.
        self.is_over = False
        #: The reason why this machine couldn't run it, if there is one.
        self.machine_error: MachineError | None = None
        self._on_end = on_end
        self._secrets = prepared(secrets)
        self._log: LogWriter | None = None
        #: When it was entered, by the event loop's clock.
        self.began_at: float | None = None
        #: Whether nobody cancels its task after its body is over; then its ending needs no task of its own.
        self.is_owned = False
        self.body = Interrupt()
        self._is_ending = False
        if claimed.state.cancel_line is not None:
            self.cancelled.set()

    @cached_property
    def writer(self) -> JobWriter:
        """Writes to the job under its claim."""
        return self._repository.writer(self.job.id, self.claim, self._claimed)

    @cached_property
    def storage(self) -> EndStorage:
        """Stores the job's end. Like `writer`, it isn't made before it is needed: a handler starts sooner without."""
        has_ended, outages = partial(_has_ended, self._repository, self.claim), self._repository.engine.nodes.outages
        return EndStorage(self.job.id, self.lost, has_ended, self.writer, outages)

    @property
    def log(self) -> LogWriter:
        """The job's log, opened again if someone has closed it; LogWriterClosedError once the job has ended."""
        if self._log is None or self._log.is_closed:
            if self.is_over:
                raise LogWriterClosedError(self.job.id)
            self._log = self.writer.log_writer(secrets=self._secrets)
            self._log.open()
            if (left := self.storage.deadline.left()) is not None:
                self._log.hurry(left)
        return self._log

    async def write(self, data: str | bytes) -> None:
        """Write text to the job's log, stored at the latest by `log.flush` or the job's end; LogNotStoredError."""
        await self.log.write(data)

    async def complete(self, success: bool = True, outcome: Outcome | None = None) -> None:
        """End the job as completed, after everything written to its log; LeaseLostError."""

        async def write() -> None:
            await self.writer.end(
                JobEvent("complete", success=success, timestamp=self.storage.ended_at, outcome=outcome)
            )

        await self._end_as(JobStatus.COMPLETED, "success" if success else "no success", write)

    async def fail(self, reason: str) -> None:
        """End the job as failed, with the reason as the last line of its log; LeaseLostError."""
        await self.body.take_back()
        await self.storage.say(self.log, f"[{reason}]\n")
        await self._end_as(JobStatus.FAILED, "failed", partial(self.writer.update_status, JobStatus.FAILED))

    async def release(self, *, patiently: bool = True) -> None:
        """Put the job back into its queue, claimable at once; it costs the job no attempt. LeaseLostError.

        Unless patiently, it doesn't wait for an outage to end: others get the job when its lease runs out.
        """
        await self._end(
            lambda: self.storage.give_back(lambda: self.writer.update_status(JobStatus.QUEUED), patiently=patiently)
        )

    async def hand_back(self, reason: str) -> None:
        """Put the job back into its queue because this machine can't run it; its log has the reason. LeaseLostError.

        At the tenth time, or when a third controller can't run it, the job fails: it may be the cause itself.
        """
        await self.body.take_back()
        controller, state = self._claimed.state.controller or "", self._claimed.state
        if is_handed_back_too_often(state, controller):
            times = (state.hand_backs or 0) + 1
            await self.fail(f"given up: {times} times its controller couldn't run it, the last time {reason}")
            return
        await self.storage.say(self.log, f"[handed back: controller {controller} can't run it, {reason}]\n")
        hand_back = HandBack(controller)
        await self._end(lambda: self.storage.give_back(lambda: self.writer.execute(hand_back), patiently=True))

    async def cancel(self) -> None:
        """End the job as cancelled, with the line of who asked for it; LeaseLostError."""
        await self._end_as(JobStatus.CANCELLED, "cancelled", self.writer.cancel)

    def interrupt(self, *, lost: bool = False, cancelled: bool = False) -> None:
        """Cancel the task that is inside, and note why."""
        if lost:
            self.lost.set()
        if cancelled:
            self.cancelled.set()
        self.body.send()

    def hurry(self, seconds: float) -> None:
        """Wait for the store at most `seconds` from now, all in all."""
        self.storage.deadline.shorten(seconds)
        if self._log is not None:
            self._log.hurry(seconds)
            # Each further piece would have as much time again.
            asyncio.get_running_loop().call_later(seconds, self._log.hurry, 0.0)

    async def __aenter__(self) -> Self:
        """Start running the job; its log says if it was tried before."""
        self.began_at = asyncio.get_running_loop().time()
        try:
            if self.lost_by:
                await self.write(f"[attempt {self.attempts}: controller {self.lost_by} was lost]\n")
            elif self.claim.epoch > 1:
                await self.write("[begun again: it was given back]\n")
        except BaseException as error:
            # Python doesn't call `__aexit__` then.
            await self._sheltered(self._conclude(error, Cause.OUTSIDE))
            raise
        self.body.enter()
        if self.cancelled.is_set():
            self.interrupt()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        """End the job as the class describes."""
        if isinstance(error, GeneratorExit):
            # The generator that holds it is being thrown away, and can't await anything.
            self._note_over()
            return False
        cause = self.body.leave(error)
        try:
            if self.body.is_wanted:
                await self.body.take_back()
        finally:
            self._is_ending = self._is_ending or self.is_owned
            ending = self._conclude(error, cause)
            await (ending if self._is_ending else self._sheltered(ending))
        return error is not None and cause is not Cause.OUTSIDE

    async def _conclude(self, error: BaseException | None, cause: Cause | None) -> None:
        try:
            if (ending := self._ending_after(error, cause)) is not None:
                await ending
        except LeaseLostError:
            self.lost.set()
            logger.warning("a job was lost", extra={"job_id": self.job.id})
        finally:
            try:
                await self._close_log()
            finally:
                self._note_over()

    def _ending_after(self, error: BaseException | None, cause: Cause | None) -> Coroutine[Any, Any, None] | None:
        """Return the coroutine that ends the job, by how its body ended; None if it is over."""
        if isinstance(error, LeaseLostError):
            self.lost.set()
        if self.is_over or self.lost.is_set():
            return None
        if self.cancelled.is_set():
            return self.cancel()
        if error is None:
            return self.complete(self.success, self.outcome)
        if isinstance(error, MachineError):
            self.machine_error = error
            return self.hand_back(str(error))
        if cause in (Cause.INTERRUPT, Cause.OUTSIDE):
            # The controller was stopped, or the task that runs it was cancelled.
            return self.release(patiently=False)
        return self._fail_by(error)

    async def _fail_by(self, error: BaseException) -> None:
        trace = self.log.masked("".join(traceback.format_exception(error)))
        logger.warning("a job failed by an exception\n%s", trace, extra={"job_id": self.job.id})
        await self.storage.say(self.log, trace)
        await self.fail(f"the handler raised {type(error).__name__}")

    async def _end_as(self, status: JobStatus, end: str, write: Callable[[], Awaitable[None]]) -> None:
        await self._end(lambda: self.storage.persist(write, status, end))

    async def _end(self, write: Callable[[], Awaitable[None]]) -> None:
        """Store the log, then the end; from here on nothing interrupts that."""
        if not self._is_ending:
            await self.body.take_back()
            await self._sheltered(self._end(write))
            return
        self.storage.ended_at = utc_now()
        try:
            await self._close_log()
            await write()
        finally:
            # Also if it isn't known whether the write took effect: others get a job that is still claimed.
            self._note_over()

    async def _sheltered(self, ending: Coroutine[Any, Any, None]) -> None:
        """Finish an ending even if this task is cancelled."""
        self._is_ending = True
        try:
            await finish(ending, lambda: self.hurry(CANCELLED_SECONDS))
        finally:
            self._is_ending = False

    def _note_over(self) -> None:
        if not self.is_over:
            self.is_over = True
            self._on_end(self)

    async def _close_log(self) -> None:
        if self._log is not None:
            try:
                await self.storage.close_log(self._log)
            finally:
                self._log = None


async def _has_ended(repository: RedisJobRepository, claim: Claim, status: JobStatus) -> bool:
    """Return whether a job ended so under a claim, which nobody has followed."""
    state = await repository.engine.jobs.state(claim.job_id)
    return state is not None and state.status is status and state.epoch == claim.epoch
