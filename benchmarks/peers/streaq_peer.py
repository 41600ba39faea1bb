"""streaQ on streams, its results not kept, with the settings that measured best."""

import asyncio
from contextlib import AsyncExitStack
from importlib.metadata import version

from streaq import Worker

VERSIONS = f"streaq {version('streaq')}, coredis {version('coredis')}"


class Streaq:
    """A worker with one task; it also creates the jobs."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._open = AsyncExitStack()
        self._on_job = None

        async def task(sent_at: float) -> None:
            self._on_job(sent_at)

        self._task = worker.task(task, name="task", silent=True, ttl=0)

    async def start(self) -> None:
        await self._open.enter_async_context(self._worker)

    async def enqueue(self, sent_at: float) -> None:
        await self._task.enqueue(sent_at)

    async def work(self, on_job, stop: asyncio.Event) -> None:
        self._on_job = on_job
        await self._open.aclose()
        running = asyncio.create_task(self._worker.run_async())
        await stop.wait()
        running.cancel()
        await asyncio.wait({running}, timeout=1)

    async def close(self) -> None:
        await self._open.aclose()


async def open_peer(url: str) -> Streaq:
    """Connect."""
    peer = Streaq(Worker(redis_url=url, concurrency=16, handle_signals=False))
    await peer.start()
    return peer
