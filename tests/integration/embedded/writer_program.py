"""A process that appends to a stream as fast as it can, and says how far the server has acknowledged it."""

import asyncio
import sys
from itertools import count
from pathlib import Path

from redis import exceptions
from redis.asyncio import Redis

from ci_eventstore.embedded import EmbeddedServer
from tests.integration.embedded.clients import client_of

BATCH = 20
TEXT = b"x" * 16384


async def append_batch(client: Redis, first: int) -> None:
    """Append entries first, first + 1, …; those that an earlier try appended are refused, which is fine."""
    pipeline = client.pipeline(transaction=False)
    for number in range(first, first + BATCH):
        pipeline.xadd("log", {"text": TEXT}, id=f"{number}-1")
    for reply in await pipeline.execute(raise_on_error=False):
        if isinstance(reply, Exception) and "equal or smaller" not in str(reply):
            raise reply


async def main() -> None:
    """Append until killed."""
    async with client_of(EmbeddedServer(Path(sys.argv[1]))) as client:
        for first in count(1, BATCH):
            while True:
                try:
                    await append_batch(client, first)
                    break
                except (exceptions.ConnectionError, exceptions.TimeoutError):
                    continue
            print(first + BATCH - 1, flush=True)  # noqa: T201 - what is acknowledged


if __name__ == "__main__":
    asyncio.run(main())
