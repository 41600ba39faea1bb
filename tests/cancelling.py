"""Cancel a task at its n-th step, for every n, to see that nothing is left behind wherever that hits; or hold it."""

import asyncio
import types
from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import Any, TypeVar

T = TypeVar("T")

Scenario = Callable[[], Coroutine[Any, Any, None]]


class Steps:
    """Counts the steps of tasks, and cancels one of them at a chosen step, and at the next ones if need be."""

    def __init__(self, at: int, times: int) -> None:
        self.at = at
        self.times = times
        self.count = 0
        self.victim: asyncio.Task[None] | None = None

    @property
    def was_reached(self) -> bool:
        """Whether there were so many steps."""
        return self.count >= self.at

    def take(self) -> None:
        """Count a step."""
        self.count += 1
        if self.at <= self.count < self.at + self.times and self.victim is not None:
            self.victim.cancel()


class Counted(Coroutine[Any, Any, T]):
    """Does some work, and counts each time that it waits; the cancellation hits what it waits for then."""

    def __init__(self, work: Coroutine[Any, Any, T], steps: Steps) -> None:
        self._work = work
        self._steps = steps

    def send(self, value: Any) -> Any:
        """Go on with the work."""
        waits_for = self._work.send(value)
        self._steps.take()
        return waits_for

    def throw(self, *error: Any) -> Any:
        """Go on with the work, with an error."""
        waits_for = self._work.throw(*error)
        self._steps.take()
        return waits_for

    def close(self) -> None:
        """End the work."""
        self._work.close()

    def __await__(self) -> Generator[Any, Any, T]:
        """Do the work."""
        return self._work.__await__()


@types.coroutine
def held(
    work: Coroutine[Any, Any, T], at: int, meanwhile: Callable[[], Coroutine[Any, Any, None]]
) -> Generator[Any, Any, tuple[T, bool]]:
    """Do some work, which stands still at its n-th step until something else is done.

    Return its result, and whether it had so many steps.
    """
    count, error = 0, None
    while True:
        try:
            waits_for = work.send(None) if error is None else work.throw(error)
        except StopIteration as end:
            return end.value, count >= at
        count += 1
        if count == at:
            yield from asyncio.ensure_future(meanwhile()).__await__()
        try:
            yield waits_for
            error = None
        except BaseException as raised:  # noqa: BLE001 - it is the work's, which knows what to do
            error = raised


async def cancel_at_each_step(
    scenario: Scenario,
    check: Callable[[int], Awaitable[None]],
    *,
    of_all_tasks: bool = False,
    stride: int = 1,
    times: int = 1,
) -> int:
    """Run a scenario, cancelled at its n-th step, and check what it left, for every n until it isn't reached any more.

    With `of_all_tasks`, the steps of the tasks that it makes count as well: the scenario is cancelled in the middle of
    what they do; with `times`, it is cancelled as often in all, at the steps that follow. Return how often it was run;
    the last time it was not cancelled.
    """
    at = 1
    while True:
        steps = Steps(at, times)
        await _run(scenario, steps, of_all_tasks)
        await check(at)
        if not steps.was_reached:
            return at
        at += stride


async def _run(scenario: Scenario, steps: Steps, of_all_tasks: bool) -> None:
    loop = asyncio.get_running_loop()
    before = asyncio.all_tasks()

    def make(loop: asyncio.AbstractEventLoop, work: Any, **more: Any) -> asyncio.Task[Any]:
        return asyncio.Task(Counted(work, steps), loop=loop, **more)

    steps.victim = asyncio.create_task(Counted(scenario(), steps))
    if of_all_tasks:
        loop.set_task_factory(make)
    try:
        await asyncio.wait({steps.victim}, timeout=30)
    finally:
        loop.set_task_factory(None)
    if not steps.victim.done():
        left = [task.get_stack() for task in asyncio.all_tasks() - before]
        raise TimeoutError(f"cancelled at step {steps.at}, it doesn't end: {left}")
    if not steps.victim.cancelled():
        steps.victim.result()
