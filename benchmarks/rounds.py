"""Measure two sides in turn, so that what else the machine does falls on both."""

import gc
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(slots=True)
class Lap:
    """How long so many things took."""

    count: float
    seconds: float = 0.0


#: Prepares, runs once against the clock, and returns what it took.
Side = Callable[[], Awaitable[Lap]]


@contextmanager
def lap_of(count: float) -> Iterator[Lap]:
    """Take the time of a block that does so many things."""
    lap = Lap(count)
    started = time.perf_counter()
    yield lap
    lap.seconds = time.perf_counter() - started


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
