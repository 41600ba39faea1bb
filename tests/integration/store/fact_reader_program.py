"""Read facts for a group until it is killed, and write each down, then acknowledge; given URL, group, file, seconds."""

import asyncio
import json
import os
import sys
import time
from contextlib import aclosing

from ci_eventstore.errors import FactReaderReplacedError
from ci_eventstore.facts.reader import FactBatch
from ci_eventstore.repository import RedisJobRepository


def write_down(batch: FactBatch, file: int) -> None:
    """Write a line for each fact, and for a gap, in one step; lines of several readers can be put in order."""
    lines: list[dict[str, object]] = [{"gap": batch.partition, "at": time.monotonic_ns()}] if batch.has_gap else []
    for fact in batch.facts:
        told = {"id": fact.id, "job": fact.job_id, "kind": fact.kind.name, "status": fact.status.value}
        lines.append({**told, "at": time.monotonic_ns()})
    os.write(file, "".join(json.dumps(line) + "\n" for line in lines).encode())


async def main(url: str, group: str, path: str, lease_seconds: float) -> None:
    """Read for ever."""
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    async with RedisJobRepository.from_url(url, partitions=3) as repository:
        while True:
            async with aclosing(repository.subscribe(group, lease_seconds=lease_seconds, limit=3)) as batches:
                try:
                    async for batch in batches:
                        write_down(batch, file)
                        await batch.acknowledge()
                except FactReaderReplacedError:
                    continue


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], sys.argv[3], float(sys.argv[4])))
