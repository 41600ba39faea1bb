"""A controller that writes down what it does: a JSON line for each claim, one before and one after each deed.

Argument: a JSON object, the fields of `Order`. It ends with its standard input, or on SIGTERM as a controller should.
"""

import asyncio
import contextlib
import json
import os
import random
import signal
import sys
import threading
from collections.abc import Awaitable, Iterator
from dataclasses import dataclass

from ci_common.errors import ConflictError, NotFoundError, RepositoryError
from ci_common.models import JobEvent
from ci_eventstore.connection import connections
from ci_eventstore.controllers import ClaimedJob, Controller, ControllerSettings
from ci_eventstore.errors import (
    AcknowledgedEventsLostError,
    OutcomeUnknownError,
    StoreError,
    StoreUnavailableError,
)
from ci_eventstore.repository import RedisJobRepository
from tests.claim_history import What
from tests.history import Outcome

CONCURRENCY = 4


@dataclass(frozen=True, slots=True)
class Order:
    """What the controller is to be."""

    url: str
    name: str
    journal: str
    seed: int
    lease_seconds: float
    #: For how long a connection waits for an answer.
    answer_seconds: float
    #: The longest pause between two lines of a job.
    pause_seconds: float


class Journal:
    """A file that has every line as soon as it was written, whatever becomes of the process."""

    def __init__(self, order: Order) -> None:
        self._file = os.open(order.journal, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self._name = order.name
        self._deeds = 0

    def note(self, **what: object) -> None:
        """Write a line."""
        os.write(self._file, json.dumps(what).encode() + b"\n")

    def got(self, job: ClaimedJob) -> None:
        """Note a claim."""
        self.note(controller=self._name, job=job.job.id, epoch=job.claim.epoch, attempts=job.attempts)

    def begin(self, job: ClaimedJob, what: What, line: str = "", source: str = "") -> int:
        """Note that a deed begins, and return its number."""
        self._deeds += 1
        head = {"controller": self._name, "job": job.job.id, "epoch": job.claim.epoch, "deed": self._deeds}
        self.note(**head, what=what, line=line, source=source)
        return self._deeds

    def end(self, deed: int, outcome: Outcome) -> None:
        """Note how a deed ended."""
        self.note(deed=deed, outcome=outcome.value)

    @contextlib.contextmanager
    def deed(self, job: ClaimedJob, what: What, line: str = "") -> Iterator[list[Outcome]]:
        """Note the body's beginning and how it ends, which stands in the list then.

        A zombie that is refused goes on, so nothing is raised for that.
        """
        number, outcome = self.begin(job, what, line), list[Outcome]()
        try:
            yield outcome
        except OutcomeUnknownError:
            outcome.append(Outcome.UNKNOWN)
        except (AcknowledgedEventsLostError, ConflictError, NotFoundError, StoreUnavailableError):
            outcome.append(Outcome.REFUSED)
        else:
            outcome.append(Outcome.ACKNOWLEDGED)
        self.end(number, outcome[0])


class Worker:
    """Works on jobs as their numbers and its seed say."""

    def __init__(self, order: Order, journal: Journal) -> None:
        self._order = order
        self._journal = journal

    async def work(self, job: ClaimedJob) -> None:
        """Write lines in two ways, now and then beyond what is allowed, and end the job in one of many ways."""
        self._journal.got(job)
        chance = random.Random(f"{self._order.seed} {job.job.id} {job.claim.epoch}")
        logged: list[int] = []
        try:
            for number in range(chance.randint(1, 5)):
                await self._write(job, f"{number}")
                line = f"{job.claim.epoch} log {number}"
                logged.append(self._journal.begin(job, What.LINE, line, "log"))
                await job.write(f"{line}\n")
                await asyncio.sleep(chance.uniform(0, self._order.pause_seconds))
        except asyncio.CancelledError:
            await self._write(job, "last words")
            raise
        await self._end(job, chance.random(), logged)

    async def _write(self, job: ClaimedJob, what: str) -> None:
        line = f"{job.claim.epoch} event {what}"
        with self._journal.deed(job, What.LINE, line):
            await job.writer.append([JobEvent("log", f"{line}\n")])

    async def _end(self, job: ClaimedJob, way: float, logged: list[int]) -> None:
        if way < 0.1 and job.attempts < 5:
            stored = await self._try_to(What.RELEASE, job, job.release())
        elif way < 0.2:
            stored = await self._try_to(What.FAIL, job, job.fail("as planned"))
        elif way < 0.4:
            stored = await self._try_to(What.NOT_SUCCEED, job, job.complete(success=False))
        elif way < 0.8:
            stored = await self._try_to(What.SUCCEED, job, job.complete())
        else:
            self._journal.begin(job, What.LEAVE)
            return
        for deed in logged if stored else ():
            # An end that was acknowledged stands behind everything in the log.
            self._journal.end(deed, Outcome.ACKNOWLEDGED)

    async def _try_to(self, what: What, job: ClaimedJob, end: Awaitable[None]) -> bool:
        with self._journal.deed(job, what) as outcome:
            await end
        return outcome == [Outcome.ACKNOWLEDGED]


async def main(order: Order) -> None:
    """Be a controller until SIGTERM."""
    connections.PINNED["socket_timeout"] = order.answer_seconds
    settings = ControllerSettings(
        concurrency=CONCURRENCY,
        lease_seconds=order.lease_seconds,
        max_attempts=1000,
        poll_seconds=0.5,
        grace_seconds=1.0,
    )
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    # The journal's file says that it can be stopped.
    worker = Worker(order, Journal(order))
    while not stopped.is_set():
        with contextlib.suppress(StoreError):
            # The server may be away at the beginning.
            async with RedisJobRepository.from_url(order.url) as repository:
                await run(repository, order, settings, worker, stopped)


async def run(
    repository: RedisJobRepository,
    order: Order,
    settings: ControllerSettings,
    worker: Worker,
    stopped: asyncio.Event,
) -> None:
    """Run a controller, and stop it when asked to."""
    async with Controller(repository, name=order.name, settings=settings) as controller:
        stopping = asyncio.create_task(stopped.wait())
        stopping.add_done_callback(lambda _: controller.stop())
        await controller.run(worker.work)
        stopping.cancel()


def end_with_input() -> None:
    """End at once when nobody holds the other end of the standard input any more."""
    os.read(0, 1)
    os._exit(1)


if __name__ == "__main__":
    threading.Thread(target=end_with_input, daemon=True).start()
    with contextlib.suppress(RepositoryError):
        asyncio.run(main(Order(**json.loads(sys.argv[1]))))
        sys.exit(0)
    sys.exit(2)
