"""Rebuild a whole store again and again, until it is killed; given its URL."""

import asyncio
import sys

from ci_eventstore.repository import RedisJobRepository


async def main(url: str) -> None:
    async with RedisJobRepository.from_url(url) as repository:
        while True:
            await repository.rebuild()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
