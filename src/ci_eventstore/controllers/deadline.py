"""A time until which things may take."""

import asyncio
from contextlib import suppress


class Deadline:
    """The time until which things may take, one after the other; there is none until someone sets one."""

    def __init__(self) -> None:
        self._at: float | None = None
        self._current: asyncio.Timeout | None = None

    def shorten(self, seconds: float) -> None:
        """Let nothing take longer than `seconds` from now, including what is under way."""
        at = asyncio.get_running_loop().time() + seconds
        self._at = at if self._at is None else min(at, self._at)
        if self._current is not None and not self._current.expired():
            # It may be over.
            with suppress(RuntimeError):
                self._current.reschedule(self._at)

    def left(self) -> float | None:
        """Return how many seconds are left; None if there is no deadline."""
        return None if self._at is None else max(self._at - asyncio.get_running_loop().time(), 0.0)

    def hold(self) -> asyncio.Timeout:
        """Hold what happens inside `async with` to the deadline; TimeoutError."""
        self._current = asyncio.timeout_at(self._at)
        return self._current
