"""Take the figures of the store, on one server, with whatever `ci_eventstore` this process imports.

What a figure needs is imported with it: a commit that lacks a module lacks the figures that need it, and no more.
"""

import asyncio
import gc
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from functools import cache, partial
from typing import TYPE_CHECKING

from benchmarks.rounds import SERVERS, Lap, Side
from benchmarks.scale import FULL, Scale
from benchmarks.sides import Sides, open_sides

if TYPE_CHECKING:
    from benchmarks.masking import Masking

SCALE = replace(FULL, long_job=50_000, verified_jobs=1_000, written_lines=100_000, idle_seconds=4.0)
#: So long a figure's laps take together, at least, beside the first one, which warms up.
LAPS_SECONDS = 0.5

Take = Callable[["Stage"], Awaitable[float]]


class Stage:
    """A server with both sides connected to it."""

    def __init__(self, url: str, sides: Sides, seconds: float, *, is_by_cpu: bool) -> None:
        self.url = url
        self.sides = sides
        self.scale = sides.scale
        self._seconds = seconds
        self._is_by_cpu = is_by_cpu

    async def rate(self, side: Side) -> float:
        """Return how many things a side does in a second, or in one of CPU time, over as many laps as it takes."""
        await side()
        gc.collect()
        whole = Lap(0)
        while whole.seconds < self._seconds:
            lap = await side()
            whole.count += lap.count
            whole.seconds += lap.cpu_seconds if self._is_by_cpu else lap.seconds
        return whole.count / whole.seconds


def _appending(method: str) -> Take:
    async def take(stage: Stage) -> float:
        from benchmarks.appending import Appending

        return await stage.rate(getattr(Appending(stage.sides), method))

    return take


async def _reading(stage: Stage) -> float:
    from benchmarks.reading import fill, reading

    return await stage.rate(reading(stage.sides, await fill(stage.sides)))


def _lines(*secrets: str) -> Take:
    async def take(stage: Stage) -> float:
        from benchmarks.log_writing import LogWriting

        return await stage.rate(LogWriting(stage.sides).line_by_line(secrets))

    return take


async def _pieces(stage: Stage) -> float:
    from benchmarks.log_writing import LogWriting

    return await stage.rate(LogWriting(stage.sides).pieces)


@cache
def _masker(scale: Scale) -> "Masking":
    """Return the secrets, prepared: that takes longer than a lap."""
    from benchmarks.masking import Masking

    return Masking(scale)


def _masked_writing(size: int) -> Take:
    async def take(stage: Stage) -> float:
        return await stage.rate(_masker(stage.scale).writing(stage.sides, size))

    return take


async def _masking(stage: Stage) -> float:
    return await stage.rate(_masker(stage.scale).alone(4096))


def _verifying(partitions: int) -> Take:
    async def take(stage: Stage) -> float:
        from benchmarks.partitions import verification

        async with AsyncExitStack() as stack:
            return await stage.rate(await verification(stage.url, partitions, stage.scale, stack))

    return take


def _partitioned(method: str) -> Take:
    async def take(stage: Stage) -> float:
        from benchmarks.partitions import open_store

        async with open_store(stage.url, stage.scale.partitions, stage.scale) as store:
            return await stage.rate(getattr(store, method))

    return take


def _idle(partitions: int) -> Take:
    async def take(stage: Stage) -> float:
        from benchmarks.partitions import idle_commands

        return await idle_commands(stage.url, partitions, stage.scale)

    return take


TAKES: dict[str, Take] = {
    "append, batches": _appending("batches"),
    "append, 100 tasks on one job": _appending("tasks"),
    "append, one task": _appending("awaited"),
    "read": _reading,
    "LogWriter, line by line": _lines(),
    "LogWriter, line by line, a secret": _lines("s3cr3t-token"),
    "LogWriter, 64 KiB at a time": _pieces,
    "LogWriter, 1,000 secrets, pieces of 100 bytes": _masked_writing(100),
    "LogWriter, 1,000 secrets, pieces of 4,096 bytes": _masked_writing(4096),
    "mask 1,000 secrets": _masking,
    "verify": _verifying(1),
    "append to many jobs, 64 partitions": _partitioned("appends"),
    "create jobs that wait, 64 partitions": _partitioned("creations"),
    "run no-op jobs, 64 partitions": _partitioned("runs"),
    "first page of a listing, 64 partitions": _partitioned("pages"),
    "verify, 64 partitions": _verifying(64),
    "idle controller, one partition": _idle(1),
    "idle controller, 64 partitions": _idle(64),
}


def take(url: str, name: str, scale: Scale = SCALE, seconds: float = LAPS_SECONDS, *, is_by_cpu: bool = False) -> float:
    """Take one figure; a rate in seconds of the CPU, if asked for: this process's and the server's together."""

    async def taken() -> float:
        async with open_sides(url, scale) as sides:
            SERVERS[:] = [int((await sides.info("server"))["process_id"])] if is_by_cpu else []
            try:
                return await TAKES[name](Stage(url, sides, seconds, is_by_cpu=is_by_cpu))
            finally:
                SERVERS.clear()

    return asyncio.run(taken())


take_by_cpu = partial(take, is_by_cpu=True)
