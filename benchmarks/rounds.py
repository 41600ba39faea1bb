"""Measure two sides in turn, so that what else the machine does falls on both."""

import gc
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


@dataclass(slots=True)
class Lap:
    """How long so many things took."""

    count: float
    seconds: float = 0.0
    #: Of this process, and of the server if `SERVERS` names it.
    cpu_seconds: float = 0.0


#: Process ids of the servers whose CPU time counts.
SERVERS: list[int] = []

#: Prepares, runs once against the clock, and returns what it took.
Side = Callable[[], Awaitable[Lap]]


@contextmanager
def lap_of(count: float) -> Iterator[Lap]:
    """Take the time of a block that does so many things."""
    lap = Lap(count)
    started, cpu = time.perf_counter(), _cpu_seconds()
    yield lap
    lap.seconds, lap.cpu_seconds = time.perf_counter() - started, _cpu_seconds() - cpu


def _cpu_seconds() -> float:
    """Return the CPU time of this process and of the servers, which Linux counts in nanoseconds for each thread."""
    threads = (thread for pid in SERVERS for thread in Path(f"/proc/{pid}/task").iterdir())
    return time.process_time() + sum(int((thread / "schedstat").read_text().split()[0]) for thread in threads) / 1e9


async def take_turns(ours: Side, theirs: Side, rounds: int, laps: int = 1) -> tuple[list[float], list[float]]:
    """Return both sides' rates for each round, in which they take turns for some laps each.

    A first round warms up and doesn't count. No round has to collect the garbage of the one before.
    """
    rates = []
    for _ in range(rounds + 1):
        gc.collect()
        pairs = [(await ours(), await theirs()) for _ in range(laps)]
        rates.append((_rate([lap for lap, _ in pairs]), _rate([lap for _, lap in pairs])))
    return [rate for rate, _ in rates[1:]], [rate for _, rate in rates[1:]]


def _rate(laps: Sequence[Lap]) -> float:
    return sum(lap.count for lap in laps) / sum(lap.seconds for lap in laps)
