"""Move the segments of one sealed job to the store's archive, or back: copies first, then one script refers to them.

Each step may be done again, by anybody, and stopped anywhere: a segment never changes and has the name of what it
holds, so a copy that nobody refers to is as good as the one that comes next. The script looks whether the record still
refers to the segments that were copied.
"""

from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from typing import NamedTuple

from ci_eventstore.archive import Archive
from ci_eventstore.connection.call_names import Key
from ci_eventstore.connection.nodes import Nodes
from ci_eventstore.connection.scripts import load_script
from ci_eventstore.errors import StoreFormatError
from ci_eventstore.events.archived_log import name_in_archive
from ci_eventstore.events.log_source import TRIES, LogSource
from ci_eventstore.events.records import Place
from ci_eventstore.events.sealed_log import Reference, references_in
from ci_eventstore.history.seal import StagedSegment, stage_segment
from ci_eventstore.jobs.packed_records import SURELY_KEPT
from ci_eventstore.jobs.records import read_record
from ci_eventstore.jobs.state import JobState, rest_of, to_hash
from ci_eventstore.jobs.tombstones import Deletion, read_tombstone, remove_deleted
from ci_eventstore.keys import JobKeys, segment_key
from ci_eventstore.segments.segment import check_segment


class Moved(StrEnum):
    """What came of it."""

    #: All segments lie there now; also if somebody else did that.
    MOVED = "moved"
    #: There was nothing to do.
    ALREADY = "already"
    #: Its log, or the end of it, isn't sealed, or it isn't as `takes` wants it.
    NOT_DUE = "not due"
    #: It was sealed or moved otherwise meanwhile: the next sweep finds it as it is then.
    CHANGED = "changed"
    MISSING = "missing"


class ArchiveCall(NamedTuple):
    """What `archive.lua` is called with."""

    hash: Key
    incarnation: str
    #: Where its log ends, as it was read.
    place: str
    #: The record's field `log`: as it was read, and as it shall be.
    log_before: str
    log: str
    #: What is there by now, and what isn't needed any more.
    segments: Sequence[StagedSegment]
    dropped: Sequence[Key]
    #: What a packed record lacks, names and values by turns.
    fields: Sequence[str | bytes]


ARCHIVE = load_script(__package__, "archive", call=ArchiveCall)
_ANSWERS = {
    b"moved": Moved.MOVED,
    b"repeated": Moved.MOVED,
    b"changed": Moved.CHANGED,
    b"unstaged": Moved.CHANGED,
    b"missing": Moved.MISSING,
}


async def archive_job(
    nodes: Nodes,
    source: LogSource,
    archive: Archive,
    keys: JobKeys,
    *,
    takes: Callable[[JobState], bool] | None = None,
) -> Moved:
    """Move a sealed job's segments to the archive, as long as `takes` says so.

    ArchiveUnavailableError, ArchiveDiffersError, SegmentDamagedError, StoreFormatError, StoreUnavailableError.
    """
    state = await read_record(nodes, source, keys)
    if state is None:
        return Moved.MISSING
    references = references_in(keys.job_id, state.log) if state.log else []
    is_sealed = bool(references) and references[-1].last == Place(state.position, state.part)
    if not is_sealed or (takes is not None and not takes(state)):
        return Moved.NOT_DUE
    moved = [one for one in references if not one.is_archived]
    for tries_left in reversed(range(TRIES)):
        try:
            for one in moved:
                data = await _whole(source, keys, one)
                await archive.put(name_in_archive(keys, state.incarnation, one.name), data)
            break
        except StoreFormatError:
            # Unless it was sealed again, moved or deleted meanwhile; it may also have been moved there and back.
            if await read_record(nodes, source, keys) != state:
                return Moved.CHANGED
            if not tries_left:
                raise
    if not moved:
        return Moved.ALREADY
    answer = await _refer(nodes, keys, state, references, moved)
    tombstone = await read_tombstone(nodes, keys) if answer is Moved.MISSING else None
    if tombstone is not None:
        # Whoever has deleted it meanwhile may have looked for objects before these were there.
        await remove_deleted(archive, keys, tombstone.incarnation, Deletion(keys.job_id, tombstone))
    return answer


async def unarchive_job(nodes: Nodes, source: LogSource, keys: JobKeys) -> Moved:
    """Bring a job's segments back into the store; their objects stay. It raises what `archive_job` does."""
    state = await read_record(nodes, source, keys)
    if state is None:
        return Moved.MISSING
    references = references_in(keys.job_id, state.log) if state.log else []
    moved = [one for one in references if one.is_archived]
    try:
        for one in moved:
            await stage_segment(nodes, keys, one.name, await _whole(source, keys, one))
    except StoreFormatError:
        if await read_record(nodes, source, keys) == state:
            raise
        return Moved.CHANGED
    return await _refer(nodes, keys, state, references, moved) if moved else Moved.ALREADY


async def _whole(source: LogSource, keys: JobKeys, reference: Reference) -> bytes:
    """Return a segment of which each byte is what was written; SegmentDamagedError."""
    data = await source.sealed.data(keys, reference)
    check_segment(data, reference.name, reference.root)
    return data


async def _refer(
    nodes: Nodes, keys: JobKeys, state: JobState, references: Sequence[Reference], moved: Sequence[Reference]
) -> Moved:
    """Have the record refer to the segments that were moved where they lie now."""
    to_archive = not moved[0].is_archived
    log = " ".join(str(one._replace(is_archived=to_archive) if one in moved else one) for one in references)
    lacking = {name: value for name, value in to_hash(state).items() if name not in SURELY_KEPT}
    rest: Mapping[str, str | bytes] = rest_of(state) or lacking
    call = ArchiveCall(
        hash=keys.hash,
        incarnation=state.incarnation or "",
        place=str(Place(state.position, state.part)),
        log_before=state.log or "",
        log=log,
        segments=[] if to_archive else [StagedSegment(segment_key(keys, one.name), one.size) for one in moved],
        dropped=[segment_key(keys, one.name) for one in moved] if to_archive else [],
        fields=[text for field in rest.items() for text in field],
    )
    return _ANSWERS[await nodes.run(ARCHIVE, *ARCHIVE.order(call))]
