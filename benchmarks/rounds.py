"""Measure two sides in turn, so that what else the machine does falls on both."""

import gc
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

#: Prepares, runs once against the clock, and returns its rate.
Side = Callable[[], Awaitable[float]]


class Stopwatch:
    """Seconds taken by the block of `measured()`."""

    seconds = 0.0

    def rate(self, count: int) -> float:
        """Return how many of so many things were done in a second."""
        return count / self.seconds


@contextmanager
def measured() -> Iterator[Stopwatch]:
    """Take the time of a block, with no garbage of earlier blocks to collect in it."""
    stopwatch = Stopwatch()
    gc.collect()
    started = time.perf_counter()
    yield stopwatch
    stopwatch.seconds = time.perf_counter() - started


async def take_turns(ours: Side, theirs: Side, rounds: int) -> tuple[list[float], list[float]]:
    """Run both sides in turn and return their rates; a first round warms up and doesn't count."""
    rates = [(await ours(), await theirs()) for _ in range(rounds + 1)]
    return [rate for rate, _ in rates[1:]], [rate for _, rate in rates[1:]]
