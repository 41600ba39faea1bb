"""Whatever comes between two turns of the event loop, a controller that nobody wakes again begins all jobs it has."""

import asyncio
import random
from collections.abc import Sequence
from unittest.mock import Mock, patch

from hypothesis import given
from hypothesis import strategies as st

from ci_common.models import JobStatus, utc_now
from ci_eventstore.controllers import ClaimedJob, Controller, ControllerSettings
from ci_eventstore.controllers import controller as controller_module
from ci_eventstore.controllers.controller import TURNS_TO_LEAVE
from ci_eventstore.controllers.intake import Intake
from ci_eventstore.jobs.state import JobState
from ci_eventstore.keys import QueueKeys
from ci_eventstore.queues.asking import Take
from ci_eventstore.queues.claimed import Claimed, as_claimed
from ci_eventstore.queues.claimer import Claimer, Heard

#: So many turns nothing takes.
ENOUGH = 500
JOBS = 20


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


class Queue:
    """A queue and one controller's claimer in it: answers and messages take turns of the event loop."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.waiting: list[str] = []
        self.is_offering = False
        self.epochs: dict[str, int] = {}
        self.begun: list[str] = []
        self.tasks = asyncio.TaskGroup()

    def create(self, controller: Controller, job_id: str) -> None:
        """Give the job to the controller if an offer stands in its partition; else tell it that one waits."""
        heard = Heard()
        if self.is_offering and self.chance.random() < 0.5:
            self.is_offering, heard = False, Heard(given=self.claimed(job_id))
        else:
            self.waiting.append(job_id)

        async def tell() -> None:
            await self.pause()
            controller._hear(heard)

        self.tasks.create_task(tell())

    def claimed(self, job_id: str) -> Claimed:
        self.epochs[job_id] = self.epochs.get(job_id, 0) + 1
        epoch = self.epochs[job_id]
        state = JobState(created_at=utc_now(), status=JobStatus.QUEUED, epoch=epoch, claim=f"{epoch} token")
        return as_claimed(QueueKeys("default", "{ci:0}"), job_id, state)

    async def begins(self, count: int) -> None:
        """Wait until so many jobs have begun; AssertionError if one lies there and nobody is woken for it."""
        for _ in range(ENOUGH):
            if len(self.begun) >= count:
                return
            await asyncio.sleep(0)
        raise AssertionError(f"job {count - 1} hasn't begun")

    async def pause(self) -> None:
        """Take as many turns as an answer or a message may."""
        await turns(self.chance.choice([0, 0, 0, 1, 1, 2, 3, 5]))

    async def claim(self, count: int, *, is_idle: bool, take: Take) -> list[Claimed]:
        """Answer as `Claimer.claim` does; an offer may go on beside jobs that are found."""
        await self.pause()
        found = [self.claimed(job_id) for job_id in self.waiting[:count]]
        del self.waiting[:count]
        is_kept = is_idle and self.is_offering and self.chance.random() < 0.5
        self.is_offering = is_kept if found else is_idle and count > 0
        await self.pause()
        take(found)
        return found

    async def withdraw(self, seconds: float) -> Sequence[Claimed]:
        """Take an offer back that has brought nothing."""
        return []


async def run_all(chance: random.Random, count: int, concurrency: int) -> Queue:
    """Create so many jobs; return what became of them once nothing happens any more."""
    settings = ControllerSettings(concurrency=concurrency, poll_seconds=3600.0)
    controller, queue = Controller(Mock(), settings=settings), Queue(chance)

    def begin(job: ClaimedJob) -> None:
        queue.begun.append(job.job.id)
        queue.tasks.create_task(end(job))

    async def end(job: ClaimedJob) -> None:
        await queue.pause()
        controller._drop(job)

    async def give_back(jobs: Sequence[ClaimedJob]) -> None:
        for job in jobs:
            await end(job)
            queue.create(controller, job.job.id)

    async def take_claims() -> None:
        async for job in controller.claims():
            begin(job)

    controller._intake = Intake(Mock(Claimer, wraps=queue), controller._take_over)
    controller._handlers = Mock(begin=begin)
    controller._give_back = give_back  # type: ignore[method-assign]
    async with queue.tasks:
        working = queue.tasks.create_task(take_claims())
        for number in range(count):
            # Some come while others are being taken, some when all have begun.
            if chance.random() < 0.8:
                await queue.begins(number)
            await turns(chance.randint(0, 6))
            queue.create(controller, f"{number}")
        await turns(ENOUGH)
        working.cancel()
    assert controller.running == {}
    return queue


@given(st.integers(0, 2**32), st.integers(1, 3), st.sampled_from([TURNS_TO_LEAVE, 10 * TURNS_TO_LEAVE]))
def test_no_job_is_left_lying(seed: int, concurrency: int, to_leave: int) -> None:
    """It came by an answer or a message, before, while or after others were asked for: it begins, once, and ends."""
    # The same turns take less time than an answer, or more.
    with patch.object(controller_module, "TURNS_TO_LEAVE", to_leave):
        queue = asyncio.run(run_all(random.Random(seed), JOBS, concurrency))
    assert (sorted(queue.begun, key=int), queue.waiting) == ([f"{number}" for number in range(JOBS)], [])
