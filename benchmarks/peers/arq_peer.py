"""arq, polling a hundred times a second, without results."""

import asyncio
from importlib.metadata import version

from arq import create_pool, func
from arq.connections import RedisSettings
from arq.worker import Worker

VERSIONS = f"arq {version('arq')}, redis {version('redis')}"


class Arq:
    """A pool, and a worker when it is asked for."""

    def __init__(self, pool, settings: RedisSettings) -> None:
        self._pool = pool
        self._settings = settings

    async def enqueue(self, sent_at: float) -> None:
        await self._pool.enqueue_job("task", sent_at)

    async def work(self, on_job, stop: asyncio.Event) -> None:
        async def task(context, sent_at: float) -> None:
            on_job(sent_at)

        worker = Worker(
            functions=[func(task, name="task", keep_result=0)],
            redis_settings=self._settings,
            max_jobs=100,
            poll_delay=0.01,
            keep_result=0,
            handle_signals=False,
        )
        running = asyncio.create_task(worker.async_run())
        await stop.wait()
        running.cancel()
        await asyncio.wait({running})

    async def close(self) -> None:
        await self._pool.aclose()


async def open_peer(url: str) -> Arq:
    """Connect."""
    settings = RedisSettings.from_dsn(url)
    return Arq(await create_pool(settings), settings)
