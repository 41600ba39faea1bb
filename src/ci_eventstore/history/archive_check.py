"""Compare the objects of an archive with the records of a store, and remove those that nobody will ask for again.

An object is removed only if the job's record, of the same incarnation, refers to another segment that has all of it, or
if a tombstone says that it was deleted, the store's or the archive's. Where there is no record, nothing is known: the
store may be an older one, restored from a backup, and the object all that is left of the job.
"""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

from ci_eventstore.archive import Archive
from ci_eventstore.connection.replies import WRONG_TYPE, as_optional_texts, as_texts
from ci_eventstore.engine import Engine
from ci_eventstore.errors import SegmentDamagedError, StoreFormatError
from ci_eventstore.events.sealed_log import Reference, references_in
from ci_eventstore.history.archived_jobs import Folder, folders
from ci_eventstore.jobs.tombstones import Tombstone
from ci_eventstore.keys import JobKeys, ended_key, gone_key
from ci_eventstore.members import member_job_id
from ci_eventstore.segments.segment import check_segment, places_in
from ci_eventstore.tasks import together

PAGE_JOBS = 100
#: Jobs that are looked at at the same time.
TOGETHER = 8


class Verdict(Enum):
    """What an object is."""

    #: The record refers to it, or could again.
    NEEDED = "needed"
    #: Nobody will ask for it again.
    ORPHAN = "orphan"
    #: What it is isn't known, or what was deleted is there again: `archive rebuild` looks into it.
    UNKNOWN = "unknown"


class Known(NamedTuple):
    """What a store knows of a job of one incarnation."""

    #: Where its log lies; None if there is no record of this incarnation.
    references: Sequence[Reference] | None
    #: Whether there is a tombstone of it.
    is_deleted: bool = False
    #: Up to which position its log was deleted.
    deleted_to: int | None = None


@dataclass(slots=True)
class ArchiveReport:
    """What a check has found."""

    #: Archived jobs, and objects, that were looked at.
    jobs: int = 0
    objects: int = 0
    #: Jobs whose objects are missing or damaged, and what it is.
    damaged: dict[str, str] = field(default_factory=dict)
    #: Objects that nobody will ask for again, and those that aren't known, with the reason.
    orphans: list[str] = field(default_factory=list)
    unknown: dict[str, str] = field(default_factory=dict)
    #: How many orphans were removed.
    removed: int = 0

    @property
    def is_whole(self) -> bool:
        """Whether all that records refer to is there."""
        return not self.damaged


def judge(name: str, folder: Folder, known: Known) -> tuple[Verdict, str]:
    """Return what a segment's object is, and why it isn't known. Pure."""
    first, last = places_in(name) or ((0, 0), (0, 0))
    said = [deletion for deletion in folder.deletions if deletion.covers(name)]
    if known.references is None:
        is_over, why = known.is_deleted or bool(said), "the store has no record of this job"
    elif any(one.name == name for one in known.references):
        if not said:
            return Verdict.NEEDED, ""
        is_over, why = False, "it was deleted, and the store has it again"
    else:
        was_deleted = bool(said) and known.deleted_to is not None and last[0] <= known.deleted_to
        is_over = was_deleted or any(one.first <= first and last <= one.last for one in known.references)
        why = "the store's record refers to nothing like it"
    return (Verdict.ORPHAN, "") if is_over else (Verdict.UNKNOWN, why)


async def check_archive(
    engine: Engine, archive: Archive, *, is_deep: bool = False, removes: bool = False
) -> ArchiveReport:
    """Look at each archived job and at each object; ArchiveUnavailableError, StoreUnavailableError.

    A deep look reads all bytes of segments, another one their sizes and tails.
    """
    report = ArchiveReport()
    engine.reader.source.sealed.forget()
    async for jobs in _archived_jobs(engine):
        for start in range(0, len(jobs), TOGETHER):
            some = jobs[start : start + TOGETHER]
            await together(_check_job(engine, keys, report, is_deep=is_deep) for keys in some)
    async for folder in folders(archive, engine.keys):
        await _check_folder(engine, archive, folder, report, removes=removes)
    return report


async def _archived_jobs(engine: Engine) -> AsyncIterator[list[JobKeys]]:
    """Yield the jobs of whose logs something is archived, a page at a time."""
    for tag in engine.keys.tags:
        after = "-"
        while True:
            command = ("ZRANGEBYLEX", ended_key(tag), after, "+", "LIMIT", 0, PAGE_JOBS)
            [reply] = await engine.nodes.read_many([command])
            members = [] if reply is WRONG_TYPE else as_texts(reply)
            if not members:
                break
            after = f"({members[-1]}"
            jobs = [engine.keys.job(member_job_id(member)) for member in members]
            logs = await engine.nodes.read_many([("HGET", keys.hash, "log") for keys in jobs])
            yield [keys for keys, log in zip(jobs, logs, strict=True) if isinstance(log, bytes) and b",a" in log]


async def _check_job(engine: Engine, keys: JobKeys, report: ArchiveReport, *, is_deep: bool) -> None:
    report.jobs += 1
    failed_with = None
    while True:
        [log] = await engine.nodes.read_many([("HGET", keys.hash, "log")])
        if log is None or log is WRONG_TYPE or (failed_with is not None and failed_with[0] == log):
            break
        try:
            for one in references_in(keys.job_id, log):
                if one.is_archived:
                    await _check_segment(engine, keys, one, is_deep=is_deep)
            return
        except StoreFormatError as error:
            # Unless it was sealed, moved or deleted meanwhile.
            failed_with = log, error
    if failed_with is not None and log == failed_with[0]:
        report.damaged[keys.job_id] = str(failed_with[1])


async def _check_segment(engine: Engine, keys: JobKeys, reference: Reference, *, is_deep: bool) -> None:
    sealed = engine.reader.source.sealed
    if await sealed.missing(keys, [reference]):
        raise SegmentDamagedError(reference.name, f"it is missing, or doesn't have {reference.size} bytes")
    if is_deep:
        check_segment(await sealed.data(keys, reference), reference.name, reference.root)
    else:
        await sealed.reader(keys, reference)


async def _check_folder(
    engine: Engine, archive: Archive, folder: Folder, report: ArchiveReport, *, removes: bool
) -> None:
    report.objects += len(folder.segments) + len(folder.deletions) + len(folder.strange)
    for name, why in folder.strange.items():
        report.unknown[f"{folder.path}/{name}"] = why
    try:
        known = await known_of(engine, folder)
    except StoreFormatError as error:
        known = None
        report.unknown[folder.path] = str(error)
    if known is None:
        report.unknown.setdefault(folder.path, "whose it is isn't known")
        return
    if known.references is not None and any(deletion.tombstone for deletion in folder.deletions):
        report.unknown[folder.path] = "it was deleted, and the store has it again"
    verdicts = {name: judge(name, folder, known) for name in folder.segments}
    if known.references and any(verdict is Verdict.ORPHAN for verdict, _ in verdicts.values()):
        keys = engine.keys.job(folder.job_id or "")
        is_damaged = keys.job_id in report.damaged
        if is_damaged or await engine.reader.source.sealed.missing(keys, known.references):
            verdicts = dict.fromkeys(verdicts, (Verdict.UNKNOWN, "what the store refers to instead isn't whole"))
    for name, (verdict, why) in verdicts.items():
        if verdict is Verdict.UNKNOWN:
            report.unknown[f"{folder.path}/{name}"] = why
        elif verdict is Verdict.ORPHAN:
            report.orphans.append(f"{folder.path}/{name}")
            if removes:
                await archive.delete(f"{folder.path}/{name}")
                report.removed += 1


async def known_of(engine: Engine, folder: Folder) -> Known | None:
    """Return what the store knows of a folder's job; None if that isn't known itself. StoreFormatError."""
    if folder.job_id is None:
        return None
    keys = engine.keys.job(folder.job_id)
    record, tombstone = await engine.nodes.read_many(
        [
            ("HMGET", keys.hash, "version", "incarnation", "log", "deleted_to"),
            ("HGET", gone_key(keys.tag), keys.job_id),
        ]
    )
    if record is WRONG_TYPE or tombstone is WRONG_TYPE:
        raise StoreFormatError(f"what the store has of job {keys.job_id!r} can't be read")
    version, incarnation, log, deleted_to = as_optional_texts(record)
    if tombstone is not None:
        stone = Tombstone.parse(keys.job_id, tombstone.decode("utf-8", "replace"))
        return Known(None, is_deleted=stone.incarnation == (folder.incarnation or ""))
    if version is None or incarnation != folder.incarnation:
        return Known(None)
    to = int(deleted_to) if deleted_to and deleted_to.isdecimal() else None
    return Known(references_in(keys.job_id, log) if log else [], deleted_to=to)
