"""Which figures are compared, and how they are named. Pure, so that nothing of the store is imported to list them."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure of the store."""

    name: str
    unit: str
    is_more_better: bool = True


@dataclass(frozen=True, slots=True)
class Kind:
    """The figures that one command compares."""

    figures: tuple[Figure, ...]
    #: Seconds that a side takes for all of them in a round, roughly.
    seconds: float


def _less(name: str, unit: str) -> Figure:
    return Figure(name, unit, is_more_better=False)


STORE = Kind(
    (
        Figure("append, batches", "events/s"),
        Figure("append, 100 tasks on one job", "events/s"),
        Figure("append, one task", "events/s"),
        Figure("read", "events/s"),
        Figure("LogWriter, line by line", "lines/s"),
        Figure("LogWriter, line by line, a secret", "lines/s"),
        Figure("LogWriter, 64 KiB at a time", "lines/s"),
        Figure("LogWriter, 1,000 secrets, pieces of 100 bytes", "MB/s"),
        Figure("LogWriter, 1,000 secrets, pieces of 4,096 bytes", "MB/s"),
        Figure("mask 1,000 secrets", "MB/s"),
        Figure("verify", "jobs/s"),
        Figure("append to many jobs, 64 partitions", "events/s"),
        Figure("create jobs that wait, 64 partitions", "jobs/s"),
        Figure("run no-op jobs, 64 partitions", "jobs/s"),
        Figure("first page of a listing, 64 partitions", "pages/s"),
        Figure("verify, 64 partitions", "jobs/s"),
        _less("idle controller, one partition", "commands/s"),
        _less("idle controller, 64 partitions", "commands/s"),
    ),
    seconds=40,
)
LIVE = Kind(
    (
        _less("delivery, median, 100 events/s", "ms"),
        _less("delivery, p99, 100 events/s", "ms"),
        _less("delivery, median, 1,000 events/s", "ms"),
        _less("delivery, p99, 1,000 events/s", "ms"),
        _less("CPU, 1,000 followers of one job, 10 events/s", "µs/event"),
        _less("CPU, 50 of 1,000 busy jobs, 1,000 events/s", "µs/event"),
        Figure("SSE, 200 clients, 100 events/s", "events/CPU s"),
        Figure("SSE, 200 clients, 1,000 events/s", "events/CPU s"),
    ),
    seconds=35,
)
PEERS = Kind(
    (
        Figure("created, awaited", "jobs/s"),
        Figure("created, 50 at once", "jobs/s"),
        Figure("no-op jobs", "jobs/s"),
        _less("start, median", "ms"),
        _less("start, p99", "ms"),
    ),
    seconds=20,
)
KINDS = {"store": STORE, "live": LIVE, "peers": PEERS}


def chosen(kind: Kind, parts: list[str]) -> tuple[Figure, ...]:
    """Return the figures whose names have one of these parts, all of them for none; LookupError if there is none."""
    found = tuple(figure for figure in kind.figures if not parts or any(part in figure.name for part in parts))
    if not found:
        raise LookupError(f"no figure has {' or '.join(parts)} in its name")
    return found
