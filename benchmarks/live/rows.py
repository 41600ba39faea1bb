"""Followers in one process: how soon events reach them, what that costs, how many there may be."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from redis import Redis

from benchmarks.live.scale import Audience, Scale
from benchmarks.live.staging import Followed, measure
from benchmarks.results import Row, Target

PEER = "XREAD BLOCK"


@dataclass(slots=True)
class Waits:
    """How long events took to a lone follower, in milliseconds: what the plot of latencies shows."""

    ours: dict[str, list[float]] = field(default_factory=dict)
    theirs: dict[str, list[float]] = field(default_factory=dict)


def take_turns(url: str, audience: Audience, rounds: int) -> list[tuple[Followed, Followed]]:
    """Measure the hub and a connection for each follower in turn."""
    return [(measure(url, audience, "ours"), measure(url, audience, "xread")) for _ in range(rounds)]


def latency_rows(url: str, scale: Scale, waits: Waits) -> list[Row]:
    """Time each event from its append in one process to a follower in another."""
    rows = []
    for audience in scale.alone:
        rounds = take_turns(url, audience, scale.rounds)
        waits.ours[audience.name] = [wait for ours, _ in rounds for wait in ours.waits_ms]
        waits.theirs[audience.name] = [wait for _, theirs in rounds for wait in theirs.waits_ms]
        for name, share in (("median", 0.5), ("p99", 0.99)):
            target = Target(1.5, is_most=True) if audience.has_target and name == "median" else None
            rows.append(_row(f"delivery, {name}, {audience.name}", "ms", rounds, _quantile_of(share), target))
    return rows


def cpu_rows(url: str, scale: Scale) -> list[Row]:
    """See what the following process's CPU does for each event that a follower is handed, and how late it is."""
    rows = []
    for audience in scale.audiences:
        rounds = take_turns(url, audience, scale.rounds)
        target = Target(0.1, is_most=True) if audience.has_target else None
        rows.append(_row(f"CPU, {audience.name}", "µs/event", rounds, lambda side: side.cpu_microseconds, target))
        rows.append(_row(f"delivery, median, {audience.name}", "ms", rounds, _quantile_of(0.5)))
    return rows


def crowd_rows(url: str, scale: Scale) -> list[Row]:
    """Let a crowd follow in one process; that all of them get everything is checked there."""
    crowd = scale.crowd
    with Redis.from_url(url) as client:
        before = len(client.client_list())
        connections: list[int] = []

        def count() -> None:
            # The producer is one of those that are connected.
            connections.append(len(client.client_list()) - before)

        found = measure(url, crowd, "ours", count)
    kib = found.peak_bytes / crowd.followers / 1024
    return [
        Row(f"{crowd.name}, memory", "KiB each", [kib], target=Target(40, is_most=True)),
        Row(f"{crowd.name}, Redis connections", "", [float(connections[0])], target=Target(40, is_most=True)),
        Row(f"{crowd.name}, delivery, median", "ms", [quantile(found.waits_ms, 0.5)]),
    ]


def quantile(values: Sequence[float], share: float) -> float:
    """Return the value that so great a share of all values is below."""
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def _quantile_of(share: float) -> Callable[[Followed], float]:
    return lambda side: quantile(side.waits_ms, share)


def _row(
    what: str,
    unit: str,
    rounds: Sequence[tuple[Followed, Followed]],
    figure: Callable[[Followed], float],
    target: Target | None = None,
) -> Row:
    ours, theirs = [figure(side) for side, _ in rounds], [figure(side) for _, side in rounds]
    return Row(what, unit, ours, PEER, theirs, target)
