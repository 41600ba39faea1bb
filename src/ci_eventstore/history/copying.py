"""Copy a store into another one: what it holds, never what refers to it, so that the other may be cut differently.

A job is brought in pieces that nobody sees and that expire, then becomes one by a single script, as `rebuild` would
make it of its log. So a copy may be stopped anywhere and repeated: it brings what is new or longer, and changes nothing
else. Jobs are compared afterwards, entry by entry, as readers of both stores get them.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from hashlib import blake2b
from typing import NamedTuple

from ci_common.errors import RepositoryError
from ci_common.models import JobStatus
from ci_eventstore.connection.call_names import Key
from ci_eventstore.connection.replies import WRONG_TYPE, as_text, is_unicode
from ci_eventstore.connection.scripts import load_script
from ci_eventstore.engine import Engine
from ci_eventstore.errors import (
    ConfigurationError,
    OutcomeUnknownError,
    StoreError,
    StoreFormatError,
    StoreUnavailableError,
)
from ci_eventstore.events.caller import new_token
from ci_eventstore.events.codec import mark_of
from ci_eventstore.events.log_source import Standing, at_places, read_standing
from ci_eventstore.events.records import Place
from ci_eventstore.events.sealed_log import END_BYTES, Reference, StoredEntry, references_in
from ci_eventstore.history.seal import PAGE_BYTES, STAGED_MS
from ci_eventstore.jobs.delete import delete_job
from ci_eventstore.jobs.records import read_record
from ci_eventstore.jobs.state import KEPT_FIELDS, JobState, from_packed, to_hash
from ci_eventstore.jobs.tombstones import Tombstone, read_tombstone
from ci_eventstore.keys import JobKeys, gone_key, ids_key, queues_key, segment_key, staged_key
from ci_eventstore.projection.differences import Progress
from ci_eventstore.projection.fold import Fold
from ci_eventstore.projection.rebuild import Copied, rebuild

#: Jobs that are copied, or compared, at the same time.
TOGETHER = 8
#: How often a job is read anew that is sealed, deleted or written to meanwhile.
LOOKS = 10
DIGEST_BYTES = 20


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


_Work = Callable[[str], Awaitable[None]]


class Copier:
    """Copies the jobs of one store, and its tombstones, into another."""

    def __init__(self, source: Engine, target: Engine, progress: Progress | None = None) -> None:
        self._source = source
        self._target = target
        self._progress = progress
        self._token = new_token()
        self._total = self._done = 0
        self.report = CopyReport()

    async def copy(self) -> CopyReport:
        """Copy, then compare; StoreUnavailableError, OutcomeUnknownError. What fails for one job is named.

        ConfigurationError if both are the same store.
        """
        nodes, incarnation = self._source.nodes, await self._source.incarnation.read()
        if incarnation is not None and incarnation == await self._target.incarnation.read():
            raise ConfigurationError(
                "both are the same store; if one was restored from a backup, run `ci-eventstore restored` there first"
            )
        sizes = await nodes.read_many([("ZCARD", ids_key(tag)) for tag in self._source.keys.tags])
        self._total = 2 * sum(size for size in sizes if size is not WRONG_TYPE)
        await self._copy_tombstones()
        await self._for_all(self._copy_one)
        if self.report.copied or self.report.deleted:
            # Their facts aren't told, so groups look anew.
            await self._target.facts.forget_facts()
        await self._for_all(self._compare_one)
        return self.report

    async def _for_all(self, work: _Work) -> None:
        async for job_ids in self._job_ids():
            for start in range(0, len(job_ids), TOGETHER):
                some = job_ids[start : start + TOGETHER]
                await asyncio.gather(*(self._try(work, job_id) for job_id in some))
                self._done += len(some)
                if self._progress is not None:
                    self._progress(self._done, max(self._done, self._total))

    async def _job_ids(self) -> AsyncIterator[list[str]]:
        """Yield the source's jobs, page by page; some may come twice."""
        for tag in self._source.keys.tags:
            async for page in self._source.nodes.scan_members("ZSCAN", ids_key(tag)):
                yield [*dict.fromkeys(filter(is_unicode, page[::2]))]

    async def _try(self, work: _Work, job_id: str) -> None:
        try:
            await work(job_id)
        except (StoreUnavailableError, OutcomeUnknownError):
            raise
        except RepositoryError as error:
            self.report.left[f"job {job_id}"] = str(error)

    # Tombstones

    async def _copy_tombstones(self) -> None:
        for tag in self._source.keys.tags:
            async for page in self._source.nodes.scan_members("HSCAN", gone_key(tag)):
                for job_id, text in zip(page[::2], page[1::2], strict=True):
                    await self._try(partial(self._copy_tombstone, text=text), job_id)

    async def _copy_tombstone(self, job_id: str, text: str) -> None:
        """Put a tombstone there, in place of the job that it is of; another job of that id stays, and is named."""
        tombstone, keys = Tombstone.parse(job_id, text), self._target.keys.job(job_id)
        nodes, source = self._target.nodes, self._target.reader.source
        if await read_tombstone(nodes, keys) is not None:
            return
        state = await read_record(nodes, source, keys)
        if state is not None:
            if (state.incarnation or "") != tombstone.incarnation:
                raise StoreError("it was deleted, and the target has another job of that id")
            await delete_job(nodes, source, keys, tombstone.reason)
        elif await read_standing(nodes, keys) is Standing.UNPROJECTED:
            raise StoreError("it was deleted, and the target has a log of that id: run `ci-eventstore rebuild` there")
        await nodes.read("HSET", gone_key(keys.tag), job_id, text)
        self.report.deleted += 1

    # Jobs

    async def _copy_one(self, job_id: str) -> None:
        source, keys = self._source.keys.job(job_id), self._target.keys.job(job_id)
        for _ in range(LOOKS):
            state = await read_record(self._source.nodes, self._source.reader.source, source)
            if state is None:
                await self._check_missing(source)
                return
            if why := why_not(state):
                raise StoreError(why)
            before = await self._before(keys)
            if before is not None and is_same(before, state):
                self.report.already += 1
                return
            if before is not None:
                await self._check_beginning(source, before, state)
            try:
                is_done = await self._bring(source, keys, state, before)
            except StoreFormatError:
                # Unless it was sealed or deleted meanwhile.
                if await read_record(self._source.nodes, self._source.reader.source, source) == state:
                    raise
                continue
            if is_done:
                self.report.copied += 1
                return
        raise StoreError("it is written to all the time: copy it later")

    async def _check_missing(self, keys: JobKeys) -> None:
        """Pass over a job that was deleted meanwhile: the next copy brings its tombstone."""
        if await read_standing(self._source.nodes, keys) is Standing.UNPROJECTED:
            raise StoreError("it has no record: run `ci-eventstore rebuild` first")

    async def _before(self, keys: JobKeys) -> JobState | None:
        """Return what the target has of a job; StoreError if none can be put there."""
        state = await read_record(self._target.nodes, self._target.reader.source, keys)
        if state is None:
            match await read_standing(self._target.nodes, keys):
                case Standing.GONE:
                    raise StoreError("the target has deleted it")
                case Standing.UNPROJECTED:
                    raise StoreError("the target has a log of that id: run `ci-eventstore rebuild` there")
        return state

    async def _check_beginning(self, keys: JobKeys, before: JobState, state: JobState) -> None:
        """Refuse a job of which the target has something else than its beginning."""
        end = Place(before.position, before.part)
        if (
            before.incarnation != state.incarnation
            or before.claim is not None
            or end >= Place(state.position, state.part)
        ):
            raise StoreError("the target has another job of that id, or more of it")
        if state.deleted_to is not None and state.deleted_to >= before.position:
            # What the target has was deleted.
            return
        found = at_places(await self._source.reader.source.range(keys, end, end, 1))
        if not found or mark_of(found[0][1]) != before.mark:
            raise StoreError("it went on otherwise in the target")

    async def _bring(self, source: JobKeys, keys: JobKeys, state: JobState, before: JobState | None) -> bool:
        """Bring all of a job, and make it one; False if something has changed meanwhile."""
        references = references_in(source.job_id, state.log) if state.log else []
        for reference in references:
            await self._stage_segment(source, keys, reference)
        fold, index, checkpoint = Fold(keys), list[str](), None
        if references:
            logs = self._source.reader.source
            checkpoint = from_packed(source.job_id, await logs.sealed.state(source, references))
            reader = await logs.sealed.reader(source, references[-1])
            fold.state = checkpoint.but(mark=reader.tail.mark or None)
            after = fold.place.position
            milestones = [(int(entry.partition(" ")[0]), entry) for entry in await logs.milestones(source)]
            index = [entry for position, entry in milestones if after < position <= state.position]
        end = await self._stage_entries(source, fold, state)
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
        index = index if references else fold.index.entries
        answer = await rebuild(self._target.nodes, fold, end, index, log_before, copied)
        if answer != b"changed" and fold.state.status is JobStatus.QUEUED and fold.state.queue:
            await self._target.nodes.read("SADD", queues_key(self._target.keys), fold.state.queue)
        return answer != b"changed"

    async def _stage_segment(self, source: JobKeys, keys: JobKeys, reference: Reference) -> None:
        """Put a segment there, for a while; one that is there has the bytes that its name says."""
        data = await self._source.reader.source.sealed.data(source, reference)
        key = segment_key(keys, reference.name)
        commands = [("SET", key, data, "NX", "PX", STAGED_MS), ("STRLEN", key)]
        _, size = await self._target.nodes.read_many(commands)
        if size != reference.size or len(data) != size:
            raise StoreFormatError(f"segment {reference.name} of job {source.job_id!r} isn't there as it should be")

    async def _stage_entries(self, source: JobKeys, fold: Fold, state: JobState) -> str | None:
        """Put what doesn't lie in segments into a stream, and fold it; return its last place, None if it has gone."""
        key, before = staged_key(fold.keys, self._token), b""
        await self._target.nodes.read("UNLINK", key)
        async for page in _pages(self._source, source, fold.place, state):
            fold.take(at_places(page))
            call = StageCall(key, before, [StagedEntry(*entry) for entry in page])
            if await self._target.nodes.run(STAGE, *STAGE.order(call)) != b"staged":
                return None
            before = page[-1][0]
        return as_text(before)

    # Comparison

    async def _compare_one(self, job_id: str) -> None:
        if f"job {job_id}" in self.report.left:
            return
        source, target = await self._digest(self._source, job_id), await self._digest(self._target, job_id)
        if source is None and target is None:
            return
        self.report.compared += 1
        self.report.source_digest = add_digest(self.report.source_digest, source)
        self.report.target_digest = add_digest(self.report.target_digest, target)
        if source != target:
            self.report.different.append(job_id)

    async def _digest(self, engine: Engine, job_id: str) -> bytes | None:
        """Return the digest of a job as readers get it: its state, and each entry with its place."""
        keys, digest = engine.keys.job(job_id), blake2b(digest_size=DIGEST_BYTES)
        state = await read_record(engine.nodes, engine.reader.source, keys)
        if state is None:
            return None
        digest.update(repr((job_id, state.but(log=None, mark=None))).encode("utf-8", "surrogateescape"))
        async for page in _pages(engine, keys, Place(0), state):
            for place, payload in page:
                digest.update(b"%s %d " % (place, len(payload)))
                digest.update(payload)
        return digest.digest()


async def _pages(engine: Engine, keys: JobKeys, after: Place, state: JobState) -> AsyncIterator[list[StoredEntry]]:
    """Yield what comes after a place, up to where the record ends, about a megabyte at a time; StoreFormatError."""
    end, count = Place(state.position, state.part), state.extent.page_entries(PAGE_BYTES, least=1)
    while after < end:
        page = await engine.reader.source.range(keys, after.next, end, count)
        if not page:
            raise StoreFormatError(f"job {keys.job_id!r}: nothing is there after {after}, its record says {end}")
        yield page
        after = Place.parse(page[-1][0])


def why_not(state: JobState) -> str | None:
    """Return why a job in this state can't be copied, None if it can. Pure."""
    if state.status is JobStatus.RUNNING or state.claim is not None:
        return "it is running"
    if state.truncated_at is not None and state.end_position is None:
        return "its log has outgrown its budget, and its end isn't written yet"
    return None


def may_be_packed(checkpoint: JobState | None, state: JobState) -> bool:
    """Return whether a checkpoint has all that a packed record in this state lacks. Pure."""
    had, has = ({} if one is None else to_hash(one) for one in (checkpoint, state))
    return all(had.get(name) == has.get(name) for name in had.keys() | has.keys() if name not in KEPT_FIELDS)


def is_same(before: JobState, state: JobState) -> bool:
    """Return whether two stores have the same job, with the same end. Pure."""
    return (before.incarnation, before.position, before.part, before.mark) == (
        state.incarnation,
        state.position,
        state.part,
        state.mark,
    )


def add_digest(total: int, digest: bytes | None) -> int:
    """Return a sum of digests with one more. Pure."""
    return (total + int.from_bytes(digest or b"")) % (1 << 8 * DIGEST_BYTES)
