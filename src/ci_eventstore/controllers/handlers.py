"""The tasks in which handlers run jobs: none of them outlives the block that began it."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self

from ci_common.errors import RepositoryError
from ci_eventstore.controllers.claimed_job import CANCELLED_SECONDS, ClaimedJob
from ci_eventstore.tasks import finish

logger = logging.getLogger("ci_eventstore.controllers")

#: An interrupted handler may take this long to end; stopping a command takes up to half of it.
HANDLER_SECONDS = 30.0
#: The same in a hurry, and until when a job's end has to be stored then.
HURRY_SECONDS = 3.5
STORE_SECONDS = 3.0
#: Tasks that are to end are checked this often.
LOOK_SECONDS = 0.1

#: Runs a claimed job, and returns False if that failed; its answer is ignored if it has ended the job itself.
Handler = Callable[[ClaimedJob], Awaitable[bool | None]]


class Handlers:
    """Owns handlers' tasks. Leaving the block waits for them during a time of grace, then interrupts them.

    An exception or a cancellation interrupts them at once. If an interrupted handler doesn't end, its job is given up,
    and nobody waits for the task any more.
    """

    def __init__(self, handler: Handler, grace_seconds: float, give_up: Callable[[ClaimedJob], None]) -> None:
        self._handler = handler
        self._grace_seconds = grace_seconds
        self._give_up = give_up
        self._tasks: dict[ClaimedJob, asyncio.Task[None]] = {}
        self._is_grace_over = asyncio.Event()
        self._is_cut_short = False
        #: When jobs that are left are given up, their ends stored or not; None unless there is a hurry.
        self._ends_at: float | None = None

    def begin(self, job: ClaimedJob) -> None:
        """Run a job in a task of its own."""
        job.is_owned = True
        self._tasks[job] = asyncio.create_task(self._run(job))

    async def _run(self, job: ClaimedJob) -> None:
        try:
            async with job:
                job.success = await self._handler(job) is not False
        except RepositoryError as error:
            logger.error("a job couldn't be ended: %s", error, extra={"job_id": job.job.id})
        except Exception:
            logger.exception("a job couldn't be ended", extra={"job_id": job.job.id})
        finally:
            self._tasks.pop(job, None)

    def hurry(self) -> None:
        """End the time of grace, and give the store STORE_SECONDS for what is left."""
        if self._ends_at is None:
            self._ends_at = asyncio.get_running_loop().time() + HURRY_SECONDS
        self._is_grace_over.set()
        for job in self._tasks:
            job.hurry(STORE_SECONDS)

    async def __aenter__(self) -> Self:
        """Begin with no tasks."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Return when all tasks have ended or are given up."""
        if error is not None:
            self._cut_short()
        await finish(self._end(), self._cut_short)

    def _cut_short(self) -> None:
        """End the time of grace and interrupt all handlers, because the caller was cancelled."""
        self._is_cut_short = True
        self._is_grace_over.set()
        for job in self._tasks:
            job.interrupt()

    async def _end(self) -> None:
        await self._grace()
        began = asyncio.get_running_loop().time()
        hurried: set[ClaimedJob] = set()
        for job in self._tasks:
            job.interrupt()
        while self._tasks:
            await asyncio.wait(self._tasks.values(), timeout=LOOK_SECONDS)
            now = asyncio.get_running_loop().time()
            for job, task in list(self._tasks.items()):
                if task.done():
                    # It was cancelled before it began.
                    del self._tasks[job]
                elif self._is_late(job, began, now):
                    self._abandon(task, job)
                elif self._is_cut_short and not job.body.is_inside and job not in hurried:
                    hurried.add(job)
                    job.hurry(CANCELLED_SECONDS)

    def _is_late(self, job: ClaimedJob, began: float, now: float) -> bool:
        is_stubborn = job.body.is_inside and now > began + HANDLER_SECONDS
        return is_stubborn or (self._ends_at is not None and now > self._ends_at)

    async def _grace(self) -> None:
        """Wait until all tasks have ended, or the time of grace is over."""
        over = asyncio.create_task(self._is_grace_over.wait())
        try:
            async with asyncio.timeout(self._grace_seconds):
                while not over.done() and (tasks := [task for task in self._tasks.values() if not task.done()]):
                    await asyncio.wait({over, *tasks}, return_when=asyncio.FIRST_COMPLETED)
        except TimeoutError:
            pass
        finally:
            over.cancel()

    def _abandon(self, task: asyncio.Task[None], job: ClaimedJob) -> None:
        """Give up a job, cancel its task once more, and stop waiting for it."""
        del self._tasks[job]
        _give_up_if_inside(job, self._give_up)
        self._give_up(job)
        task.cancel()


def give_up_in_time(job: ClaimedJob, give_up: Callable[[ClaimedJob], None]) -> None:
    """Give up a job that is about to be interrupted if its handler doesn't end within HANDLER_SECONDS."""
    if not job.body.is_wanted:
        asyncio.get_running_loop().call_later(HANDLER_SECONDS, _give_up_if_inside, job, give_up)


def _give_up_if_inside(job: ClaimedJob, give_up: Callable[[ClaimedJob], None]) -> None:
    """Give up a job whose handler goes on after the interrupt, and log that."""
    if job.body.is_inside and not job.is_over:
        logger.error(
            "the handler of job %s doesn't end: the job is given up, and goes to others when its lease runs out",
            job.job.id,
        )
        give_up(job)
