"""What every queue is measured by. It runs in a virtual environment with that queue alone, so it needs nothing else.

    python harness.py QUEUE ROLE URL COUNT

Roles: `create` puts jobs into the queue, one by one, then 50 at once; `drain` runs what is there; `send` creates 50
jobs a second while `listen`, in another process, runs them. Each prints its figures as JSON.
"""

import asyncio
import importlib
import json
import os
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

AT_ONCE = 50
JOBS_PER_SECOND = 50

#: Called in a job, with the time at which it was created.
OnJob = Callable[[float], None]


class Peer(Protocol):
    """A queue, opened for one process."""

    async def enqueue(self, sent_at: float) -> None:
        """Create a job that carries a time."""

    async def work(self, on_job: OnJob, stop: asyncio.Event) -> None:
        """Run jobs, each of which calls `on_job`, until told to stop."""

    async def close(self) -> None:
        """Close what was opened."""


async def create(peer: Peer, count: int) -> dict[str, Any]:
    """Create jobs, half of them one after the other."""
    started = time.monotonic()
    for _ in range(count // 2):
        await peer.enqueue(0.0)
    awaited = time.monotonic()
    for _ in range(count // 2 // AT_ONCE):
        await asyncio.gather(*(peer.enqueue(0.0) for _ in range(AT_ONCE)))
    ended = time.monotonic()
    return {"awaited": count // 2 / (awaited - started), "at_once": count // 2 / (ended - awaited)}


async def drain(peer: Peer, count: int) -> dict[str, Any]:
    """Run jobs that do nothing, and time them from the first one's start to the last one's."""
    times: list[float] = []
    stop = asyncio.Event()

    def on_job(sent_at: float) -> None:
        times.append(time.monotonic())
        if len(times) == count:
            stop.set()

    await peer.work(on_job, stop)
    return {"drain": (count - 1) / (times[-1] - times[0])}


async def send(peer: Peer, count: int) -> dict[str, Any]:
    """Create jobs at a low rate."""
    started = time.monotonic()
    for number in range(count):
        await asyncio.sleep(max(0.0, started + number / JOBS_PER_SECOND - time.monotonic()))
        await peer.enqueue(time.monotonic())
    return {}


async def listen(peer: Peer, count: int) -> dict[str, Any]:
    """Run jobs, and time each from the beginning of its creation to its start. The clock is the machine's."""
    waits: list[float] = []
    stop = asyncio.Event()

    def on_job(sent_at: float) -> None:
        waits.append((time.monotonic() - sent_at) * 1000)
        if len(waits) == count:
            stop.set()

    print("ready", flush=True)
    await peer.work(on_job, stop)
    waits.sort()
    return {"median_ms": waits[len(waits) // 2], "p99_ms": waits[int(len(waits) * 0.99)]}


ROLES: dict[str, Callable[[Peer, int], Awaitable[dict[str, Any]]]] = {
    "create": create,
    "drain": drain,
    "send": send,
    "listen": listen,
}


async def main(queue: str, role: str, url: str, count: int) -> None:
    """Play one role."""
    module = importlib.import_module(f"{queue}_peer")
    peer: Peer = await module.open_peer(url)
    figures = await ROLES[role](peer, count)
    await peer.close()
    print(json.dumps({**figures, "versions": module.VERSIONS}), flush=True)
    # Some workers don't end when they are told to.
    os._exit(0)


if __name__ == "__main__":
    import uvloop

    uvloop.run(main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])))
