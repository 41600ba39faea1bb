"""Stores as sources and targets of a copy.

A job is brought in pieces that nobody sees and that expire, then becomes one by a single script, as `rebuild` would
make it of its log. So it doesn't matter how the two stores are cut.
"""

from collections.abc import AsyncIterator, Sequence
from typing import NamedTuple

from ci_common.models import JobStatus
from ci_eventstore.connection.call_names import Key
from ci_eventstore.connection.replies import WRONG_TYPE, as_text, as_texts, is_unicode
from ci_eventstore.connection.scripts import load_script
from ci_eventstore.engine import Engine
from ci_eventstore.errors import StoreError, StoreFormatError
from ci_eventstore.events.caller import new_token
from ci_eventstore.events.codec import mark_of
from ci_eventstore.events.log_source import Standing, at_places, read_standing
from ci_eventstore.events.records import Place
from ci_eventstore.events.sealed_log import END_BYTES, Reference, StoredEntry, references_in
from ci_eventstore.history.copying import CopiedJob, Source, Taken, Target
from ci_eventstore.history.seal import PAGE_BYTES, STAGED_MS
from ci_eventstore.jobs.delete import delete_job
from ci_eventstore.jobs.packed_records import ENDS, KEPT_FIELDS
from ci_eventstore.jobs.records import read_record
from ci_eventstore.jobs.state import JobState, from_packed, to_hash
from ci_eventstore.jobs.tombstones import Tombstone, read_tombstone
from ci_eventstore.keys import JobKeys, gone_key, ids_key, queues_key, segment_key, staged_key
from ci_eventstore.projection.fold import Fold
from ci_eventstore.projection.rebuild import Copied, rebuild
from ci_eventstore.segments.payloads import Unpacked
from ci_eventstore.segments.segment import SegmentReader

#: Jobs whose ids are read together.
PAGE_JOBS = 1000
#: Of the store's hash, while jobs have come of which groups of readers of facts aren't told yet.
GAP_FIELD = "gap"


class StagedEntry(NamedTuple):
    """An entry of a job's log: its place as a stream id, and its payload."""

    id: bytes
    payload: bytes


class StageCall(NamedTuple):
    """What `stage.lua` is called with."""

    staged: Key
    #: The last entry's id, "" if there is none yet.
    before: bytes
    entries: Sequence[StagedEntry]


STAGE = load_script(__package__, "stage", {"STAGED_MS": STAGED_MS}, call=StageCall)


class StoredJob(CopiedJob):
    """A job of a store."""

    def __init__(self, engine: Engine, job_id: str) -> None:
        self.job_id = job_id
        self._nodes = engine.nodes
        self._logs = engine.reader.source
        self._keys = engine.keys.job(job_id)

    async def record(self) -> JobState | None:
        """Return the job's state as it is now."""
        return await read_record(self._nodes, self._logs, self._keys)

    async def check_missing(self) -> None:
        """Refuse a log without a record."""
        if await read_standing(self._nodes, self._keys) is Standing.UNPROJECTED:
            raise StoreError("it has no record: run `ci-eventstore rebuild` first")

    async def segment(self, reference: Reference) -> bytes:
        """Return a segment, also from the archive."""
        return await self._logs.sealed.data(self._keys, reference)

    async def milestones(self) -> Sequence[str]:
        """Return the entries of the sparse index."""
        return await self._logs.milestones(self._keys)

    async def pages(self, first: Place, state: JobState) -> AsyncIterator[Sequence[StoredEntry]]:
        """Yield the log from a place on."""
        end, count = Place(state.position, state.part), state.extent.page_entries(PAGE_BYTES, least=1)
        while first <= end:
            page = await self._logs.range(self._keys, first, end, count)
            if not page:
                raise StoreFormatError(f"job {self.job_id!r}: nothing is there from {first}, its record says {end}")
            yield page
            first = Place.parse(page[-1][0]).next


class StoreSource(Source):
    """A store that is copied; it is only read."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def incarnation(self) -> str | None:
        """Return the store's incarnation."""
        return await self._engine.incarnation.read()

    async def count(self) -> int:
        """Return how many jobs stand in the ids."""
        sizes = await self._engine.nodes.read_many([("ZCARD", ids_key(tag)) for tag in self._engine.keys.tags])
        return sum(size for size in sizes if size is not WRONG_TYPE)

    async def tombstones(self) -> AsyncIterator[Sequence[tuple[str, str]]]:
        """Yield the tombstones of each partition."""
        for tag in self._engine.keys.tags:
            async for page in self._engine.nodes.scan_members("HSCAN", gone_key(tag)):
                yield list(zip(page[::2], page[1::2], strict=True))

    async def jobs(self) -> AsyncIterator[Sequence[CopiedJob]]:
        """Yield the jobs of each partition, in the order of their ids, so that none comes twice."""
        for tag in self._engine.keys.tags:
            after = "-"
            while True:
                command = ("ZRANGEBYLEX", ids_key(tag), after, "+", "LIMIT", 0, PAGE_JOBS)
                [reply] = await self._engine.nodes.read_many([command])
                page = [] if reply is WRONG_TYPE else as_texts(reply)
                yield [StoredJob(self._engine, job_id) for job_id in page if is_unicode(job_id)]
                if len(page) < PAGE_JOBS:
                    break
                after = f"({page[-1]}"


class StoreTarget(Target):
    """A store that is copied to."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._nodes = engine.nodes
        self._logs = engine.reader.source
        self._token = new_token()
        self._has_brought = False

    async def incarnation(self) -> str | None:
        """Return the store's incarnation."""
        return await self._engine.incarnation.read()

    async def finish(self) -> None:
        """Have groups look anew if jobs came, also by a copy that was killed: their facts aren't told."""
        store = self._engine.keys.store
        [owed] = await self._nodes.read("HMGET", store, GAP_FIELD)
        if self._has_brought or owed is not None:
            await self._engine.facts.forget_facts()
            await self._nodes.read("HDEL", store, GAP_FIELD)

    def job(self, job_id: str) -> CopiedJob:
        """Return a job, to compare it."""
        return StoredJob(self._engine, job_id)

    async def take_tombstone(self, job_id: str, text: str) -> bool:
        """Put a tombstone here, in place of the job that it is of; another job of that id stays."""
        tombstone, keys = Tombstone.parse(job_id, text), self._engine.keys.job(job_id)
        if await read_tombstone(self._nodes, keys) is not None:
            return False
        state = await read_record(self._nodes, self._logs, keys)
        if state is not None:
            if (state.incarnation or "") != tombstone.incarnation:
                raise StoreError("it was deleted, and the target has another job of that id")
            await delete_job(self._nodes, self._logs, keys, tombstone.reason)
        elif await read_standing(self._nodes, keys) is Standing.UNPROJECTED:
            raise StoreError("it was deleted, and the target has a log of that id: run `ci-eventstore rebuild` there")
        await self._nodes.read("HSET", gone_key(keys.tag), job_id, text)
        return True

    async def take(self, job: CopiedJob, state: JobState) -> Taken:
        """Take a job that isn't here, or of which this is a beginning."""
        keys = self._engine.keys.job(job.job_id)
        before = await self._before(keys)
        if before is not None:
            if is_same(before, state):
                return Taken.ALREADY
            await _check_beginning(job, before, state)
        return Taken.COPIED if await self._bring(job, keys, state, before) else Taken.CHANGED

    async def replace(self, job: CopiedJob, state: JobState) -> bool:
        """Put a job here in place of what is here of it, which has the same end; False if that isn't so any more."""
        keys = self._engine.keys.job(job.job_id)
        before = await self._before(keys)
        return before is not None and is_same(before, state) and await self._bring(job, keys, state, before)

    async def _before(self, keys: JobKeys) -> JobState | None:
        """Return what is here of a job; StoreError if none can be put here."""
        state = await read_record(self._nodes, self._logs, keys)
        if state is None:
            match await read_standing(self._nodes, keys):
                case Standing.GONE:
                    raise StoreError("the target has deleted it")
                case Standing.UNPROJECTED:
                    raise StoreError("the target has a log of that id: run `ci-eventstore rebuild` there")
        return state

    async def _bring(self, job: CopiedJob, keys: JobKeys, state: JobState, before: JobState | None) -> bool:
        """Bring all of a job, and make it one; False if something has changed meanwhile."""
        references = references_in(job.job_id, state.log) if state.log else []
        fold, index, checkpoint = Fold(keys), list[str](), None
        for reference in references:
            data = await self._stage_segment(job, keys, reference)
            if reference == references[-1]:
                checkpoint, mark = end_of(job.job_id, reference, data)
                fold.state = checkpoint.but(mark=mark)
                after = fold.place.position
                milestones = [(int(entry.partition(" ")[0]), entry) for entry in await job.milestones()]
                index = [entry for position, entry in milestones if after < position <= state.position]
        end = await self._stage_entries(job, fold, state)
        if end is None:
            return False
        assert fold.state is not None
        if references:
            # The target has them itself, also those that the source has in its archive.
            fold.state = fold.state.but(log=" ".join(str(one._replace(is_archived=False)) for one in references))
        names = {reference.name for reference in references}
        had = references_in(keys.job_id, before.log) if before is not None and before.log else []
        copied = Copied(
            staged_key(keys, self._token),
            before,
            [segment_key(keys, reference.name) for reference in references],
            [segment_key(keys, reference.name) for reference in had if reference.name not in names],
            is_packed=len(references) == 1
            and references[0].size <= END_BYTES
            and may_be_packed(checkpoint, fold.state),
        )
        log_before = (before.log or "") if before is not None else ""
        self._has_brought = True
        await self._nodes.read("HSET", self._engine.keys.store, GAP_FIELD, 1)
        index = index if references else fold.index.entries
        answer = await rebuild(self._nodes, fold, end, index, log_before, copied)
        if answer != b"changed" and fold.state.status is JobStatus.QUEUED and fold.state.queue:
            await self._nodes.read("SADD", queues_key(keys.tag), fold.state.queue)
        return answer != b"changed"

    async def _stage_segment(self, job: CopiedJob, keys: JobKeys, reference: Reference) -> bytes:
        """Put a segment here, for a while, and return it; one that is here has the bytes that its name says."""
        data = await job.segment(reference)
        key = segment_key(keys, reference.name)
        commands = [("SET", key, data, "NX", "PX", STAGED_MS), ("STRLEN", key)]
        _, size = await self._nodes.read_many(commands)
        if size != reference.size or len(data) != size:
            raise StoreFormatError(f"segment {reference.name} of job {job.job_id!r} isn't there as it should be")
        return data

    async def _stage_entries(self, job: CopiedJob, fold: Fold, state: JobState) -> str | None:
        """Put what doesn't lie in segments into a stream, and fold it; return its last place, None if it has gone.

        None, too, if the source has sealed it meanwhile: a stream has entries as they were written, since scripts
        compute their marks.
        """
        key, before = staged_key(fold.keys, self._token), b""
        await self._nodes.read("UNLINK", key)
        async for page in job.pages(fold.place.next, state):
            if any(isinstance(payload, Unpacked) for _, payload in page):
                return None
            fold.take(at_places(page))
            call = StageCall(key, before, [StagedEntry(*entry) for entry in page])
            if await self._nodes.run(STAGE, *STAGE.order(call)) != b"staged":
                return None
            before = page[-1][0]
        return as_text(before)


def end_of(job_id: str, reference: Reference, data: bytes) -> tuple[JobState, str | None]:
    """Return the state at a segment's end, and the mark of its last entry; StoreFormatError. Pure."""
    reader = SegmentReader.of(data, reference.size, reference.name, reference.root)
    last = len(reader.tail.blocks) - 1
    offset, size = reader.span(last)
    return from_packed(job_id, reader.read(last, data[offset : offset + size]).state), reader.tail.mark or None


async def _check_beginning(job: CopiedJob, before: JobState, state: JobState) -> None:
    """Refuse a job of which the target has something else than its beginning."""
    end = Place(before.position, before.part)
    if before.incarnation != state.incarnation or before.claim is not None or end >= Place(state.position, state.part):
        raise StoreError("the target has another job of that id, or more of it")
    if state.deleted_to is not None and state.deleted_to >= before.position:
        # What the target has was deleted.
        return
    async for page in job.pages(end, state):
        if page[0][0] == b"%d-%d" % end and mark_of(page[0][1]) == before.mark:
            return
        break
    raise StoreError("it went on otherwise in the target")


def may_be_packed(checkpoint: JobState | None, state: JobState) -> bool:
    """Return whether a checkpoint has all that a packed record in this state lacks. Pure."""
    had, has = ({} if one is None else to_hash(one) for one in (checkpoint, state))
    lacking = {name for name in had.keys() | has.keys() if name not in KEPT_FIELDS or name in ENDS}
    return all(had.get(name) == has.get(name) for name in lacking)


def is_same(before: JobState, state: JobState) -> bool:
    """Return whether two stores have the same job, with the same end. Pure."""
    return (before.incarnation, before.position, before.part, before.mark) == (
        state.incarnation,
        state.position,
        state.part,
        state.mark,
    )
