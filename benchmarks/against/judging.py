"""Judge one figure that was taken at two commits, from the ratios of all rounds. Pure.

The interval is that of the sign test: two of the ordered values, as many places from either end, enclose the
distribution's median with a probability that is the binomial one of coins thrown, whatever the distribution is. See
Conover, Practical Nonparametric Statistics (3rd edition), section 3.2, or Le Boudec, Performance Evaluation of Computer
and Communication Systems, theorem 2.1.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from math import comb
from statistics import median

#: Fewer rounds give an interval that one in eight times doesn't hold the median.
FEWEST_ROUNDS = 5
CONFIDENCE = 0.95
#: A difference that nobody minds.
MARGIN = 0.05


class Verdict(StrEnum):
    """How this checkout's figure compares with the other's."""

    #: The whole interval lies below the margin.
    WORSE = "WORSE"
    BETTER = "better"
    #: The whole interval lies within the margin.
    SAME = "same"
    #: The rounds differ too much to tell; more of them may.
    UNCLEAR = "unclear"


@dataclass(frozen=True, slots=True)
class Interval:
    """Where the median of ratios lies, and how surely."""

    low: float
    high: float
    confidence: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """One figure at both commits, in rounds that took turns."""

    what: str
    unit: str
    is_more_better: bool
    here: Sequence[float]
    there: Sequence[float]

    @property
    def ratios(self) -> list[float]:
        """How many times better this checkout was, for each round: above 1 is better, whatever the unit."""
        pairs = zip(self.here, self.there, strict=True)
        return [here / there if self.is_more_better else there / here for here, there in pairs]

    @property
    def ratio(self) -> float:
        """The median of the ratios."""
        return median(self.ratios)

    @property
    def interval(self) -> Interval:
        """The interval of the ratios' median."""
        return interval_of_median(self.ratios)

    @property
    def verdict(self) -> Verdict:
        """What the interval says."""
        return judge(self.interval)


def interval_of_median(values: Sequence[float]) -> Interval:
    """Return the narrowest interval that is 95 % sure; of five values, from the lowest to the highest (93.8 %)."""
    if len(values) < FEWEST_ROUNDS:
        raise ValueError(f"{len(values)} rounds are too few for an interval: take {FEWEST_ROUNDS} or more")
    ordered, left_out = sorted(values), 0
    while confidence_of(len(ordered), left_out + 1) >= CONFIDENCE:
        left_out += 1
    return Interval(ordered[left_out], ordered[-1 - left_out], confidence_of(len(ordered), left_out))


def confidence_of(count: int, left_out: int) -> float:
    """Return how probably the median lies within so many values without `left_out` of them at either end."""
    tail = sum(comb(count, heads) for heads in range(left_out + 1))
    return float(max(0.0, 1 - 2 * tail / 2**count))


def judge(interval: Interval) -> Verdict:
    """Return what an interval of ratios says, where more is better; a loss of 5 % is a ratio of 0.95, a gain 1.05."""
    if interval.high < 1 - MARGIN:
        return Verdict.WORSE
    if interval.low > 1 + MARGIN:
        return Verdict.BETTER
    if interval.low >= 1 - MARGIN and interval.high <= 1 + MARGIN:
        return Verdict.SAME
    return Verdict.UNCLEAR
