"""Cancel a coroutine at each of its waits in turn, and see what it leaves behind."""

import asyncio
import os
from collections.abc import Awaitable, Callable, Coroutine, Generator
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.waiting import wait_until


class _CancelledAt:
    """Awaits something, and cancels the task that does so at its n-th wait."""

    def __init__(self, work: Coroutine[Any, Any, object], waits: int, times: int) -> None:
        self._work, self._waits, self._times = work, waits, times
        self.count = 0

    def __await__(self) -> Generator[Any, Any, object]:
        task = asyncio.current_task()
        assert task is not None
        error: BaseException | None = None
        while True:
            try:
                waited_for = self._work.send(None) if error is None else self._work.throw(error)
            except StopIteration as end:
                return end.value
            self.count += 1
            if self._waits <= self.count < self._waits + self._times:
                task.cancel()
            try:
                yield waited_for
                error = None
            except BaseException as raised:  # noqa: BLE001 - passed on
                error = raised


async def cancel_everywhere(
    work: Callable[[], Coroutine[Any, Any, object]],
    check: Callable[[int], Awaitable[None]],
    *,
    times: int = 1,
    limit: int = 200,
) -> int:
    """Run some work again and again, cancelled at its first wait, its second …; return how many waits it has.

    With `times` it is cancelled as often again in the waits that follow. After each run, `check` is called with the
    number of the wait.
    """
    for waits in range(1, limit):
        run = _CancelledAt(work(), waits, times)

        async def drive(run: _CancelledAt = run) -> None:
            await run

        task = asyncio.create_task(drive())
        with suppress(asyncio.CancelledError):
            await task
        if run.count < waits:
            return waits - 1
        await check(waits)
    raise AssertionError(f"it waits more than {limit} times")


def descriptors() -> set[str]:
    """Return what this process has open, but for what the asking itself opens."""
    found = set[str]()
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            found.add(f"{name} {os.readlink(f'/proc/self/fd/{name}')}")
    return {one for one in found if "/proc/" not in one}


def children() -> set[int]:
    """Return the processes that this one has started and not collected."""
    found = set[int]()
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            if path.read_text(errors="replace").rpartition(")")[2].split()[1] == str(os.getpid()):
                found.add(int(path.parent.name))
    return found


async def nothing_is_left(before: tuple[set[str], set[int]], what: str) -> None:
    """Wait until no more is open than before, and no other child is left, dead or alive."""
    try:
        await wait_until(lambda: descriptors() <= before[0] and children() <= before[1], 10)
    except TimeoutError:
        raise AssertionError(f"{what}: {descriptors() - before[0]}, {children() - before[1]}") from None
