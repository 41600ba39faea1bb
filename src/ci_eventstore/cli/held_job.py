"""A job that `run` holds, as the store has it: its lease is renewed, its log written, its end stored."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from datetime import datetime
from types import TracebackType
from typing import Self

from ci_common.errors import LeaseLostError, RepositoryError
from ci_common.models import JobEvent
from ci_common.transitions import ENDED
from ci_eventstore.cli.output import say
from ci_eventstore.errors import LogNotStoredError, OutcomeUnknownError, StoreUnavailableError
from ci_eventstore.job_writer import JobWriter
from ci_eventstore.keys import NO_QUEUE
from ci_eventstore.queues.claimed import Claim
from ci_eventstore.repository import RedisJobRepository
from ci_eventstore.tasks import begin
from ci_eventstore.writer.log_writer import LogWriter
from ci_eventstore.writer.losses import telling_losses
from ci_eventstore.writer.mask_lines import MaskLines
from ci_eventstore.writer.time_limit import TimeLimit

logger = logging.getLogger("ci_eventstore.cli")
#: How long the store is waited for, unless someone wants this program to end.
PATIENCE_SECONDS = 600.0
RETRY_SECONDS = 0.5

Step = Callable[[], Awaitable[None]]


class Holding:
    """Renews the lease of a held job until it is left; notifies when someone wants the job cancelled, or has ended it.

    It keeps trying while the store is away: nobody else would go on with the job.
    """

    def __init__(
        self,
        repository: RedisJobRepository,
        claim: Claim,
        lease_seconds: float,
        *,
        on_cancel: Callable[[], None],
        on_lost: Callable[[], None],
    ) -> None:
        self._repository = repository
        self._claim = claim
        self._lease_seconds = lease_seconds
        self._on_cancel = on_cancel
        self._on_lost = on_lost
        self._is_over = False
        self._checking: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        """Renew and listen from now on. This starts a thread: start the command first."""
        tell = asyncio.get_running_loop().call_soon_threadsafe
        self._keeper = self._repository.keep_leases(self._lease_seconds, lambda _, answer: tell(self._hear, answer))
        self._keeper.start()
        self._keeper.hold(NO_QUEUE, self._claim)
        engine = self._repository.engine
        self._subscription = engine.nodes.subscription(self._on_message, lambda channels: self._keeper.look())
        self._subscription.listen(engine.keys.job(self._claim.job_id).queue(NO_QUEUE).channel)
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop renewing and listening."""
        self._is_over = True
        await self._subscription.close()
        if self._checking is not None:
            self._checking.cancel()
            await asyncio.gather(self._checking, return_exceptions=True)
        await self._keeper.stop()

    def end(self) -> None:
        """Notify no more: from now on this process ends the job itself."""
        self._is_over = True

    def _on_message(self, channel: str, message: bytes) -> None:
        if message.decode("utf-8", "replace") == f"cancel {self._claim.job_id}":
            self._keeper.look()

    def _hear(self, answer: str) -> None:
        if self._is_over:
            return
        if answer == "cancel":
            self._on_cancel()
        elif answer == "lost":
            # Or the store was away for long: go on trying.
            self._keeper.hold(NO_QUEUE, self._claim)
            if self._checking is None or self._checking.done():
                self._checking = begin(self._check(), logger, "looking whether the job was ended")

    async def _check(self) -> None:
        try:
            state = await self._repository.engine.jobs.state(self._claim.job_id)
        except RepositoryError:
            return
        if not self._is_over and (state is None or state.claim != str(self._claim)):
            self._is_over = True
            self._keeper.let_go(self._claim)
            self._on_lost()


class JobLog:
    """A `LogWriter` that reports when it gives up, and then puts further output into the rescue file."""

    def __init__(self, writer: LogWriter, register: Callable[[str], None] = lambda secret: None) -> None:
        """Write through a log writer; `register` gets each secret that the command names."""
        #: Why the log isn't complete, known once this is closed.
        self.failure: LogNotStoredError | None = None
        #: Whether the output stands at the beginning of a line.
        self.ends_a_line = True
        self._writer = writer
        self._register = register
        self._lines = MaskLines(self._add_secret)
        self._is_hurried = False

    async def __aenter__(self) -> Self:
        """Start storing."""
        await self._writer.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Store what is left, if need be in the rescue file."""
        await self._pass_on(self._lines.finish())
        try:
            await self._writer.__aexit__(kind, error, traceback)
        except LogNotStoredError as failure:
            self.failure = failure

    async def write(self, piece: bytes) -> None:
        """Take output; wait only when too much of it isn't stored yet."""
        await self._pass_on(self._lines.take(piece))

    def hurry(self, seconds: float) -> None:
        """Give the store at most `seconds` for each chunk from now on."""
        self._is_hurried = True
        self._writer.hurry(seconds)

    def _add_secret(self, secret: str) -> None:
        self._writer.add_secret(secret)
        self._register(secret)

    async def _pass_on(self, piece: bytes) -> None:
        if not piece:
            return
        self.ends_a_line = piece.endswith(b"\n")
        # It is in the rescue file then, as `report` says.
        with suppress(LogNotStoredError):
            await self._writer.write(piece)

    async def report(self) -> None:
        """Warn when nothing is stored any more; return once the whole log is stored, or part of it never will be."""
        failure = await self._writer.until_over()
        if failure is not None:
            where = f"but kept in {failure.path}" if failure.path else "nor could it be kept in a local file"
            goes_on = "" if self._is_hurried else "; the command goes on"
            what = f"the rest of the output is not stored in the log of job {failure.job_id}, {where}{goes_on}"
            say(f"warning: {what}: {failure.__cause__}")


class JobEnd:
    """Stores the end of one job under its claim, however long the store is away."""

    def __init__(
        self,
        repository: RedisJobRepository,
        writer: JobWriter,
        job_id: str,
        limit: TimeLimit,
        ended_at: datetime | None,
    ) -> None:
        """Give lines that are added the time at which the job's output ended, if that is known."""
        self._repository = repository
        self._writer = writer
        self._ended_at = ended_at
        self._job_id = job_id
        self._limit = limit
        #: Whether a write that got no answer may have ended the job.
        self._is_unknown = False

    async def store(self, steps: Sequence[Step]) -> None:
        """Repeat each step until the store has taken it; the last one ends the job.

        Raises LeaseLostError if someone else has ended the job, TimeoutError at the limit, and RepositoryError.
        """
        async with self._limit.hold():
            give_up_at = asyncio.get_running_loop().time() + PATIENCE_SECONDS
            for step in steps:
                await self._insist(telling_losses(self._job_id, step, self._add_line), give_up_at)

    async def _insist(self, step: Step, give_up_at: float) -> None:
        is_told = False
        while True:
            try:
                return await step()
            except LeaseLostError:
                if self._is_unknown and await self._has_ended():
                    return None
                raise
            except (OutcomeUnknownError, StoreUnavailableError) as error:
                self._is_unknown = self._is_unknown or isinstance(error, OutcomeUnknownError)
                if asyncio.get_running_loop().time() > give_up_at:
                    raise
                if not is_told:
                    say(f"warning: the end of job {self._job_id} waits for the store: {error}")
                is_told = True
            await asyncio.sleep(RETRY_SECONDS)

    async def _has_ended(self) -> bool:
        job = await self._repository.get_job_summary(self._job_id)
        return job is not None and job.status in ENDED and job.status != "failed"

    async def _add_line(self, line: str) -> None:
        await self._writer.append([JobEvent("log", line, timestamp=self._ended_at)])
