"""One failover after the other: everybody goes on, no loss is untold, and nothing piles up in the process.

`make soak` has two hundred of them, or as many as CI_EVENTSTORE_FAILOVERS says, and a process beside this one whose
memory is watched: this one's grows by what it notes to check.
"""

import asyncio
import contextlib
import gc
import itertools
import json
import logging
import os
import statistics
import sys
from asyncio.subprocess import PIPE, Process
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from ci_eventstore.connection.connections import RedisPy, RenewablePool
from tests.deployments.breaking import SITES, ClusterSite, SentinelSite
from tests.deployments.load import open_load

logger = logging.getLogger("tests.failovers")

IS_SOAK = os.environ.get("CI_EVENTSTORE_SOAK") == "1"
FAILOVERS = int(os.environ.get("CI_EVENTSTORE_FAILOVERS") or 200) if IS_SOAK else 5
#: Failovers after which everything that is made once has been made: connections to each server that was a primary.
SETTLED = FAILOVERS // 2 if IS_SOAK else 0
#: What a process may have open, for two repositories with 32 connections to each of six servers.
MOST = {"sockets": 400, "strays": 200, "busy": 200, "tasks": 200, "parts": 20_000, "objects": 3_000}
#: What a connection is made of. A pool keeps each that was ever needed at once, closed or open, until it has 32: the
#: busier the machine, the later it has all that it will ever have.
PARTS = (
    "redis.",
    "ci_eventstore.connection.connections",
    "asyncio.streams",
    "asyncio.selector_events",
    "asyncio.trsock",
    "asyncio.events",
    "_asyncio",
)
#: Whose objects are counted beside these; events and what tests note of them grow.
COUNTED = ("ci_eventstore.connection", "ci_eventstore.following", "asyncio.", "_asyncio")
#: What may not grow in the second half of a soak: sockets that are in no pool, connections that a pool has handed out.
STEADY = ("strays", "busy", "tasks", "objects")
#: Connections that happen to be open when one looks, and tasks on their way.
SLACK = 16
#: By how many bytes the memory of a process at steady work may grow with each failover of a soak's second half: what
#: Python has noted of its objects, and what the system has given it. A connection takes 20,000.
MOST_GROWTH = {"traced": 1_000, "anonymous": 10_000}
#: Fewer don't show it: on a cluster, pools are filled for some thirty of them, and memory comes and goes by 200,000.
ENOUGH_FOR_MEMORY = 200
ROOT = Path(__file__).parents[3]

pytestmark = [pytest.mark.slow, pytest.mark.needs("/proc"), pytest.mark.timeout(5400 if IS_SOAK else 240)]


@pytest.fixture(params=["sentinel", "cluster-valkey9"])
def site(request: pytest.FixtureRequest) -> Iterator[SentinelSite | ClusterSite]:
    with SITES[request.param]() as opened:
        assert isinstance(opened, SentinelSite | ClusterSite)
        yield opened


def count() -> dict[str, int]:
    """Count what the process has open, and the objects that belong to connections, followers and tasks."""
    gc.collect()
    targets = list[str]()
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            targets.append(os.readlink(entry))
    found = gc.get_objects()
    kinds = Counter(str(type(one).__module__) for one in found)
    pools = [one for one in found if type(one) is RenewablePool]
    sockets = sum(target.startswith("socket:") for target in targets)
    return {
        "sockets": sockets,
        "strays": sockets - sum(one.is_connected for pool in pools for one in RedisPy.connections_of(pool)),
        "busy": sum(len(pool._in_use_connections) for pool in pools),
        "tasks": len(asyncio.all_tasks()),
        "parts": sum(number for module, number in kinds.items() if module.startswith(PARTS)),
        "objects": sum(
            number for module, number in kinds.items() if module.startswith(COUNTED) and not module.startswith(PARTS)
        ),
    }


async def census(log: pytest.LogCaptureFixture) -> dict[str, int]:
    """Count several times, and return the least: calls are always on their way."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, type(log.handler)):
            # Errors that it keeps would keep the frames through which they came.
            handler.reset()
    counts = list[dict[str, int]]()
    for _ in range(5):
        counts.append(count())
        await asyncio.sleep(0.02)
    return {kind: min(one[kind] for one in counts) for kind in MOST}


def grows(counts: Sequence[int]) -> bool:
    """Tell whether the second half of the counts is above the first, by more than what comes and goes."""
    half = len(counts) // 2
    return statistics.median(counts[half:]) > statistics.median(counts[:half]) * 1.05 + SLACK


class Steady:
    """A process at steady work, which measures itself."""

    def __init__(self, process: Process) -> None:
        self._process = process

    async def ask(self, what: str = "measure") -> dict[str, Any]:
        """Return what it says of itself; see `steady_program`."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{what}\n".encode())
        found: dict[str, Any] = json.loads(await self._process.stdout.readline())
        return found


@contextlib.asynccontextmanager
async def at_steady_work(url: str) -> AsyncIterator[Steady]:
    """Start the process, and wait until it works; it ends with the block.

    A failover that came before might lose the jobs that it has just created, and nobody creates them again.
    """
    command = [sys.executable, "-m", "tests.deployments.steady_program", url, "steady"]
    process = await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE, cwd=ROOT)
    try:
        steady = Steady(process)
        await steady.ask()
        yield steady
    finally:
        assert process.stdin is not None
        process.stdin.close()
        await process.wait()


def growth(values: Sequence[float]) -> float:
    """Return by how much each value is above the one before it: the median of the slopes between any two."""
    pairs = itertools.combinations(enumerate(values), 2)
    return statistics.median((last - first) / (end - start) for (start, first), (end, last) in pairs)


def check_memory(measured: Sequence[dict[str, Any]]) -> None:
    """Assert that a process that has worked all the time has as much memory at the end as half-way."""
    second_half = measured[SETTLED:]
    assert all(second_half[-1][what] > second_half[0][what] for what in ("lines", "events", "jobs"))
    grown = {kind: growth([one[kind] for one in second_half]) for kind in MOST_GROWTH}
    logger.warning("growth with each failover: %s", grown)
    assert FAILOVERS < ENOUGH_FOR_MEMORY or {kind: by for kind, by in grown.items() if by > MOST_GROWTH[kind]} == {}, (
        measured[-1]["grown"]
    )


async def test_failovers_in_a_row(
    site: SentinelSite | ClusterSite, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Every other one because the primary is killed; what only that one had may be lost, and its writer is told."""
    counts, measured = list[dict[str, int]](), list[dict[str, Any]]()
    async with contextlib.AsyncExitStack() as stack:
        steady = await stack.enter_async_context(at_steady_work(site.url)) if IS_SOAK else None
        load = await stack.enter_async_context(open_load(site.url, tmp_path, writers=3, controllers=1, may_lose=True))
        await load.progress()
        for number in range(FAILOVERS):
            load.begin_silence()
            await (site.kill() if number % 2 else site.fail_over())
            await load.progress()
            counts.append(await census(caplog))
            if steady is not None:
                measured.append(await steady.ask("mark" if number == SETTLED - 1 else "measure"))
            silences = {kind: round(silence.longest, 2) for kind, silence in load.silence.items()}
            memory = {kind: measured[-1][kind] for kind in MOST_GROWTH} if measured else ""
            logger.warning("failover %d: %s, longest silences %s %s", number + 1, counts[-1], silences, memory)
        if steady is not None:
            measured.append(await steady.ask("explain"))
        assert await load.findings() == {}
    assert [kind for kind, most in MOST.items() if max(one[kind] for one in counts) > most] == []
    if IS_SOAK:
        assert [kind for kind in STEADY if grows([one[kind] for one in counts[SETTLED:]])] == []
        check_memory(measured)
