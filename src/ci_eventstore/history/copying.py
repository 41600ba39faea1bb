"""Copy what a store or a file holds into another one: what it holds, never what refers to it.

A job appears in the target whole, as far as its record went when it was read. So a copy may be stopped anywhere and
repeated: it brings what is new or longer, and changes nothing else. Jobs are compared afterwards, entry by entry, as
readers of both get them.
"""

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from functools import partial
from hashlib import blake2b

from ci_common.errors import RepositoryError
from ci_common.models import JobStatus
from ci_eventstore.errors import (
    ConfigurationError,
    OutcomeUnknownError,
    StoreError,
    StoreFormatError,
    StoreUnavailableError,
)
from ci_eventstore.events.records import Place
from ci_eventstore.events.sealed_log import Reference, StoredEntry
from ci_eventstore.jobs.state import JobState
from ci_eventstore.projection.differences import Progress
from ci_eventstore.segments.payloads import Unpacked, unpacked
from ci_eventstore.tasks import together

#: Jobs that are copied, or compared, at the same time.
TOGETHER = 8
#: How often a job is read anew that is sealed, deleted or written to meanwhile.
LOOKS = 10
DIGEST_BYTES = 20


class CopiedJob(ABC):
    """A job of a source; all raise StoreFormatError, which names it, if something of it isn't as it should be."""

    job_id: str

    @abstractmethod
    async def record(self) -> JobState | None:
        """Return the job's state as it is now, None if there is no record of it."""

    @abstractmethod
    async def check_missing(self) -> None:
        """Raise StoreError unless a job without a record was deleted."""

    @abstractmethod
    async def segment(self, reference: Reference) -> bytes:
        """Return a segment of the log."""

    @abstractmethod
    async def milestones(self) -> Sequence[str]:
        """Return the entries of the log's sparse index."""

    @abstractmethod
    def pages(self, first: Place, state: JobState) -> AsyncIterator[Sequence[StoredEntry]]:
        """Yield the log from a place up to where a state ends, about a megabyte at a time."""


class Source(ABC):
    """What is copied."""

    @abstractmethod
    async def incarnation(self) -> str | None:
        """Return the store's incarnation; None where the same store may be the target."""

    @abstractmethod
    async def count(self) -> int:
        """Return about how many jobs there are."""

    @abstractmethod
    def tombstones(self) -> AsyncIterator[Sequence[tuple[str, str]]]:
        """Yield ids of deleted jobs and their tombstones, a page at a time."""

    @abstractmethod
    def jobs(self) -> AsyncIterator[Sequence[CopiedJob]]:
        """Yield the jobs, a page at a time."""


class Taken(Enum):
    """What a target has done with a job."""

    COPIED = auto()
    #: It was there.
    ALREADY = auto()
    #: Something has changed meanwhile: the job has to be read anew.
    CHANGED = auto()


class Target(ABC):
    """What is copied to."""

    @abstractmethod
    async def incarnation(self) -> str | None:
        """Return the store's incarnation, None if it has none."""

    @abstractmethod
    async def take_tombstone(self, job_id: str, text: str) -> bool:
        """Have a job deleted here, too, and return whether it wasn't yet; StoreError if it is another job."""

    @abstractmethod
    async def take(self, job: CopiedJob, state: JobState) -> Taken:
        """Take a job in that state, or nothing of it; StoreError if what is here is otherwise."""

    @abstractmethod
    async def finish(self) -> None:
        """Do what has to be done once after all jobs."""

    @abstractmethod
    def job(self, job_id: str) -> CopiedJob:
        """Return the job of that id, to compare it."""


@dataclass(slots=True)
class CopyReport:
    """What a copy has done, and what the comparison of both stores has shown."""

    #: How many jobs were brought, or became longer, how many were there, and how many tombstones came.
    copied: int = 0
    already: int = 0
    deleted: int = 0
    #: Jobs, users and keys that weren't copied, and why.
    left: dict[str, str] = field(default_factory=dict)
    #: How many jobs were compared, and those that differ.
    compared: int = 0
    different: list[str] = field(default_factory=list)
    #: The sums of the digests of all jobs that were compared: equal if these are, whatever the partitions.
    source_digest: int = 0
    target_digest: int = 0

    @property
    def is_whole(self) -> bool:
        """Whether everything was copied, and nothing differs."""
        return not self.left and not self.different


class Copier:
    """Copies jobs and tombstones, and compares them."""

    def __init__(
        self, source: Source, target: Target, progress: Progress | None = None, report: CopyReport | None = None
    ) -> None:
        self._source = source
        self._target = target
        self._progress = progress
        self._total = self._done = 0
        self.report = report or CopyReport()

    async def copy(self) -> CopyReport:
        """Bring all, then compare; StoreUnavailableError, OutcomeUnknownError. What fails for one job is named.

        ConfigurationError if both are the same store.
        """
        self._total = await self._source.count()
        await self.bring()
        await self.compare()
        return self.report

    async def bring(self) -> None:
        """Bring tombstones and jobs; the errors of `copy`."""
        incarnation = await self._source.incarnation()
        if incarnation is not None and incarnation == await self._target.incarnation():
            raise ConfigurationError(
                "both are the same store; if one was restored from a backup, run `ci-eventstore restored` there first"
            )
        self._total += await self._source.count()
        async for page in self._source.tombstones():
            for job_id, text in page:
                await self._try(job_id, partial(self._bring_tombstone, job_id, text))
        await self._for_all(self._bring_job)
        await self._target.finish()

    async def compare(self) -> None:
        """Compare the jobs of both; the errors of `copy`."""
        self._total = self._total or await self._source.count()
        await self._for_all(self._compare_job)

    async def _for_all(self, work: Callable[[CopiedJob], Awaitable[None]]) -> None:
        async for page in self._source.jobs():
            for start in range(0, len(page), TOGETHER):
                some = page[start : start + TOGETHER]
                await together(self._try(job.job_id, partial(work, job)) for job in some)
                self._done += len(some)
                if self._progress is not None:
                    self._progress(self._done, max(self._done, self._total))

    async def _try(self, job_id: str, work: Callable[[], Awaitable[None]]) -> None:
        try:
            await work()
        except (StoreUnavailableError, OutcomeUnknownError):
            raise
        except RepositoryError as error:
            self.report.left[f"job {job_id}"] = str(error)

    async def _bring_tombstone(self, job_id: str, text: str) -> None:
        self.report.deleted += await self._target.take_tombstone(job_id, text)

    async def _bring_job(self, job: CopiedJob) -> None:
        for _ in range(LOOKS):
            state = await job.record()
            if state is None:
                # If it was deleted meanwhile, the next copy brings its tombstone.
                await job.check_missing()
                return
            if why := why_not(state):
                raise StoreError(why)
            try:
                taken = await self._target.take(job, state)
            except StoreFormatError:
                # Unless it was sealed or deleted meanwhile.
                if await job.record() == state:
                    raise
                continue
            if taken is not Taken.CHANGED:
                self.report.copied += taken is Taken.COPIED
                self.report.already += taken is Taken.ALREADY
                return
        raise StoreError("it is written to all the time: copy it later")

    async def _compare_job(self, job: CopiedJob) -> None:
        if f"job {job.job_id}" in self.report.left:
            return
        source, target = await _digest(job), await _digest(self._target.job(job.job_id))
        if source is None and target is None:
            return
        self.report.compared += 1
        self.report.source_digest = add_digest(self.report.source_digest, source)
        self.report.target_digest = add_digest(self.report.target_digest, target)
        if source != target:
            self.report.different.append(job.job_id)


async def _digest(job: CopiedJob) -> bytes | None:
    """Return the digest of a job as readers get it: its state, and each entry with its place; None without a job."""
    digest, state = blake2b(digest_size=DIGEST_BYTES), await job.record()
    if state is None:
        return None
    digest.update(repr((job.job_id, state.but(log=None, mark=None))).encode("utf-8", "surrogateescape"))
    async for page in job.pages(Place(0), state):
        for place, payload in page:
            # One of the two may have it unpacked.
            whole = unpacked(payload)
            digest.update(b"%s %d " % (place, len(whole)))
            digest.update(whole)
            if isinstance(whole, Unpacked):
                digest.update(whole.mark)
    return digest.digest()


def why_not(state: JobState) -> str | None:
    """Return why a job in this state can't be copied, None if it can. Pure."""
    if state.status is JobStatus.RUNNING or state.claim is not None:
        return "it is running"
    if state.truncated_at is not None and state.end_position is None:
        return "its log has outgrown its budget, and its end isn't written yet"
    return None


def add_digest(total: int, digest: bytes | None) -> int:
    """Return a sum of digests with one more. Pure."""
    return (total + int.from_bytes(digest or b"")) % (1 << 8 * DIGEST_BYTES)
