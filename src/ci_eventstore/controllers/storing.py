"""Store how a job ended: through outages, until the claim is lost or no time is left."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress

from ci_common.errors import LeaseLostError
from ci_eventstore.connection.outage_log import Outages
from ci_eventstore.errors import (
    AcknowledgedEventsLostError,
    LogNotStoredError,
    OutcomeUnknownError,
    StoreUnavailableError,
)
from ci_eventstore.writer.log_writer import LogWriter
from ci_eventstore.writer.losses import after_line, note_of, telling_losses
from ci_eventstore.writer.rescue import RescueFile

logger = logging.getLogger("ci_eventstore.controllers")

#: How soon the end of a job is written again when the store was away.
RETRY_SECONDS = 0.5
#: How long a job that is given back waits for the store; without it, others get the job when its lease runs out.
GIVE_BACK_SECONDS = 10.0

Write = Callable[[], Awaitable[None]]


class Deadline:
    """The time until which things may take, one after the other; there is none until someone sets one."""

    def __init__(self) -> None:
        self._at: float | None = None
        self._current: asyncio.Timeout | None = None

    def shorten(self, seconds: float) -> None:
        """Let nothing take longer than `seconds` from now, including what is under way."""
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
    """Stores one job's end. One that can't be stored is logged, and kept in a local file with the rest of the log."""

    def __init__(
        self, job_id: str, lost: asyncio.Event, add_line: Callable[[str], Awaitable[None]], outages: Outages
    ) -> None:
        """Store the end of a job; `lost` is set when the claim isn't the job's any more.

        If the server has lost some of the job's log, a line that says so is added to it before the end.
        """
        self._job_id = job_id
        self._add_line = add_line
        #: Of all jobs whose ends wait.
        self._outage = outages.of(logger, "the store is away, jobs' ends wait: %s", "jobs' ends are stored again")
        self._lost = lost
        #: Until when the store is waited for.
        self.deadline = Deadline()
        #: How the job ended, if the store doesn't know that.
        self.unstored_end: str | None = None
        #: Where the rest of the job's log is kept, if there is any.
        self._rescue_path: str | None = None
        #: The line that says what the job's log lacks, if there is any.
        self._note: str | None = None

    async def persist(self, write: Write, end: str) -> None:
        """Write an end, which people call so, as long as there is time for it."""
        try:
            async with self.deadline.hold():
                await self._insist(write)
        except TimeoutError as error:
            self._note_unstored(end)
            raise StoreUnavailableError("the store gave no answer in the time that was left") from error
        except (OutcomeUnknownError, StoreUnavailableError):
            self._note_unstored(end)
            raise

    async def give_back(self, write: Write, *, patiently: bool) -> None:
        """Write that the job is given back; unless patiently, don't wait for an outage to end."""
        try:
            async with self.deadline.hold(), asyncio.timeout(None if patiently else GIVE_BACK_SECONDS):
                await self._insist(write, outlasts_outages=patiently)
        except TimeoutError as error:
            raise StoreUnavailableError("the store gave no answer in the time that was left") from error

    async def say(self, log: LogWriter, text: str) -> None:
        """Write to the job's log how the job ends. A log that is broken for good doesn't keep the job from ending."""
        try:
            await log.write(text)
        except LogNotStoredError as failure:
            # What is only away, or isn't the job's any more, is told as such.
            if isinstance(failure.__cause__, LeaseLostError | OutcomeUnknownError | StoreUnavailableError):
                raise

    async def close_log(self, log: LogWriter) -> None:
        """Store the rest of the job's log; what can't be stored is in a file, of which its last line tells."""
        try:
            # What the server has lost of it, the end of the job is told.
            await log.close(looks_back=False)
        except LogNotStoredError as failure:
            if not isinstance(failure.__cause__, LeaseLostError):
                self._rescue_path, self._note = failure.path, log.masked(note_of(failure))
                logger.error("a log could not be stored: %s", failure, extra={"job_id": self._job_id})

    async def _insist(self, write: Write, *, outlasts_outages: bool = True) -> None:
        unknown: OutcomeUnknownError | None = None
        if self._note is not None:
            write = after_line(self._note, write, self._add_line)
        while True:
            try:
                await write()
            except AcknowledgedEventsLostError:
                write = telling_losses(self._job_id, write, self._add_line, is_loss=True)
                continue
            except LeaseLostError as error:
                # The claim may be gone because the end took effect.
                raise unknown or error from error
            except (OutcomeUnknownError, StoreUnavailableError) as error:
                unknown = error if isinstance(error, OutcomeUnknownError) else unknown
                if self._lost.is_set() or not outlasts_outages:
                    raise
                self._outage.failed(error, {"job_id": self._job_id})
            else:
                self._outage.worked()
                return
            await asyncio.sleep(RETRY_SECONDS)

    def _note_unstored(self, end: str) -> None:
        """Keep beside the rest of the log how the job ended."""
        self.unstored_end = end
        rescue = RescueFile(None)
        rescue.path = self._rescue_path
        rescue.add(f"[job {self._job_id} ended: {end}; the store doesn't know that]\n")
        where = f"; {rescue.path} says so too" if rescue.path else ""
        logger.error("the end of job %s isn't stored: %s%s", self._job_id, end, where)
