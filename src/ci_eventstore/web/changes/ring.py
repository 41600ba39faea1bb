"""The last changes of jobs that a process has read, for clients that come back: by partition, in their order. Pure."""

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from ci_common.models import JobStatus
from ci_eventstore.facts.facts import FactKind, JobFact
from ci_eventstore.facts.points import NOWHERE, Entry, entry_of

#: At most this many changes are kept.
KEPT_CHANGES = 20_000
#: The statuses that a job may have had before.
_BEFORE: Mapping[FactKind, frozenset[JobStatus]] = {
    FactKind.CREATED: frozenset(),
    FactKind.STARTED: frozenset({JobStatus.QUEUED, JobStatus.RUNNING}),
    FactKind.REQUEUED: frozenset({JobStatus.RUNNING}),
    FactKind.ENDED: frozenset({JobStatus.QUEUED, JobStatus.RUNNING}),
    FactKind.LOG_DELETED: frozenset(),
    FactKind.DELETED: frozenset(),
}


@dataclass(slots=True)
class Change:
    """What has changed about a job."""

    #: The statuses that it may have left.
    left: frozenset[JobStatus] = frozenset()
    is_deleted: bool = False
    #: Of a deletion: by which its owner is recognised, as in `JobFact`.
    owner_mark: str | None = None

    def __or__(self, other: "Change") -> "Change":
        """Return both together."""
        mark = self.owner_mark if other.owner_mark is None else other.owner_mark
        return Change(self.left | other.left, self.is_deleted or other.is_deleted, mark)

    @property
    def is_unknown(self) -> bool:
        """Whether nobody can tell whose job it was that was deleted, as an earlier version does that."""
        return self.is_deleted and self.owner_mark is None


#: By the job's id.
Changes = dict[str, Change]


def merge(changes: Changes, others: Iterable[tuple[str, Change]]) -> None:
    """Add more changes to some, each job's to its own."""
    for job_id, change in others:
        changes[job_id] = changes[job_id] | change if job_id in changes else change


def changes_in(facts: Iterable[JobFact]) -> list[tuple[str, Change]]:
    """Return the changes that facts tell; sealing changes nothing that a job shows."""
    return [
        (fact.job_id, Change(_BEFORE[fact.kind], fact.kind is FactKind.DELETED, fact.owner_mark))
        for fact in facts
        if fact.kind in _BEFORE
    ]


class _Kept(NamedTuple):
    entry: Entry
    job_id: str
    change: Change


@dataclass(slots=True)
class _Partition:
    """The changes after one entry, up to another one."""

    base: Entry
    newest: Entry
    kept: deque[_Kept] = field(default_factory=deque)


class ChangeRing:
    """The last changes of all partitions."""

    def __init__(self, partitions: int) -> None:
        self._partitions: list[_Partition | None] = [None] * partitions
        self._limit = max(KEPT_CHANGES // partitions, 100)

    def begin(self, partition: int, entry: str) -> None:
        """Begin a partition, or begin it again, after an entry: what came before isn't known."""
        place = entry_of(entry)
        self._partitions[partition] = _Partition(place, place)

    def add(self, partition: int, entry: str, changes: Sequence[tuple[str, Change]]) -> None:
        """Add changes of a partition that has begun, up to an entry."""
        ring = self._partitions[partition]
        assert ring is not None
        ring.newest = entry_of(entry)
        ring.kept.extend(_Kept(ring.newest, *change) for change in changes)
        while len(ring.kept) > self._limit:
            # All of an entry go with it.
            ring.base = ring.kept.popleft().entry

    def lacks(self, points: Sequence[Entry]) -> dict[int, tuple[Entry, Entry]]:
        """Return which partitions begin after the entries of a client, each with its entry and the one known first."""
        found = {}
        for partition, (point, ring) in enumerate(zip(points, self._partitions, strict=True)):
            if ring is not None and point < ring.base:
                found[partition] = point, ring.base
        return found

    def extend(self, partition: int, found: Sequence[tuple[Entry, Sequence[tuple[str, Change]]]]) -> bool:
        """Have a partition begin with the first of some entries, if the last one is where it begins now."""
        ring = self._partitions[partition]
        if ring is None or len(found) < 2 or found[-1][0] != ring.base:
            return False
        (first, _), *others = found
        ring.kept.extendleft(reversed([_Kept(entry, *change) for entry, changes in others for change in changes]))
        ring.base = first
        return True

    @property
    def points(self) -> list[Entry]:
        """The last entries of all partitions."""
        return [NOWHERE if ring is None else ring.newest for ring in self._partitions]

    @property
    def begun(self) -> int:
        """How many partitions have begun."""
        return sum(ring is not None for ring in self._partitions)

    def since(self, points: Sequence[Entry]) -> Changes | None:
        """Return what has changed after some entries; None if that isn't known any more, or never was."""
        found: Changes = {}
        for point, ring in zip(points, self._partitions, strict=True):
            if ring is None or not ring.base <= point <= ring.newest:
                return None
            merge(found, ((job_id, change) for entry, job_id, change in ring.kept if entry > point))
        return found
