"""Wait in a test for what other tasks bring about."""

import asyncio
from collections.abc import Callable


async def wait_until(predicate: Callable[[], bool], seconds: float = 30.0) -> None:
    """Return as soon as the predicate holds, letting other tasks run meanwhile; TimeoutError if it never does."""
    async with asyncio.timeout(seconds):
        while not predicate():  # noqa: ASYNC110 - what is waited for is any condition, not one that sets an event
            await asyncio.sleep(0)
