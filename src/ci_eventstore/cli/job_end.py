"""Store the end of a job that `run` holds, however long the store is away."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime

from ci_common.errors import LeaseLostError
from ci_common.models import JobEvent
from ci_common.transitions import ENDED
from ci_eventstore.cli.messages import say
from ci_eventstore.errors import OutcomeUnknownError, StoreUnavailableError
from ci_eventstore.job_writer import JobWriter
from ci_eventstore.repository import RedisJobRepository
from ci_eventstore.writer.losses import telling_losses
from ci_eventstore.writer.time_limit import TimeLimit

#: How long the store is waited for, unless someone wants this program to end.
PATIENCE_SECONDS = 600.0
RETRY_SECONDS = 0.5

Step = Callable[[], Awaitable[None]]


class JobEnd:
    """Writes the last events of one job, under its claim."""

    def __init__(
        self,
        repository: RedisJobRepository,
        writer: JobWriter,
        job_id: str,
        limit: TimeLimit,
        ended_at: datetime | None,
    ) -> None:
        """Say when the job's output ended, if that is known: lines that are added then have that time."""
        self._repository = repository
        self._writer = writer
        self._ended_at = ended_at
        self._job_id = job_id
        self._limit = limit
        #: Whether a write may have ended the job, without saying so.
        self._is_unknown = False

    async def store(self, steps: Sequence[Step]) -> None:
        """Do one step after the other, each until the store has taken it; the last one ends the job.

        LeaseLostError when someone else has ended it, TimeoutError when the store may not be waited for any more,
        RepositoryError.
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
