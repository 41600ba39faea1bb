"""Bring things to their end although the task that waits for them is cancelled, within a time that is given."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

logger = logging.getLogger("ci_eventstore.controllers")

T = TypeVar("T")


async def finish(work: Coroutine[Any, Any, T], on_cancel: Callable[[], None] = lambda: None) -> T:
    """Await work to its end in a task of its own; raise a cancellation that came meanwhile only then.

    `on_cancel` is called at each cancellation. Work that could take long has to be shortened by that.
    """
    task, cancelled = asyncio.create_task(work), None
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError as error:
            cancelled = error
            on_cancel()
    if cancelled is None:
        return task.result()
    if not task.cancelled() and (failure := task.exception()) is not None:
        logger.warning("what was to be done before a cancellation failed: %s", failure)
    raise cancelled


class Deadline:
    """The time until which things may take; there is none until someone sets one, also while they are under way."""

    def __init__(self) -> None:
        self._at: float | None = None
        self._timeouts: set[asyncio.Timeout] = set()

    def shorten(self, seconds: float) -> None:
        """Let nothing take longer than so many seconds from now."""
        at = asyncio.get_running_loop().time() + seconds
        self._at = at if self._at is None else min(at, self._at)
        for timeout in self._timeouts:
            if not timeout.expired():
                timeout.reschedule(self._at)

    def left(self) -> float | None:
        """Return how many seconds are left; None if there is no deadline."""
        return None if self._at is None else max(self._at - asyncio.get_running_loop().time(), 0.0)

    @asynccontextmanager
    async def hold(self) -> AsyncGenerator[None, None]:
        """Hold what happens inside to the deadline; TimeoutError."""
        async with asyncio.timeout_at(self._at) as timeout:
            self._timeouts.add(timeout)
            try:
                yield
            finally:
                self._timeouts.discard(timeout)
