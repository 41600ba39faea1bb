"""taskiq-redis on streams, without results, with the settings that measured best."""

import asyncio
from importlib.metadata import version

from taskiq.api import run_receiver_task
from taskiq_redis import RedisStreamBroker

VERSIONS = f"taskiq {version('taskiq')}, taskiq-redis {version('taskiq-redis')}, redis {version('redis')}"


class Taskiq:
    """A broker with one task."""

    def __init__(self, broker: RedisStreamBroker) -> None:
        self._broker = broker
        self._on_job = None

        async def task(sent_at: float) -> None:
            self._on_job(sent_at)

        self._task = broker.register_task(task, task_name="task")

    async def enqueue(self, sent_at: float) -> None:
        await self._task.kiq(sent_at)

    async def work(self, on_job, stop: asyncio.Event) -> None:
        self._on_job = on_job
        receiver = run_receiver_task(self._broker, max_async_tasks=16, max_prefetch=16, validate_params=False)
        running = asyncio.create_task(receiver)
        await stop.wait()
        running.cancel()
        # It doesn't end by that.
        await asyncio.wait({running}, timeout=1)

    async def close(self) -> None:
        await self._broker.shutdown()


async def open_peer(url: str) -> Taskiq:
    """Connect."""
    # From the beginning: by default a group sees only what comes after it was made.
    broker = RedisStreamBroker(url, consumer_id="0")
    await broker.startup()
    return Taskiq(broker)
