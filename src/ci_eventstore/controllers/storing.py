"""Store how a job ended: through outages, until the claim is lost or no time is left."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import datetime
from functools import partial

from ci_common.errors import LeaseLostError
from ci_common.models import JobEvent, JobStatus
from ci_eventstore.connection.outage_log import Outages
from ci_eventstore.errors import (
    AcknowledgedEventsLostError,
    LogNotStoredError,
    NotReplicatedError,
    OutcomeUnknownError,
    StoreUnavailableError,
)
from ci_eventstore.job_writer import JobWriter
from ci_eventstore.writer.log_writer import LogWriter
from ci_eventstore.writer.losses import after_line, note_of, telling_losses
from ci_eventstore.writer.rescue import RescueFile

logger = logging.getLogger("ci_eventstore.controllers")

#: While the store is away, a job's end is written again after this.
RETRY_SECONDS = 0.5
#: How long a job that is given back waits for the store; without it, others get the job when its lease runs out.
GIVE_BACK_SECONDS = 10.0

Write = Callable[[], Awaitable[None]]
Look = Callable[[], Awaitable[bool]]


class Deadline:
    """One deadline for several things, done one after the other; none until someone sets it."""

    def __init__(self) -> None:
        self._at: float | None = None
        self._current: asyncio.Timeout | None = None

    def shorten(self, seconds: float) -> None:
        """Set the deadline to `seconds` from now if it isn't earlier, also for what is under way."""
        at = asyncio.get_running_loop().time() + seconds
        self._at = at if self._at is None else min(at, self._at)
        if self._current is not None and not self._current.expired():
            # It may be over.
            with suppress(RuntimeError):
                self._current.reschedule(self._at)

    def left(self) -> float | None:
        """Return how many seconds are left; None if there is no deadline."""
        return None if self._at is None else max(self._at - asyncio.get_running_loop().time(), 0.0)

    def hold(self) -> asyncio.Timeout:
        """Hold what happens inside `async with` to the deadline; TimeoutError."""
        self._current = asyncio.timeout_at(self._at)
        return self._current


class EndStorage:
    """Stores one job's end. If it can't, it logs the end, and keeps it in a local file with the rest of the log."""

    def __init__(
        self,
        job_id: str,
        lost: asyncio.Event,
        has_ended: Callable[[JobStatus], Awaitable[bool]],
        writer: JobWriter,
        outages: Outages,
    ) -> None:
        """Store a job's end as long as `lost` isn't set, which says that the claim isn't the job's any more.

        A claim may be gone because the end took effect, and its answer was lost: `has_ended` looks whether the job has
        ended so under this claim. If the server has lost part of the log, `writer` says so in a line before the end.
        """
        self._job_id = job_id
        self._has_ended = has_ended
        self._writer = writer
        #: When the last of the job's log was written, which the store may get later.
        self.ended_at: datetime | None = None
        #: One log for all jobs whose ends wait.
        self._outage = outages.of(logger, "the store is away, jobs' ends wait: %s", "jobs' ends are stored again")
        self._lost = lost
        #: How long to wait for the store.
        self.deadline = Deadline()
        #: How the job ended, if the store doesn't know it.
        self.unstored_end: str | None = None
        #: The file with the rest of the job's log, if there is one.
        self._rescue_path: str | None = None
        #: The line about what the job's log lacks, if it lacks anything.
        self._note: str | None = None

    async def persist(self, write: Write, status: JobStatus, end: str) -> None:
        """Write the end until the deadline; people know it as `end`. OutcomeUnknownError, StoreUnavailableError."""
        try:
            async with self.deadline.hold():
                await self._insist(write, partial(self._has_ended, status))
        except TimeoutError as error:
            self._note_unstored(end)
            # A call may be on its way.
            raise OutcomeUnknownError(f"the end of job {self._job_id}, in the time that was left") from error
        except (OutcomeUnknownError, StoreUnavailableError):
            self._note_unstored(end)
            raise

    async def give_back(self, write: Write, *, patiently: bool) -> None:
        """Write that the job goes back; unless patiently, don't wait for an outage to end."""
        try:
            async with self.deadline.hold(), asyncio.timeout(None if patiently else GIVE_BACK_SECONDS):
                await self._insist(write, _is_given_back, outlasts_outages=patiently)
        except TimeoutError as error:
            raise OutcomeUnknownError(f"giving back job {self._job_id}, in the time that was left") from error

    async def say(self, log: LogWriter, text: str) -> None:
        """Write to the log how the job ends. The job ends also with a log that is broken for good."""
        try:
            await log.write(text)
        except LogNotStoredError as failure:
            # A store that is away and a lost claim are raised as what they are.
            if isinstance(failure.__cause__, LeaseLostError | OutcomeUnknownError | StoreUnavailableError):
                raise

    async def close_log(self, log: LogWriter) -> None:
        """Store the rest of the job's log; keep in a file what can't be stored, and name it in the log's last line."""
        try:
            # The job's end reports what the server has lost of it.
            await log.close(looks_back=False)
        except LogNotStoredError as failure:
            if not isinstance(failure.__cause__, LeaseLostError):
                self._rescue_path, self._note = failure.path, log.masked(note_of(failure))
                logger.error("a log could not be stored: %s", failure, extra={"job_id": self._job_id})

    async def _insist(self, write: Write, took_effect: Look, *, outlasts_outages: bool = True) -> None:
        unknown: OutcomeUnknownError | None = None
        if self._note is not None:
            write = after_line(self._note, write, self._add_line)
        while True:
            try:
                try:
                    await write()
                except LeaseLostError as error:
                    if isinstance(unknown, NotReplicatedError):
                        # That the primary has it is known; whether a replica does can't be asked.
                        raise unknown from error
                    if unknown is None or not await took_effect():
                        raise
            except AcknowledgedEventsLostError:
                write = telling_losses(self._job_id, write, self._add_line, is_loss=True)
                continue
            except (OutcomeUnknownError, StoreUnavailableError) as error:
                if error is unknown or not outlasts_outages:
                    raise
                if isinstance(error, OutcomeUnknownError) and not isinstance(unknown, NotReplicatedError):
                    unknown = error
                # After an unknown call, only the store can say whether the claim is gone because the job has ended.
                if self._lost.is_set() and unknown is None:
                    raise
                self._outage.failed(error, {"job_id": self._job_id})
            else:
                self._outage.worked()
                return
            await asyncio.sleep(RETRY_SECONDS)

    async def _add_line(self, line: str) -> None:
        await self._writer.append([JobEvent("log", line, timestamp=self.ended_at)])

    def _note_unstored(self, end: str) -> None:
        """Keep how the job ended beside the rest of its log."""
        self.unstored_end = end
        rescue = RescueFile(None)
        rescue.path = self._rescue_path
        rescue.add(f"[job {self._job_id} ended: {end}; the store doesn't know that]\n")
        where = f"; {rescue.path} says so too" if rescue.path else ""
        logger.error("the end of job %s isn't stored: %s%s", self._job_id, end, where)


async def _is_given_back() -> bool:
    # A claim that isn't the job's any more is what giving it back is for.
    return True
