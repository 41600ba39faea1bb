"""A time until which things may take."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager


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
