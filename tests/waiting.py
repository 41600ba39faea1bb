"""Wait in a test for what other tasks bring about."""

import asyncio
from collections.abc import Callable

#: What other tasks of this process bring about takes fewer turns of them.
TURNS = 100


async def wait_until(predicate: Callable[[], bool], seconds: float = 30.0) -> None:
    """Return soon after the predicate holds, letting other tasks run meanwhile; TimeoutError if it never does."""
    turns = 0
    async with asyncio.timeout(seconds):
        while not predicate():
            turns += 1
            # What takes longer than some turns takes time, and a whole CPU is better left to others.
            await asyncio.sleep(0 if turns < TURNS else 0.002)
