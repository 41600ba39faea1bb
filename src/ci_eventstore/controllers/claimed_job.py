"""A job in the hands of its controller."""

import asyncio
import logging
import traceback
from collections.abc import Awaitable, Callable, Iterable
from functools import cached_property
from types import TracebackType
from typing import Self

from ci_common.errors import LeaseLostError
from ci_common.models import Job, JobEvent, JobStatus, utc_now
from ci_eventstore.claims.claim import Claim, Claimed
from ci_eventstore.errors import LogNotStoredError, LogWriterClosedError, OutcomeUnknownError, StoreUnavailableError
from ci_eventstore.repository import RedisJobRepository
from ci_eventstore.writer.log_writer import LogWriter

logger = logging.getLogger("ci_eventstore.controllers")

#: How soon the end of a job is written again when the store was away.
RETRY_SECONDS = 0.5


class ClaimedJob:
    r"""What a controller has of a job: the claim, the job, a log to write, and the ways to end it.

        async with claimed:
            await claimed.write("building\n")
            await claimed.complete(success=True)

    Inside `async with`, the task is cancelled when the lease is lost or someone cancels the job. Leaving it ends the
    job: with `success` if it hasn't been ended by then; as failed, with the traceback in its log, on an exception; back
    in its queue when the controller was stopped meanwhile; and not at all when the lease was lost.
    """

    def __init__(
        self,
        repository: RedisJobRepository,
        claimed: Claimed,
        secrets: Iterable[str] = (),
        on_end: Callable[["ClaimedJob"], None] = lambda job: None,
    ) -> None:
        self._shared = repository
        self._claimed = claimed
        self.job: Job = claimed.job
        self.claim: Claim = claimed.claim
        #: How often the job was claimed, this time included.
        self.attempts = claimed.attempts
        self.lost_by = claimed.lost_by
        #: Set when the claim isn't the job's any more.
        self.lost = asyncio.Event()
        #: Set when someone wants the job cancelled.
        self.cancelled = asyncio.Event()
        #: With what result it is completed when it is left.
        self.success = True
        #: Whether it was ended, released or lost.
        self.is_over = False
        self._on_end = on_end
        self._secrets = tuple(secrets)
        self._log: LogWriter | None = None
        #: The task that is inside, as long as it may be interrupted.
        self._task: asyncio.Task[object] | None = None
        self._is_to_stop = False
        self._was_interrupted = False
        if claimed.is_cancelled:
            self.cancelled.set()

    @cached_property
    def repository(self) -> RedisJobRepository:
        """Writes to this job under its claim."""
        return self._shared.under(self.claim, self._claimed.state)

    @property
    def log(self) -> LogWriter:
        """The writer of the job's log; it is closed when the job is ended. LogWriterClosedError after that."""
        if self._log is None:
            if self.is_over:
                raise LogWriterClosedError(self.job.id)
            self._log = self.repository.log_writer(self.job.id, secrets=self._secrets)
            self._log.open()
        return self._log

    async def write(self, data: str | bytes) -> None:
        """Write to the job's log; LogNotStoredError, LogWriterClosedError."""
        await self.log.write(data)

    async def complete(self, success: bool = True) -> None:
        """End the job as completed, behind everything written to its log; LeaseLostError."""

        async def write() -> None:
            event = JobEvent("complete", success=success, timestamp=utc_now())
            await self._persist(lambda: self._complete(event))

        await self._end(write)

    async def fail(self, reason: str) -> None:
        """End the job as failed, with the reason as the last line of its log; LeaseLostError."""
        await self._take_back_interrupt()
        await self.write(f"[{reason}]\n")
        await self._end(lambda: self._persist(lambda: self.repository.update_job_status(self.job.id, JobStatus.FAILED)))

    async def release(self, *, patiently: bool = True) -> None:
        """Put the job back into its queue, claimable at once; LeaseLostError.

        Unless it is done patiently, an outage of the store isn't waited for: others get the job when its lease ends.
        """

        def write() -> Awaitable[None]:
            return self.repository.update_job_status(self.job.id, JobStatus.QUEUED)

        await self._end((lambda: self._persist(write)) if patiently else write)

    async def cancel(self) -> None:
        """End the job as cancelled, with the line of who asked for it; LeaseLostError."""
        await self._end(lambda: self._persist(lambda: self.repository.cancel_job(self.job.id)))

    def interrupt(self, *, lost: bool = False, cancelled: bool = False) -> None:
        """Cancel the task that is inside, and note why."""
        if lost:
            self.lost.set()
        if cancelled:
            self.cancelled.set()
        self._is_to_stop = True
        if self._task is not None and not self._was_interrupted:
            self._was_interrupted = True
            self._task.cancel()

    async def __aenter__(self) -> Self:
        """Begin; what came before this claim is told in the log."""
        if self.attempts > 1:
            before = f"controller {self.lost_by} was lost" if self.lost_by else "it was given back"
            await self.write(f"[attempt {self.attempts}: {before}]\n")
        # Not before: cancelled in here, it would never be left, and so not be ended.
        self._task = asyncio.current_task()
        if self._is_to_stop or self.cancelled.is_set():
            self.interrupt()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        """End the job as said above."""
        is_interrupt = self._was_interrupted and isinstance(error, asyncio.CancelledError)
        if is_interrupt and self._task is not None:
            # A cancellation that isn't ours goes on to whom it belongs.
            is_interrupt = self._task.uncancel() == 0
            self._task = None
        await self._take_back_interrupt()
        try:
            await self._conclude(error)
        except LeaseLostError:
            self.lost.set()
            logger.warning("a job was lost", extra={"job_id": self.job.id})
        finally:
            await self._close_log()
            self.is_over = True
            self._on_end(self)
        return is_interrupt or isinstance(error, Exception)

    async def _conclude(self, error: BaseException | None) -> None:
        if self.is_over or self.lost.is_set():
            return
        if self.cancelled.is_set():
            await self.cancel()
        elif error is None:
            await self.complete(self.success)
        elif isinstance(error, LeaseLostError):
            self.lost.set()
        elif isinstance(error, Exception):
            logger.warning("a job failed by an exception", exc_info=error, extra={"job_id": self.job.id})
            await self.write("".join(traceback.format_exception(error)))
            await self.fail(f"the handler raised {type(error).__name__}")
        else:
            # The controller was stopped, or whoever runs it was cancelled.
            await self.release(patiently=False)

    async def _complete(self, event: JobEvent) -> None:
        if not await self._shared.claims.completions.complete(self._claimed, event):
            await self.repository.add_event(self.job.id, event)

    async def _end(self, write: Callable[[], Awaitable[None]]) -> None:
        """End the job behind its log; what was begun isn't interrupted any more."""
        await self._take_back_interrupt()
        try:
            await self._close_log()
            await write()
        finally:
            # Also if it isn't known whether it took effect: what is still claimed then falls to others.
            self.is_over = True
            self._on_end(self)

    async def _persist(self, write: Callable[[], Awaitable[None]]) -> None:
        """Write through outages, until it is known that the claim is lost."""
        unknown: OutcomeUnknownError | None = None
        while True:
            try:
                return await write()
            except LeaseLostError as error:
                # The claim may be gone because the end took effect.
                raise unknown or error from error
            except (OutcomeUnknownError, StoreUnavailableError) as error:
                unknown = error if isinstance(error, OutcomeUnknownError) else unknown
                if self.lost.is_set():
                    raise
                logger.warning("the store is away, the end of a job waits", extra={"job_id": self.job.id})
            await asyncio.sleep(RETRY_SECONDS)

    async def _take_back_interrupt(self) -> None:
        """Interrupt no more from here on; an interrupt that is on its way already hits nobody."""
        task, self._task = self._task, None
        is_own = task is asyncio.current_task()
        if task is None or not is_own or not self._was_interrupted:
            return
        self._was_interrupted = False
        try:
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            if task.uncancel():
                raise
        else:
            task.uncancel()

    async def _close_log(self) -> None:
        log, self._log = self._log, None
        if log is None:
            return
        try:
            # What the server has lost of it, the end of the job is told.
            await log.close(looks_back=False)
        except LogNotStoredError as failure:
            if not isinstance(failure.__cause__, LeaseLostError):
                logger.error("a log could not be stored: %s", failure, extra={"job_id": self.job.id})
