"""A process that writes numbered lines to the job `flood`, and says now and then how many are stored for sure.

Arguments: the server's address, how many lines.
"""

import asyncio
import sys
from hashlib import blake2b

from ci_eventstore.repository import RedisJobRepository

LINE_BYTES = 80
HEAD_BYTES = 1024 * 1024
STEP = 100_000


def line(number: int) -> str:
    """Return a line, of which hardly more than the number's zeros can be compressed."""
    return f"{number:012d} {blake2b(number.to_bytes(8), digest_size=33).hexdigest()}\n"


async def main() -> None:
    """Write; a writer that is closed has stored everything."""
    count = int(sys.argv[2])
    async with RedisJobRepository.from_url(sys.argv[1], max_head_bytes=HEAD_BYTES) as repository:
        for start in range(0, count, STEP):
            end = min(count, start + STEP)
            async with repository.log_writer("flood") as writer:
                for number in range(start, end):
                    await writer.write(line(number))
            print(end, flush=True)  # noqa: T201 - what the test reads


if __name__ == "__main__":
    asyncio.run(main())
