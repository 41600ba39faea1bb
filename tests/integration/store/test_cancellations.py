"""Cancellation at every await: no handler goes on, no lease is left, each job waits again or has ended."""

import asyncio
import itertools
from collections.abc import Callable, Iterator

import pytest

from ci_common.errors import LeaseLostError
from ci_common.models import Job
from ci_eventstore.connection.nodes import Nodes
from ci_eventstore.controllers import ClaimedJob, Controller, ControllerSettings
from ci_eventstore.errors import MachineError
from ci_eventstore.repository import RedisJobRepository
from tests import claims
from tests.cancelling import cancel_at_each_step
from tests.waiting import wait_until

SETTINGS = ControllerSettings(concurrency=2, lease_seconds=30, poll_seconds=0.05, grace_seconds=0.05)
#: A test that takes over a second looks at each of these steps only; the slow ones at all.
STRIDE = 13


class Scene:
    """Jobs in a queue, handlers that run them, and what is left of both."""

    def __init__(self, repository: RedisJobRepository, server: Nodes) -> None:
        self.repository = repository
        self.server = server
        self.alive: set[str] = set()
        self.jobs: list[str] = []
        self._numbers: Iterator[int] = itertools.count()
        self._tasks: set[asyncio.Task[object]] = set()

    async def submit(self, count: int) -> None:
        """Create jobs, those of earlier runs being over."""
        self.jobs = [f"j{next(self._numbers):05}" for _ in range(count)]
        for job_id in self.jobs:
            await self.repository.create_job(Job(id=job_id, status="queued"))
        self._tasks = asyncio.all_tasks()

    async def run(self, controller: Controller, how: str) -> None:
        """Run the jobs; each handler is alive from its beginning to its end."""
        seen: set[str] = set()

        async def handler(job: ClaimedJob) -> bool:
            assert job.job.id not in self.alive, "it runs twice at once"
            self.alive.add(job.job.id)
            seen.add(job.job.id)
            try:
                await job.write("line\n")
                await asyncio.sleep(0.002)
                if how == "stopped" or seen == set(self.jobs):
                    controller.stop()
                if how == "stopped":
                    await asyncio.sleep(3600)
                if how == "raises":
                    raise ValueError("as planned")
                if how == "completes":
                    await job.complete()
            finally:
                try:
                    await asyncio.sleep(0)
                finally:
                    self.alive.discard(job.job.id)
            return True

        await controller.run(handler)

    async def check(self, at: int) -> None:
        """Assert that nothing is left, and end the jobs that wait."""
        assert not self.alive, f"step {at}: handlers go on"
        assert await self.server.read("ZCARD", "{ci:0}:leases:default") == 0, f"step {at}: a lease is left"
        for job_id in self.jobs:
            job = await self.repository.get_job_summary(job_id)
            assert job is not None
            assert job.status in ("queued", "completed", "failed"), f"step {at}: {job_id} is {job.status}"
            assert await self.repository.verify(job_id) == []
            if job.end_time is None:
                await self.repository.cancel_job(job_id)
        await wait_until(lambda: not self._left(), seconds=5)

    def _left(self) -> set[asyncio.Task[object]]:
        """Return tasks that were left, but for connections that the repository keeps."""
        return asyncio.all_tasks() - self._tasks


async def run_controller(scene: Scene, how: str, *, of_all_tasks: bool, stride: int) -> int:
    async def scenario() -> None:
        async with Controller(scene.repository, name="it", settings=SETTINGS) as controller:
            await scene.run(controller, how)

    async def check(at: int) -> None:
        await scene.check(at)
        await scene.submit(3)

    await scene.submit(3)
    return await cancel_at_each_step(scenario, check, of_all_tasks=of_all_tasks, stride=stride)


@pytest.fixture
def scene(repository: RedisJobRepository, server: Nodes) -> Scene:
    return Scene(repository, server)


async def test_a_controller_that_is_cancelled_leaves_nothing(scene: Scene) -> None:
    """At every await of its own task."""
    assert await run_controller(scene, "returns", of_all_tasks=False, stride=1) > 3


async def test_a_controller_that_is_cancelled_while_its_handlers_work_leaves_nothing(scene: Scene) -> None:
    """At some of the awaits of all its tasks."""
    assert await run_controller(scene, "returns", of_all_tasks=True, stride=STRIDE) > STRIDE


@pytest.mark.slow
@pytest.mark.parametrize("how", ["returns", "raises", "completes", "stopped"])
async def test_a_controller_may_be_cancelled_at_any_moment(scene: Scene, how: str) -> None:
    """At every await of all its tasks, whatever its handlers do."""
    assert await run_controller(scene, how, of_all_tasks=True, stride=1) > 20


async def body(job: ClaimedJob, how: str) -> None:
    await job.write("line\n")
    await asyncio.sleep(0)
    match how:
        case "complete":
            await job.complete()
        case "release":
            await job.release()
        case "fail":
            await job.fail("as planned")
        case "raise":
            raise ValueError("as planned")
        case "hand back":
            raise MachineError("the disk is full")
        case "cancel":
            job.interrupt(cancelled=True)
            await asyncio.sleep(3600)
        case "lose":
            raise LeaseLostError(job.job.id)


WAYS = ["leave", "complete", "release", "fail", "raise", "hand back", "cancel"]


@pytest.mark.parametrize("how", WAYS)
async def test_a_claimed_job_that_is_cancelled_is_given_back_or_ended(scene: Scene, how: str) -> None:
    """At every await, whichever way it was about to end."""
    jobs: list[ClaimedJob] = []

    async def scenario() -> None:
        async with jobs[-1] as job:
            await body(job, how)

    async def prepare() -> None:
        await scene.submit(1)
        if how == "cancel":
            await claims.claim(scene.repository, "default", "it", 1, 30.0)
            await scene.server.read("HINCRBY", "{ci:0}:clock", "now", 60_000)
        [claimed] = await claims.claim(scene.repository, "default", "it", 1, 30.0)
        jobs.append(ClaimedJob(scene.repository, claimed))
        if how == "cancel":
            await scene.repository.cancel_job(scene.jobs[0], "as planned")

    async def check(at: int) -> None:
        assert jobs[-1].is_over
        job = await scene.repository.get_job_summary(scene.jobs[0])
        if how == "cancel" and job is not None and job.status == "cancelled":
            assert await scene.server.read("ZCARD", "{ci:0}:leases:default") == 0
        else:
            await scene.check(at)
        await prepare()

    await prepare()
    assert await cancel_at_each_step(scenario, check) > 2
    await jobs[-1].release()


@pytest.mark.parametrize("end", ["timeout", "sibling", "close"])
async def test_no_handler_outlives_what_it_was_run_in(repository: RedisJobRepository, server: Nodes, end: str) -> None:
    """A timeout around `run`, a task beside it that fails, a body that raises: another one gets the job after that."""
    await repository.create_job(Job(id="j", status="queued"))
    alive: list[str] = []
    began = asyncio.Event()

    async def handler(job: ClaimedJob) -> None:
        alive.append("first")
        began.set()
        try:
            await asyncio.sleep(3600)
        finally:
            # It takes a while to stop what it has started.
            await asyncio.sleep(0.05)
            alive.remove("first")

    async def next_handler(job: ClaimedJob) -> None:
        assert alive == []
        other.stop()

    with pytest.raises((TimeoutError, ExceptionGroup, ValueError)):
        await ENDS[end](Controller(repository, settings=SETTINGS), handler, began)
    assert alive == []
    assert await server.read("ZCARD", "{ci:0}:leases:default") == 0
    async with asyncio.timeout(10), Controller(repository, settings=SETTINGS) as other:
        await other.run(next_handler)


async def by_timeout(controller: Controller, handler: Callable[..., object], began: asyncio.Event) -> None:
    async with asyncio.timeout(0.5), controller:
        await controller.run(handler)  # type: ignore[arg-type]


async def by_sibling(controller: Controller, handler: Callable[..., object], began: asyncio.Event) -> None:
    async def fail() -> None:
        await began.wait()
        raise ValueError("as planned")

    async with controller, asyncio.TaskGroup() as group:
        group.create_task(controller.run(handler))  # type: ignore[arg-type]
        group.create_task(fail())


async def by_closing(controller: Controller, handler: Callable[..., object], began: asyncio.Event) -> None:
    async with controller:
        running = asyncio.create_task(controller.run(handler))  # type: ignore[arg-type]
        await began.wait()
        running.add_done_callback(lambda task: task.exception())
        raise ValueError("as planned")


ENDS = {"timeout": by_timeout, "sibling": by_sibling, "close": by_closing}
