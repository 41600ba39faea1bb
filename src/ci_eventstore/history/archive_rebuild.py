"""Bring back what an archive has and a store lacks, as one does that was restored from an older backup.

The archive decides what is deleted: that is deleted again, and nothing else is done if nothing is to be brought. A job
that the store lacks, or of which it has only a beginning, is brought as a copy brings it, and moved to the archive,
where it lies already. What runs stays as it is. Each job is one step, so it may be stopped anywhere, and repeated.
"""

from dataclasses import dataclass, field

from ci_common.errors import InvalidTransitionError, JobGoneError, RepositoryError
from ci_common.models import JobStatus
from ci_eventstore.archive import Archive
from ci_eventstore.engine import Engine
from ci_eventstore.errors import (
    ArchiveUnavailableError,
    OutcomeUnknownError,
    StoreError,
    StoreFormatError,
    StoreUnavailableError,
)
from ci_eventstore.events.log_source import LogSource
from ci_eventstore.events.sealed_log import references_in
from ci_eventstore.history.archive_check import TOGETHER
from ci_eventstore.history.archived_jobs import ArchivedJob, Folder, folders, last_place
from ci_eventstore.history.archiving import archive_job
from ci_eventstore.history.copied_stores import StoreTarget
from ci_eventstore.history.copying import Taken
from ci_eventstore.jobs.delete import delete_job, delete_log
from ci_eventstore.jobs.records import read_record
from ci_eventstore.jobs.state import JobState
from ci_eventstore.jobs.tombstones import Deletion, Reason, read_tombstone, remove_deleted
from ci_eventstore.keys import JobKeys, gone_key
from ci_eventstore.tasks import together

#: How often a job is looked at anew that is written to meanwhile.
LOOKS = 5


@dataclass(slots=True)
class RebuildReport:
    """What was brought back."""

    #: Jobs that the store lacked, or of which it had a beginning.
    brought: list[str] = field(default_factory=list)
    #: Jobs that were deleted again, or whose logs were.
    deleted: list[str] = field(default_factory=list)
    #: Jobs, or folders of the archive, for which nothing could be done, and why.
    left: dict[str, str] = field(default_factory=dict)


async def rebuild_from_archive(engine: Engine, archive: Archive) -> RebuildReport:
    """Look at all that the archive has; ArchiveUnavailableError, StoreUnavailableError. One job's trouble is named."""
    target = StoreTarget(engine)
    report = await _look(engine, archive, target)
    await target.finish()
    return report


async def delete_again(engine: Engine, archive: Archive) -> RebuildReport:
    """Delete what the archive says was deleted, and bring nothing; the errors of `rebuild_from_archive`."""
    return await _look(engine, archive, None)


async def _look(engine: Engine, archive: Archive, target: StoreTarget | None) -> RebuildReport:
    report, some = RebuildReport(), list[Folder]()
    async for folder in folders(archive, engine.keys):
        some.append(folder)
        if len(some) == TOGETHER:
            await together(_try(engine, archive, target, one, report) for one in some)
            some = []
    await together(_try(engine, archive, target, one, report) for one in some)
    return report


async def _try(
    engine: Engine, archive: Archive, target: StoreTarget | None, folder: Folder, report: RebuildReport
) -> None:
    if folder.job_id is None:
        if target is not None:
            report.left[folder.path] = "whose it is isn't known"
        return
    try:
        keys, source = engine.keys.job(folder.job_id), engine.reader.source
        tombstone = await read_tombstone(engine.nodes, keys)
        if tombstone is not None:
            if tombstone.incarnation == (folder.incarnation or ""):
                await remove_deleted(archive, keys, folder.incarnation, Deletion(keys.job_id, tombstone))
            return
        if await _delete_again(engine, archive, keys, folder):
            report.deleted.append(folder.job_id)
        if target is None or not folder.left:
            return
        if await _bring(source, target, keys, ArchivedJob(archive, folder), folder):
            report.brought.append(folder.job_id)
            await archive_job(engine.nodes, source, archive, keys)
    except (StoreUnavailableError, OutcomeUnknownError, ArchiveUnavailableError):
        raise
    except JobGoneError:
        # Deleted meanwhile.
        return
    except RepositoryError as error:
        report.left[f"job {folder.job_id}"] = str(error)


async def _delete_again(engine: Engine, archive: Archive, keys: JobKeys, folder: Folder) -> bool:
    """Delete what the archive says was deleted, and the store has again; tell whether there was something."""
    nodes, source = engine.nodes, engine.reader.source
    if not folder.deletions:
        return False
    state = await read_record(nodes, source, keys)
    of_job = next((one for one in folder.deletions if one.tombstone is not None), None)
    if of_job is not None and of_job.tombstone is not None:
        if state is None:
            await remove_deleted(archive, keys, folder.incarnation, of_job)
            stone = of_job.tombstone
            text = f"{stone.letters} {stone.deleted_ms} {stone.rest}"
            return bool(await nodes.read("HSET", gone_key(keys.tag), keys.job_id, text))
        if state.incarnation != folder.incarnation or (of_job.tombstone.reason is Reason.RETENTION and state.is_kept):
            return False
        try:
            return await delete_job(nodes, source, keys, of_job.tombstone.reason)
        except InvalidTransitionError as error:
            raise StoreError("it was deleted, and the store has it again, not ended: cancel it, then repeat") from error
    if state is None or state.incarnation != folder.incarnation or not _has_deleted_log(state, folder.deletions):
        return False
    return await delete_log(nodes, source, keys)


def _has_deleted_log(state: JobState, deletions: list[Deletion]) -> bool:
    """Return whether the store has a log again that was deleted. Pure."""
    until = max(deletion.until for deletion in deletions)
    return state.deleted_to is None or state.deleted_to < until.position


async def _bring(source: LogSource, target: StoreTarget, keys: JobKeys, job: ArchivedJob, folder: Folder) -> bool:
    """Bring a job as the archive has it, if the store lacks it or has less of it; tell whether it was brought."""
    for _ in range(LOOKS):
        before = await target.job(keys.job_id).record()
        if before is not None and await _is_there(source, keys, before, folder):
            return False
        state = await job.record()
        assert state is not None
        taken = await target.take(job, state)
        if taken is Taken.ALREADY:
            taken = Taken.COPIED if await target.replace(job, state) else Taken.CHANGED
        if taken is Taken.COPIED:
            return True
    raise StoreError("it is written to all the time: repeat it later")


async def _is_there(source: LogSource, keys: JobKeys, state: JobState, folder: Folder) -> bool:
    """Return whether a record has all that the archive has, and can read it; StoreError if nothing can be said."""
    if state.incarnation != folder.incarnation:
        raise StoreError("the archive has another job of that id, and isn't asked")
    if state.status is JobStatus.RUNNING or state.claim is not None:
        raise StoreError("it ended, the archive says; in the store it runs, and stays as it is")
    references = references_in(keys.job_id, state.log) if state.log else []
    try:
        missing = await source.sealed.missing(keys, references)
    except StoreFormatError:
        missing = references
    newest = max(last_place(name) for name in folder.left)
    return not missing and (state.position, state.part) >= newest
