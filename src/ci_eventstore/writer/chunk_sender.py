"""Store the chunks of a log, one after the other, whatever the server does meanwhile."""

import asyncio
import logging
import time
from datetime import UTC, datetime
from typing import Protocol

from ci_common.models import JobEvent
from ci_eventstore.connection.outage_log import Outages
from ci_eventstore.errors import (
    AcknowledgedEventsLostError,
    OutcomeUnknownError,
    StoreError,
    StoreFullError,
    StoreUnavailableError,
)
from ci_eventstore.events.caller import Call, JobCaller
from ci_eventstore.writer.chunks import Chunk

logger = logging.getLogger("ci_eventstore.writer")

#: What a log says where the server forgot events that it had acknowledged.
LOST_LINE = "[events that were acknowledged before this line were lost by the server]\n"
#: How soon a chunk is sent again that the store didn't take.
RETRY_SECONDS = 0.5
#: How long the store is asked whether it still has what it took last.
LOOK_BACK_SECONDS = 2.0


class LogSink(Protocol):
    """Where a `LogWriter` puts a job's log."""

    @property
    def caller(self) -> JobCaller:
        """Who makes the writer's calls."""

    @property
    def outages(self) -> Outages:
        """What keeps failing, for all writers of a process."""

    async def append(self, event: JobEvent, call: Call) -> None:
        """Append an event, whose time is when its text came; the same call again has its effect once."""

    async def has_call(self, token: str, number: int) -> bool:
        """Tell whether a call that was acknowledged is there still."""


class ChunkSender:
    """Sends one writer's chunks; where the server has lost some that it had taken, the log gets a line that says so."""

    def __init__(self, job_id: str, sink: LogSink, patience_seconds: float) -> None:
        """Give up on a chunk after `patience_seconds` without an answer."""
        self._job_id = job_id
        self._sink = sink
        self._caller = sink.caller
        self._patience_seconds = patience_seconds

    async def send(self, chunk: Chunk) -> None:
        """Store a chunk with the time at which it came, through outages: the same call again has its effect once.

        RepositoryError.
        """
        came_at = datetime.fromtimestamp(chunk.came_at, UTC)
        started, call, lost_line = time.monotonic(), self._caller.next_call(), ""
        try:
            while True:
                try:
                    await self._sink.append(JobEvent("log", lost_line + chunk.text, timestamp=came_at), call)
                except AcknowledgedEventsLostError as error:
                    self._caller.note_error(call, error)
                    call, lost_line = self._caller.next_call(), LOST_LINE
                    log_loss(self._job_id)
                except (OutcomeUnknownError, StoreUnavailableError) as error:
                    if time.monotonic() - started > self._patience_seconds:
                        raise
                    self._warn_of_waiting(error)
                    await asyncio.sleep(RETRY_SECONDS)
                else:
                    break
        except BaseException as error:
            self._caller.note_error(call, error)
            raise
        self._caller.note_done(call)

    async def look_back(self) -> None:
        """Ask the store for the last chunk, whose loss no further one will find out. RepositoryError."""
        last = self._caller.last_call()
        if last is None:
            return
        try:
            async with asyncio.timeout(LOOK_BACK_SECONDS):
                is_there = await self._sink.has_call(*last)
        except (StoreError, TimeoutError):
            # It was stored; whether it still is can't be said now.
            return
        if not is_there:
            # The call says that it comes after the lost one, and is refused for that.
            await self.send(Chunk("", time.time()))

    def _warn_of_waiting(self, error: StoreError) -> None:
        """Say that the log waits, for all writers together once a minute for each kind of reason."""
        kind = "full" if isinstance(error, StoreFullError) else ""
        outage = self._sink.outages.of(logger, "the log waits: %s", kind=kind)
        outage.failed(_reason(error), {"job_id": self._job_id})


def log_loss(job_id: str) -> None:
    """Log that the server has lost acknowledged writes to a job."""
    logger.warning("the server lost acknowledged events", extra={"job_id": job_id})


def _reason(error: StoreError) -> str:
    if isinstance(error, StoreFullError):
        return "the store is full"
    return "the store gives no answer" if type(error) is OutcomeUnknownError else str(error)
