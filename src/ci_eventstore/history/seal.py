"""Seal one job: put its log into segments, look at them, then have its record refer to them and drop its stream.

Each step may be done again, by anybody, and stopped anywhere: a segment has the name of what it holds, and is gone
within an hour if no record refers to it; the last step is one script, which looks whether all is as it was read.
"""

from collections.abc import AsyncIterator, Sequence
from enum import StrEnum
from typing import NamedTuple

from ci_eventstore.connection.call_names import Key
from ci_eventstore.connection.nodes import Nodes
from ci_eventstore.connection.replies import WRONG_TYPE
from ci_eventstore.connection.scripts import load_script
from ci_eventstore.errors import ProjectionDamagedError, SegmentDamagedError, StoreFormatError
from ci_eventstore.events.log_index import milliseconds_of
from ci_eventstore.events.log_source import LogSource, at_places
from ci_eventstore.events.records import Fact, Place, log_text, text_size
from ci_eventstore.events.sealed_log import END_BYTES, ROOT_BYTES, Reference, references_in
from ci_eventstore.facts.facts import FactKind, fact_text
from ci_eventstore.jobs.packed_records import KEPT_FIELDS
from ci_eventstore.jobs.records import read_record
from ci_eventstore.jobs.state import JobState, from_packed, pack_state, to_hash
from ci_eventstore.keys import JobKeys, Keys, facts_key, segment_key
from ci_eventstore.projection.fold import Fold
from ci_eventstore.projection.record_fields import compare_fields
from ci_eventstore.segments.segment import Origin, Segment, SegmentWriter

#: How long a segment is there that no record refers to.
STAGED_MS = 3_600_000
#: A last segment that is smaller is joined with what comes after it.
JOINED_BYTES = 1024 * 1024
#: How much text is read at a time, about.
PAGE_BYTES = 1024 * 1024


class Sealed(StrEnum):
    """What came of it."""

    #: Its log lies in segments; also if somebody else did that.
    SEALED = "sealed"
    #: There was nothing to do.
    ALREADY = "already"
    #: It hasn't ended.
    RUNNING = "running"
    #: It was written to meanwhile, or somebody else was faster: the next sweep finds it as it is then.
    CHANGED = "changed"
    MISSING = "missing"


class StagedSegment(NamedTuple):
    """A segment that is there."""

    key: Key
    size: int


class SealCall(NamedTuple):
    """What `seal.lua` is called with."""

    hash: Key
    stream: Key
    log_index: Key
    unsealed: Key
    facts: Key
    id: str
    #: The fact of all jobs that it comes to.
    fact: str
    #: Where the stream ends, the mark of its last entry, and which job it is.
    place: str
    mark: str
    incarnation: str
    #: The record's field `log`: as it was read, and as it shall be.
    log_before: str
    log: str
    #: "1" if the record shall be packed.
    is_packed: str
    segments: Sequence[StagedSegment]
    #: Segments that the others replace.
    dropped: Sequence[Key]


SEAL = load_script(__package__, "seal", {"KEPT_FIELDS": KEPT_FIELDS}, call=SealCall)
_ANSWERS = {
    b"sealed": Sealed.SEALED,
    b"repeated": Sealed.SEALED,
    b"running": Sealed.RUNNING,
    b"changed": Sealed.CHANGED,
    b"unstaged": Sealed.CHANGED,
    b"unprojected": Sealed.CHANGED,
    b"missing": Sealed.MISSING,
}


async def seal(nodes: Nodes, source: LogSource, keys: Keys, job_id: str) -> Sealed:
    """Seal a job that has ended; StoreFormatError if its log can't be read or its record says something else."""
    job = keys.job(job_id)
    state = await read_record(nodes, source, job)
    if state is None:
        return Sealed.MISSING
    if state.end_position is None or state.claim is not None:
        return Sealed.RUNNING
    before = references_in(job_id, state.log) if state.log else []
    end = Place(state.position, state.part)
    if before and before[-1].last == end:
        return Sealed.ALREADY
    kept = before[: next((n for n, one in enumerate(before) if one.size < JOINED_BYTES), len(before))]
    made: list[Reference] = []
    try:
        async for segment in _segments(source, keys.prefix, job, state, kept):
            await stage_segment(nodes, job, segment.name, segment.data)
            made.append(_reference_to(segment))
            del segment
    except StoreFormatError:
        # Unless it was sealed or deleted meanwhile.
        if await _is_as_read(nodes, source, job, state):
            raise
        return Sealed.CHANGED
    return await _refer(nodes, job, state, before, kept, made)


async def _segments(
    source: LogSource, store: str, keys: JobKeys, state: JobState, kept: Sequence[Reference]
) -> AsyncIterator[Segment]:
    """Yield segments of what comes after those that stay, up to the end of the log as the record says it."""
    fold, end = Fold(keys), Place(state.position, state.part)
    if kept:
        fold.state = from_packed(keys.job_id, await source.sealed.state(keys, kept))
    milestones = await _milestones(source, keys, fold.place.position)
    previous = (await source.sealed.reader(keys, kept[-1])).root if kept else b""
    count = state.extent.page_entries(PAGE_BYTES, least=1)
    while fold.place < end:
        begun = fold.state
        size = (begun.lines, begun.bytes) if begun else await _deleted(source, keys, state)
        writer = SegmentWriter(Origin(store, keys.job_id, state.incarnation, previous, *size))
        while not writer.is_full and fold.place < end:
            page = at_places(await source.range(keys, fold.place.next, end, count))
            if not page:
                raise StoreFormatError(
                    f"job {keys.job_id!r}: nothing is there after {fold.place}, its record says {end}"
                )
            for (place, payload), record in zip(page, fold.take(page), strict=True):
                time = 0 if isinstance(record, Fact) else milliseconds_of(record.timestamp)
                writer.add(*place, payload, text_size(log_text(record)), time)
        assert fold.state is not None
        if fold.place == end:
            _check(keys, fold, state)
        own = [entry for position, entry in milestones if position <= fold.place.position]
        milestones = milestones[len(own) :]
        segment = writer.finish(pack_state(fold.state), fold.state.mark or "", own)
        previous = segment.root
        # Each has megabytes: this one goes before the next one is made.
        del writer
        yield segment
        del segment


async def _deleted(source: LogSource, keys: JobKeys, state: JobState) -> tuple[int, int]:
    """Return how many lines and bytes were deleted before a log begins."""
    if state.deleted_to is None:
        return 0, 0
    fold = Fold(keys)
    fold.take(at_places(await source.range(keys, Place(0), limit=1)))
    return (fold.state.lines, fold.state.bytes) if fold.state else (0, 0)


async def _milestones(source: LogSource, keys: JobKeys, after: int) -> list[tuple[int, str]]:
    """Return the entries of the sparse index after a position, with theirs; ProjectionDamagedError."""
    try:
        found = [(tuple(map(int, entry.split(" "))), entry) for entry in await source.milestones(keys)]
        return [(position, entry) for (position, _, _, _), entry in found if position > after]
    except ValueError as error:
        raise ProjectionDamagedError(keys.job_id, f"its sparse index can't be read: {error}") from error


def _check(keys: JobKeys, fold: Fold, state: JobState) -> None:
    """Refuse a job whose record isn't as its log says: that is for `rebuild`, and a segment would hide it."""
    found = {name: text for name, text in to_hash(state).items() if name != "log"}
    differences = compare_fields(f"job {keys.job_id}", fold, found)
    if differences:
        raise StoreFormatError(f"{differences[0]}: run `ci-eventstore rebuild`, then it can be sealed")


def _reference_to(segment: Segment) -> Reference:
    return Reference(
        Place(*segment.tail.first), Place(*segment.tail.last), len(segment.data), segment.root[:ROOT_BYTES]
    )


async def stage_segment(nodes: Nodes, keys: JobKeys, name: str, data: bytes) -> None:
    """Put a segment there unless it is there, for a while; SegmentDamagedError if it isn't found as it was sent."""
    key = segment_key(keys, name)
    _, found = await nodes.read_many([("SET", key, data, "NX", "PX", STAGED_MS), ("GETRANGE", key, 0, -1)])
    if found is WRONG_TYPE or found != data:
        raise SegmentDamagedError(name, "it isn't there as it was written")


async def _refer(
    nodes: Nodes,
    keys: JobKeys,
    state: JobState,
    before: Sequence[Reference],
    kept: Sequence[Reference],
    made: Sequence[Reference],
) -> Sealed:
    """Have the record refer to the segments that stay and to those that were made."""
    references, names = [*kept, *made], {one.name for one in made}
    call = SealCall(
        hash=keys.hash,
        stream=keys.stream,
        log_index=keys.log_index,
        unsealed=keys.unsealed,
        facts=facts_key(keys.tag),
        id=keys.job_id,
        fact=fact_text(FactKind.SEALED, state.status),
        place=str(Place(state.position, state.part)),
        mark=state.mark or "",
        incarnation=state.incarnation or "",
        log_before=state.log or "",
        log=" ".join(map(str, references)),
        is_packed="1" if len(references) == 1 and references[0].size <= END_BYTES else "",
        segments=[StagedSegment(segment_key(keys, one.name), one.size) for one in made],
        dropped=[segment_key(keys, one.name) for one in before[len(kept) :] if one.name not in names],
    )
    return _ANSWERS[await nodes.run(SEAL, *SEAL.order(call))]


async def _is_as_read(nodes: Nodes, source: LogSource, keys: JobKeys, state: JobState) -> bool:
    return await read_record(nodes, source, keys) == state
