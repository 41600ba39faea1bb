"""Findings: what was seen, how bad that is, and what to do. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum


class Severity(StrEnum):
    """How bad a finding is; the later, the worse."""

    OK = "ok"
    #: Nothing is wrong as far as can be seen: something to know, or that couldn't be looked at.
    NOTE = "note"
    #: Nothing is lost now, but may be, or will stop.
    WARNING = "warning"
    #: Something doesn't work, or data is lost with the next fault.
    ERROR = "error"

    @property
    def rank(self) -> int:
        """Its place among the severities, the least bad being 0."""
        return list(Severity).index(self)


#: The names of all checks, in the order in which they are made, and what each looks at.
CHECKS = {
    "connection": "whether each server answers, and is of the kind that the URL says",
    "sentinels": "whether the Sentinels answer, and a failover is possible",
    "version": "the servers' versions",
    "persistence": "append-only file and snapshots: policy, last errors",
    "eviction": "whether the server throws away data when its memory is full",
    "memory": "memory in use, its limit, and room for rewriting the append-only file",
    "replication": "role, replicas, their lag, `min-replicas-to-write`, backlog",
    "latency": "the time of round trips, and the slow log",
    "certificates": "when the certificates of the server and of this client expire",
    "store": "the store's format and its number of partitions",
    "rights": "what this user of the server may do",
    "clocks": "the servers' clocks against each other and against this machine's",
    "channels": "whether messages are heard",
    "partitions": "how partitions are spread over servers, and slots that nobody serves",
    "forecast": "how much the store grows, and how long its memory lasts",
    "queues": "jobs that wait and that no controller takes",
    "consumers": "leases that ran out, controllers and readers of facts that have gone",
    "webhooks": "webhooks that were disabled, or fail",
    "unsealed": "ended jobs whose logs aren't sealed, or can't be",
    "archive": "whether it is this store's, and objects can be created once, read and deleted",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check has found: one sentence of what is, one of what to do."""

    #: One of CHECKS.
    check: str
    severity: Severity
    what: str
    #: "" if there is nothing to do.
    advice: str = ""
    #: The server that it is about; None: the store as a whole.
    node: str | None = None


def ok(check: str, what: str) -> Finding:
    """Return the finding that all is well."""
    return Finding(check, Severity.OK, what)


def note(check: str, what: str, advice: str = "") -> Finding:
    """Return a finding that people should know of."""
    return Finding(check, Severity.NOTE, what, advice)


def warning(check: str, what: str, advice: str) -> Finding:
    """Return a finding of what may go wrong."""
    return Finding(check, Severity.WARNING, what, advice)


def error(check: str, what: str, advice: str) -> Finding:
    """Return a finding of what is wrong."""
    return Finding(check, Severity.ERROR, what, advice)


def worst_of(findings: Sequence[Finding]) -> Severity:
    """Return the worst severity among findings; OK if there are none."""
    return max((finding.severity for finding in findings), key=lambda severity: severity.rank, default=Severity.OK)


def plural(count: int, what: str) -> str:
    """Return a number of things, as `1 job` or `1,200 jobs`."""
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def on_node(findings: Sequence[Finding], node: str) -> list[Finding]:
    """Return findings as those about a server."""
    return [replace(finding, node=node) for finding in findings]
