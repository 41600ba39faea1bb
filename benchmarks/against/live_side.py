"""Take the figures of live following, in processes that import the `ci_eventstore` that this one does."""

from functools import cache

from benchmarks.live import stream_rows
from benchmarks.live.rows import quantile
from benchmarks.live.scale import Audience
from benchmarks.live.staging import Followed, measure

LONE = {
    "100 events/s": Audience("100 events/s", 1, 1, 1, 100, 4),
    "1,000 events/s": Audience("1,000 events/s", 1, 1, 1, 1_000, 3),
}
MANY = {
    "1,000 followers of one job, 10 events/s": Audience("", 1_000, 1, 1, 10, 4),
    "50 of 1,000 busy jobs, 1,000 events/s": Audience("", 50, 50, 1_000, 1_000, 3),
}
STREAMS = {
    "200 clients, 100 events/s": Audience("", 200, 1, 1, 100, 3),
    "200 clients, 1,000 events/s": Audience("", 200, 1, 1, 1_000, 1.5),
}


@cache
def _lone(url: str, name: str) -> Followed:
    """Follow once for both the median and the 99th percentile."""
    return measure(url, LONE[name], "ours")


def take(url: str, name: str) -> float:
    """Take one figure."""
    what, _, rest = name.partition(", ")
    match what:
        case "delivery":
            share, _, pace = rest.partition(", ")
            return quantile(_lone(url, pace).waits_ms, 0.5 if share == "median" else 0.99)
        case "CPU":
            return measure(url, MANY[rest], "ours").cpu_microseconds
        case "SSE":
            return stream_rows.measure(url, STREAMS[rest], stream_rows.OURS).rate
    raise LookupError(name)
