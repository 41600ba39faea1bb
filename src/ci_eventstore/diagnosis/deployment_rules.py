"""Rules for servers beside each other: Sentinels, clocks, and how partitions are spread. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from ci_eventstore.amounts import about_duration
from ci_eventstore.diagnosis.findings import Finding, error, note, ok, plural, warning

#: How far clocks may be apart: log lines in a wrong order, then leases that end early or late after a failover.
CLOCK_NOTE_SECONDS, CLOCK_WARNING_SECONDS = 1.0, 5.0
#: With fewer, none may die: a failover takes most of them.
LEAST_SENTINELS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class SentinelSeen:
    """What a Sentinel of the URL says of the primary."""

    address: str
    #: Why it said nothing; "" if it answered.
    failure: str = ""
    #: Its flags of the primary, such as `master,o_down`.
    flags: str = ""
    #: How many Sentinels it knows, and how many of them are there, itself included.
    sentinels: int = 0
    usable: int = 0
    #: How many have to take the primary for dead.
    quorum: int = 0
    #: Where the primary is.
    primary: str = ""

    @property
    def needed(self) -> int:
        """How many Sentinels a failover takes."""
        return max(self.quorum, self.sentinels // 2 + 1)


def judge_sentinels(seen: Sequence[SentinelSeen]) -> list[Finding]:
    """Return whether a failover would work, as the Sentinels see it."""
    answering = [one for one in seen if not one.failure]
    found = [
        warning("sentinels", f"the Sentinel {one.address} gives no answer: {one.failure}", "start it, or mend the URL")
        for one in seen
        if one.failure
    ]
    known = max((one.sentinels for one in answering), default=0)
    for one in answering:
        if one.usable < one.needed:
            what = (
                f"the Sentinel {one.address} sees {one.usable} of {plural(one.sentinels, 'Sentinel')}: a failover takes"
            )
            advice = "start the missing ones, and look at the network between them"
            found.append(error("sentinels", f"{what} {one.needed}", advice))
        if "down" in one.flags:
            what = f"the Sentinel {one.address} takes the primary for dead ({one.flags})"
            found.append(error("sentinels", what, "wait for the failover; if none comes, look at the Sentinels' logs"))
    if answering and known < LEAST_SENTINELS:
        what = f"there {'is' if known == 1 else 'are'} {plural(known, 'Sentinel')}: if one dies, there is no failover"
        found.append(warning("sentinels", what, f"run at least {LEAST_SENTINELS}, on machines of their own"))
    elif known > len(seen):
        what = f"the URL names {len(seen)} of {plural(known, 'Sentinel')}"
        found.append(note("sentinels", what, "name all of them, so that it works whichever of them is away"))
    primaries = sorted({one.primary for one in answering})
    if len(primaries) > 1:
        what = f"the Sentinels name several primaries: {', '.join(primaries)}"
        found.append(
            warning("sentinels", what, "wait for the end of a failover; else look at the network between them")
        )
    return found or [ok("sentinels", f"{plural(known, 'Sentinel')} can make a failover; the primary is {primaries[0]}")]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockSeen:
    """By how many seconds a server's clock is ahead of this machine's, and how wrong that may be."""

    node: str
    ahead: float
    error: float


def judge_clocks(clocks: Sequence[ClockSeen]) -> list[Finding]:
    """Return whether the servers' clocks agree with each other, and with this machine's."""
    found = list(_clock_troubles(clocks))
    if found or not clocks:
        return found
    most = max(max(abs(clock.ahead), clock.error) for clock in clocks)
    return [ok("clocks", f"within {1000 * most:.1f} ms of this machine's")]


def _clock_troubles(clocks: Sequence[ClockSeen]) -> Iterator[Finding]:
    for clock in clocks:
        apart = abs(clock.ahead) - clock.error
        if apart > CLOCK_NOTE_SECONDS:
            kind = warning if apart > CLOCK_WARNING_SECONDS else note
            word = "ahead of" if clock.ahead > 0 else "behind"
            what = f"the server's clock is {about_duration(abs(clock.ahead))} {word} this machine's"
            found = kind("clocks", f"{what}: times in logs don't fit together", "let NTP set both clocks")
            yield replace(found, node=clock.node)
    if len(clocks) > 1:
        first, last = min(clocks, key=lambda clock: clock.ahead), max(clocks, key=lambda clock: clock.ahead)
        apart = last.ahead - first.ahead - first.error - last.error
        if apart > CLOCK_NOTE_SECONDS:
            kind = warning if apart > CLOCK_WARNING_SECONDS else note
            what = f"the clocks of {first.node} and {last.node} are {about_duration(last.ahead - first.ahead)} apart"
            effect = "after a failover, limits of time are off by as much"
            yield kind("clocks", f"{what}: {effect}", "let NTP set the servers' clocks")


def judge_partitions(spread: Mapping[str, int], *, away: int, unserved: int, is_cluster: bool) -> list[Finding]:
    """Return whether each server has its share; `spread` says how many partitions each has that answers.

    Partitions are away whose server gives no answer, and slots unserved that no server has.
    """
    found = []
    if away:
        what = f"{away} of {plural(sum(spread.values()) + away, 'partition')} are away: their jobs can't be used"
        found.append(error("partitions", what, "start the servers that give no answer, or let a replica take over"))
    if unserved:
        advice = "look which master is away (`CLUSTER NODES`); `redis-cli --cluster fix` gives its slots to others"
        found.append(error("partitions", f"{plural(unserved, 'slot')} of the cluster have no server", advice))
    total, most = sum(spread.values()), max(spread.values(), default=0)
    what = f"{plural(total, 'partition')} on {plural(len(spread), 'server')}"
    if is_cluster and total < len(spread):
        advice = "`ci-eventstore copy --partitions 64` moves the store to one of more partitions"
        found.append(warning("partitions", f"{what}: some servers have none", advice))
    elif is_cluster and most * len(spread) > 2 * total:
        node = max(spread, key=lambda name: spread[name])
        advice = "move slots (`redis-cli --cluster rebalance`)"
        found.append(note("partitions", f"{what}, {most} of them on {node}: it has the most to do", advice))
    return found or [ok("partitions", what)]
