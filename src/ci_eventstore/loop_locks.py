"""A lock in each event loop, since one that was waited for in a loop can't be waited for in another one."""

import asyncio
from weakref import WeakKeyDictionary


class LoopLocks:
    """Keeps apart those who run in the same event loop: `async with locks.current:`."""

    def __init__(self) -> None:
        self._by_loop: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = WeakKeyDictionary()

    @property
    def current(self) -> asyncio.Lock:
        """The lock of the running event loop."""
        return self._by_loop.setdefault(asyncio.get_running_loop(), asyncio.Lock())
