"""SAQ, with the settings that measured best."""

import asyncio
from importlib.metadata import version

from saq import Queue, Worker

VERSIONS = f"saq {version('saq')}, redis {version('redis')}"


class Saq:
    """A queue on lists."""

    def __init__(self, queue: Queue) -> None:
        self._queue = queue

    async def enqueue(self, sent_at: float) -> None:
        await self._queue.enqueue("task", sent_at=sent_at, ttl=600)

    async def work(self, on_job, stop: asyncio.Event) -> None:
        async def task(context, *, sent_at: float) -> None:
            on_job(sent_at)

        worker = Worker(self._queue, functions=[("task", task)], concurrency=100)
        running = asyncio.create_task(worker.start())
        await stop.wait()
        await worker.stop()
        running.cancel()

    async def close(self) -> None:
        await self._queue.disconnect()


async def open_peer(url: str) -> Saq:
    """Connect."""
    queue = Queue.from_url(url)
    await queue.connect()
    return Saq(queue)
