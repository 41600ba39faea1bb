"""A fact of all jobs: what it tells, and how it stands in a partition's stream. Pure."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum

from ci_common.models import JobStatus
from ci_eventstore.events.records import Fact, FactType, Record


class FactKind(Enum):
    """What happened to a job; the value is its letter in an entry."""

    CREATED = "c"
    #: A controller was given it, or its status became running; again when another controller takes it over.
    STARTED = "s"
    REQUEUED = "r"
    ENDED = "e"
    SEALED = "z"
    LOG_DELETED = "l"
    DELETED = "d"


STATUS_LETTERS = {
    JobStatus.QUEUED: "q",
    JobStatus.RUNNING: "r",
    JobStatus.COMPLETED: "c",
    JobStatus.FAILED: "f",
    JobStatus.CANCELLED: "x",
}
_KINDS = {kind.value: kind for kind in FactKind}
STATUSES = {letter: status for status, letter in STATUS_LETTERS.items()}
_STARTS = (FactType.STARTED, FactType.CLAIMED)


@dataclass(frozen=True, slots=True)
class JobFact:
    """That something happened to a job."""

    #: The same however often it is handed out.
    id: str
    kind: FactKind
    #: What the job's status was then; of one that is gone, its last.
    status: JobStatus
    job_id: str
    #: The server's.
    time: datetime
    #: Of a deletion: by which its job's user is recognised; "" if it was nobody's, None if nobody has noted it.
    owner_mark: str | None = None

    def is_of(self, user_id: str) -> bool:
        """Tell whether it is of a job that is gone, and was a user's."""
        return bool(self.owner_mark) and self.owner_mark == owner_mark(self.job_id, user_id)


def owner_mark(job_id: str, user_id: str | None) -> str:
    """Return what a deletion has instead of its owner, who can't be read from it, but recognised."""
    if user_id is None:
        return ""
    return hashlib.sha256(f"{job_id}\n{user_id}".encode("utf-8", "surrogatepass")).hexdigest()[:16]


def fact_text(kind: FactKind, status: JobStatus) -> str:
    """Return how an entry begins that tells this; ids follow."""
    return kind.value + STATUS_LETTERS[status]


def facts_of(before: JobStatus | None, after: JobStatus, records: Sequence[Record], *, is_end: bool) -> list[str]:
    """Return what records tell that bring a job from one status, None if there was no job, to another."""
    told = list[str]()
    for record in records:
        if isinstance(record, Fact):
            if record.type is FactType.CREATED:
                told.append(fact_text(FactKind.CREATED, JobStatus(record.fields["status"])))
            elif record.type in _STARTS:
                told.append(fact_text(FactKind.STARTED, JobStatus.RUNNING))
            elif record.type is FactType.REQUEUED:
                told.append(fact_text(FactKind.REQUEUED, JobStatus.QUEUED))
    if is_end:
        told.append(fact_text(FactKind.ENDED, after))
    return told


def facts_in(partition: int, entry: str, text: str, mark: str | None = None) -> Iterator[JobFact]:
    """Yield the facts of an entry, with the mark of an owner; none for what only later programs can read."""
    kind, status = _KINDS.get(text[:1]), STATUSES.get(text[1:2])
    milliseconds = int(entry.partition("-")[0])
    if kind is None or status is None:
        return
    time = datetime.fromtimestamp(milliseconds / 1000, UTC)
    for place, job_id in enumerate(text[2:].split("\n"), start=1):
        yield JobFact(f"{partition}-{entry}-{place}", kind, status, job_id, time, mark)
