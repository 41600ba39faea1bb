"""pydocket, looking for tasks every millisecond, its results not kept."""

import asyncio
from datetime import timedelta
from importlib.metadata import version

from docket import Docket, Worker

VERSIONS = f"pydocket {version('pydocket')}, redis {version('redis')}"


class DocketPeer:
    """A docket with one task."""

    def __init__(self, docket: Docket) -> None:
        self._docket = docket
        self._on_job = None
        docket.register(self.task)

    async def task(self, sent_at: float) -> None:
        self._on_job(sent_at)

    async def enqueue(self, sent_at: float) -> None:
        await self._docket.add("task")(sent_at)

    async def work(self, on_job, stop: asyncio.Event) -> None:
        self._on_job = on_job
        async with Worker(self._docket, concurrency=10, minimum_check_interval=timedelta(milliseconds=1)) as worker:
            running = asyncio.create_task(worker.run_forever())
            await stop.wait()
            running.cancel()
            await asyncio.wait({running})

    async def close(self) -> None:
        await self._docket.__aexit__(None, None, None)


async def open_peer(url: str) -> DocketPeer:
    """Connect."""
    docket = Docket(name="bench", url=url, execution_ttl=timedelta(0))
    await docket.__aenter__()
    return DocketPeer(docket)
