"""How long something may take, told while it is under way."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager


class TimeLimit:
    """Lets things take as long as they need, until someone shortens that."""

    def __init__(self) -> None:
        self._seconds: float | None = None
        self._current: asyncio.Timeout | None = None

    def shorten(self, seconds: float) -> None:
        """From now on, let nothing take longer, counted from its beginning; what is under way, counted from now."""
        self._seconds = seconds if self._seconds is None else min(seconds, self._seconds)
        if self._current is not None and not self._current.expired():
            until = asyncio.get_running_loop().time() + self._seconds
            ends_at = self._current.when()
            self._current.reschedule(until if ends_at is None else min(until, ends_at))

    @asynccontextmanager
    async def hold(self) -> AsyncGenerator[None, None]:
        """Hold what happens inside to the limit; TimeoutError."""
        async with asyncio.timeout(self._seconds) as timeout:
            self._current = timeout
            try:
                yield
            finally:
                self._current = None
