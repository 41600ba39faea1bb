"""Verify and rebuild what is derived from jobs' streams, while the jobs may be in use.

Many small jobs are compared at a glance; those that this leaves in doubt are looked at one by one.
"""

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

from ci_common.models import JobStatus
from ci_eventstore.connection.nodes import Nodes
from ci_eventstore.connection.replies import WRONG_TYPE, Reply, as_bytes, as_text_map, as_texts
from ci_eventstore.errors import SegmentDamagedError, StoreFormatError
from ci_eventstore.events.log_index import LogIndex
from ci_eventstore.events.log_source import (
    PAGE_ENTRIES,
    TRIES,
    LogSource,
    at_places,
    entries_in,
    last_command,
    range_command,
)
from ci_eventstore.events.records import Place
from ci_eventstore.events.sealed_log import END_BYTES, Reference, end_command, references_in, state_in
from ci_eventstore.jobs.records import ENDING, ended_member, parts_in
from ci_eventstore.jobs.state import JobState, from_packed
from ci_eventstore.keys import JobKeys
from ci_eventstore.members import backlog_member, listing_member
from ci_eventstore.projection.differences import Difference, compare
from ci_eventstore.projection.fold import Fold
from ci_eventstore.projection.rebuild import rebuild
from ci_eventstore.projection.record_fields import compare_fields, place_of
from ci_eventstore.projection.sealed import fold_of_sealed, log_of, read_log

#: Of a ring's fields, those that aren't entries.
RING_COUNTERS = 5


#: What `read_at_once` gives of a job before its listings and its queue.
_FIRST = 8


class JobProjections:
    """The projections of single jobs."""

    def __init__(self, nodes: Nodes, source: LogSource) -> None:
        self._nodes = nodes
        self._source = source

    async def verify(self, keys: JobKeys, *, is_deep: bool = False) -> list[Difference]:
        """Return where the job's hash, sparse index, ring and listings differ from its stream.

        Scripts move all of these together, so they are read in one transaction, and the place that the hash says is
        where the fold has to stop. That of a sealed job begins at its last checkpoint, or, if it is to be deep, at the
        beginning of its first segment.
        """
        subject, tries_left = f"job {keys.job_id}", TRIES
        while True:
            log = await read_log(self._nodes, keys)
            try:
                return await self._compare(subject, keys, is_deep=is_deep)
            except StoreFormatError as error:
                # Segments that were joined meanwhile are gone, or lay elsewhere.
                is_same = await read_log(self._nodes, keys) == log
                tries_left = tries_left - 1 if is_same else TRIES
                if not tries_left or (is_same and not isinstance(error, SegmentDamagedError)):
                    return [Difference(subject, "stream", "entries that can be read", str(error))]

    async def _compare(self, subject: str, keys: JobKeys, *, is_deep: bool) -> list[Difference]:
        stream_type, ending = await self._nodes.read_many([("TYPE", keys.stream), ("HMGET", keys.hash, *ENDING)])
        if stream_type not in (b"stream", b"none"):
            return [Difference(subject, "stream", "a stream", stream_type.decode())]
        log = await read_log(self._nodes, keys)
        fold = await self._begun_fold(keys, log, is_deep=is_deep)
        ended = _ended_in(fold, log, ending)
        replies = await self._look(fold, ended)
        last, hash_reply, index_reply, ring_length, ring_ends, in_ids, in_unsealed, in_ended = replies[:_FIRST]
        found = as_text_map(hash_reply)
        if found.get("log") != log:
            # Between two looks it was sealed.
            return await self._compare(subject, keys, is_deep=is_deep)
        if (not last and log is None) or (place := place_of(found)) is None:
            return await self._without_source(subject, keys, hash_reply, has_stream=bool(last))
        end = _place_of_last(last) if last else fold.place
        if place != end:
            # An entry that can't be read is worse.
            await fold.advance(self._source, end)
            return [Difference(subject, "hash at", str(end), str(place))]
        index = as_texts(index_reply)
        if log is None:
            fold = Fold(keys)
            fold.index = LogIndex(index)
        await fold.advance(self._source, place)
        expected, said = fold.ended_member(), _ended_in(fold, log, _values_of(found, ENDING))
        if said != ended:
            # Between two looks it has ended, or its end has moved.
            return await self._compare(subject, keys, is_deep=is_deep)
        differences = compare_fields(subject, fold, found)
        in_ended = in_ended if said == expected else expected
        differences += _compare_ended(subject, fold, in_unsealed, in_ended, has_stream=bool(last))
        differences += _compare_listings(subject, fold, in_ids, replies[_FIRST:])
        if log is None or is_deep:
            index = index if log is None else await self._source.milestones(keys)
            differences += _compare_index(subject, fold, index, is_list=index_reply is not WRONG_TYPE)
        return differences + _compare_ring(subject, fold, ring_length, ring_ends)

    async def _without_source(
        self, subject: str, keys: JobKeys, hash_reply: Reply, *, has_stream: bool
    ) -> list[Difference]:
        """Return what is wrong with a job that lacks its log or its hash; nothing if there is no such job."""
        if not has_stream and hash_reply:
            return [Difference(subject, "stream", "events", None)]
        if not has_stream and not await self._source.sealed.find(keys):
            return []
        return [Difference(subject, "hash", "a projection", "another type" if hash_reply is WRONG_TYPE else None)]

    async def _look(self, fold: Fold, ended: str) -> list[Reply]:
        keys = fold.keys
        commands = [
            last_command(keys),
            ("HGETALL", keys.hash),
            ("LRANGE", keys.log_index, 0, -1),
            ("HLEN", keys.ring),
            ("HMGET", keys.ring, "first", "last"),
            ("ZSCORE", keys.ids, keys.job_id),
            ("ZSCORE", keys.unsealed, keys.job_id),
            ("ZSCORE", keys.ended, ended),
            *(("ZSCORE", key, fold.member()) for key in fold.listings()),
            *fold.queue_places().values(),
        ]
        return await self._nodes.read_at_once(commands)

    async def rebuild(self, keys: JobKeys) -> bool:
        """Make all that is derived from the job's stream as that says; False if there is none that can be read.

        `rebuild.lua` looks at it and changes only what is wrong.
        """
        while True:
            log = await read_log(self._nodes, keys)
            try:
                lies = await log_of(self._nodes, self._source, keys, log)
                found = await (self._whole_fold(keys) if lies is None else self._sealed_fold(keys, lies))
            except StoreFormatError:
                if await read_log(self._nodes, keys) == log:
                    return False
                continue
            if found is None:
                return False
            if await rebuild(self._nodes, *found, log or "") != b"changed":
                return True

    async def _begun_fold(self, keys: JobKeys, log: str | None, *, is_deep: bool) -> Fold:
        """Return the fold of the first record, which says whose the job is and how old, or that of what was sealed."""
        if log is not None:
            index = await self._source.milestones(keys) if is_deep else None
            return await fold_of_sealed(self._source, keys, log, is_deep=is_deep, index=index)
        fold = Fold(keys)
        if first := at_places(await self._source.range(keys, Place(0), limit=1)):
            fold.take(first)
        return fold

    async def _sealed_fold(self, keys: JobKeys, log: str) -> tuple[Fold, str, list[str]] | None:
        """Return the fold of what segments and stream have, where the stream ends, and the sparse index as it is."""
        fold = await fold_of_sealed(self._source, keys, log, is_deep=False)
        last, index = await self._nodes.read_at_once([last_command(keys), ("LRANGE", keys.log_index, 0, -1)])
        if last is WRONG_TYPE:
            return None
        end = _place_of_last(last) if last else None
        # The record may say something else of where the log lies, so the stream itself is read.
        while end is not None and fold.place < end:
            page = await self._nodes.read(*range_command(keys, fold.place.next, end, PAGE_ENTRIES))
            if not entries_in(page):
                # It was sealed meanwhile, which the script finds.
                break
            fold.take(at_places(entries_in(page)))
        if fold.state is not None:
            fold.state = fold.state.but(log=log)
        return fold, "" if end is None else str(end), as_texts(index)

    async def _whole_fold(self, keys: JobKeys) -> tuple[Fold, str, list[str]] | None:
        """Return the fold of all records, where the stream ends, and the sparse index: if that is wrong, a new one."""
        last, index = await self._nodes.read_at_once([last_command(keys), ("LRANGE", keys.log_index, 0, -1)])
        if last is WRONG_TYPE or not last:
            return None
        end, found = _place_of_last(last), as_texts(index)
        fold = Fold(keys)
        fold.index = LogIndex(found)
        await fold.advance(self._source, end)
        if fold.index.entries != found or fold.index.gap_at is not None:
            fold = Fold(keys)
            await fold.advance(self._source, end)
        return fold, str(end), fold.index.entries


def _place_of_last(reply: Reply) -> Place:
    [(place, _)] = at_places(entries_in(reply))
    return place


def _compare_listings(subject: str, fold: Fold, in_ids: Reply, replies: Sequence[Reply]) -> list[Difference]:
    listings, queue = fold.listings(), fold.belongs_in_queue()
    expected = {key for key, belongs in listings.items() if belongs} | {fold.keys.ids}
    standing = {key for key, score in zip(listings, replies, strict=False) if _is_there(score)}
    if _is_there(in_ids):
        standing.add(fold.keys.ids)
    differences = compare(subject, "listing", dict.fromkeys(expected, "member"), dict.fromkeys(standing, "member"))
    queued = {name for name, entry in zip(queue, replies[len(listings) :], strict=False) if _is_there(entry)}
    places = {name: "an entry" for name, is_there in queue.items() if is_there}
    return differences + compare(subject, "queue", places, dict.fromkeys(queued, "an entry"))


def _values_of(fields: dict[str, str], names: Sequence[str]) -> list[bytes | None]:
    return [as_bytes(fields[name]) if name in fields else None for name in names]


def _ended_in(fold: Fold, log: str | None, ending: Reply) -> str:
    """Return what a record says is the job's member of the ended; a packed one says what its segment does."""
    is_packed = log is not None and ending is not WRONG_TYPE and ending[0] is None
    return fold.ended_member() if is_packed else ended_member(fold.keys, ending)


def _compare_ended(
    subject: str, fold: Fold, in_unsealed: Reply, in_ended: Reply, *, has_stream: bool
) -> list[Difference]:
    """Return what is wrong with the indexes of ended jobs; another end than the stream's is a field's difference."""
    places = (fold.keys.ended, in_ended, True), (fold.keys.unsealed, in_unsealed, has_stream)
    expected = {key: "member" for key, _, belongs in places if belongs and fold.ended_member()}
    return compare(subject, "listing", expected, {key: "member" for key, reply, _ in places if _is_there(reply)})


def _is_there(reply: Reply) -> bool:
    return reply is not WRONG_TYPE and reply not in (None, 0)


def _compare_index(subject: str, fold: Fold, index: list[str], *, is_list: bool) -> list[Difference]:
    if not is_list:
        return [Difference(subject, "sparse index", "a list", "another type")]
    if index != fold.index.entries:
        return [Difference(subject, "sparse index", ", ".join(fold.index.entries), ", ".join(index))]
    if fold.index.gap_at is not None:
        return [Difference(subject, "sparse index", f"an entry before {fold.index.gap_at}", None)]
    return []


def _compare_ring(subject: str, fold: Fold, length: Reply, ends: Reply) -> list[Difference]:
    """Return what is wrong with the ring. Nothing else has its entries: what is lost of them can't be mended."""
    if length is WRONG_TYPE:
        return [Difference(subject, "ring", "a hash", "another type")]
    if not fold.has_ring:
        return [Difference(subject, "ring", None, f"{length} fields")] if length else []
    first, last = (int(text) if text and text.isdigit() else None for text in ends)
    expected = None if first is None or last is None else last - first + 1 + RING_COUNTERS
    if length and expected == length:
        return []
    return [Difference(subject, "ring", f"{expected or 'its'} fields", f"{length} fields" if length else None)]


#: The fields that say what there has to be of a job, and how much.
PLANNED = (
    *("status", "user_id", "created_at", "end_time", "queue", "claim", "ends_if_lost"),
    *("position", "bytes", "truncated_at", "log"),
)
#: Jobs of one partition that are read in one transaction.
TOGETHER = 50
#: While one transaction is compared, the server answers others.
AT_A_TIME = 4
#: A job with more than this is read by itself.
SMALL_ENTRIES = 400
SMALL_BYTES = 64 * 1024


class _Plan(NamedTuple):
    """A job as its hash says it is, and the commands that show whether its stream and indexes say so, too."""

    keys: JobKeys
    #: How the hash was when the commands were made from it.
    identity: tuple[object, ...]
    commands: Sequence[tuple[str | int, ...]]
    #: Where the log of a sealed job lies: in one small segment.
    segment: Reference | None = None


async def doubtful(nodes: Nodes, source: LogSource, jobs: Sequence[JobKeys]) -> list[JobKeys]:
    """Return those jobs that have to be looked at one by one: large, damaged, or changed between two looks."""
    hashes = await nodes.read_many([("HMGET", keys.hash, *PLANNED) for keys in jobs])
    plans, left = defaultdict[str, list[_Plan]](list), list[JobKeys]()
    for keys, state in zip(jobs, await parts_in(nodes, source, jobs, PLANNED, hashes), strict=True):
        plan = _plan(keys, state)
        if plan is None:
            left.append(keys)
        else:
            plans[keys.tag].append(plan)
    looks = [
        of_partition[start : start + TOGETHER]
        for of_partition in plans.values()
        for start in range(0, len(of_partition), TOGETHER)
    ]
    for start in range(0, len(looks), AT_A_TIME):
        for found in await asyncio.gather(*(_look(nodes, look) for look in looks[start : start + AT_A_TIME])):
            left += found
    return left


def _plan(keys: JobKeys, state: JobState | None) -> _Plan | None:
    if state is None:
        return None
    try:
        references = references_in(keys.job_id, state.log) if state.log is not None else []
    except StoreFormatError:
        return None
    if state.position > SMALL_ENTRIES // 2 or state.bytes > SMALL_BYTES or state.truncated_at is not None:
        return None
    if len(references) > 1 or (references and (references[0].is_archived or references[0].size > END_BYTES)):
        return None
    segment = references[0] if references else None
    member, queue = listing_member(state.created_at, keys.job_id), keys.queue(state.lease_queue)
    commands: list[tuple[str | int, ...]] = [
        range_command(keys, Place(0), None, SMALL_ENTRIES) if segment is None else end_command(keys, segment),
        ("HGETALL", keys.hash),
        ("EXISTS", keys.log_index, keys.ring, *(() if segment is None else (keys.stream,))),
        ("ZSCORE", keys.ids, keys.job_id),
        *(("ZSCORE", listing, member) for listing in keys.listings(state.user_id, state.status)),
    ]
    ended = state.ended_member(keys.job_id)
    if ended:
        commands.append(("ZSCORE", keys.ended, ended))
        commands.append(("ZSCORE", keys.unsealed, keys.job_id))
    if state.status is JobStatus.QUEUED:
        waiting = backlog_member(state.user_id, state.created_at, keys.job_id)
        commands += [("ZSCORE", queue.backlog, waiting), ("HGET", queue.tickets, state.user_id or "")]
        commands.append(("XLEN", queue.dispatch))
    if state.claim is not None:
        commands.append(("ZSCORE", queue.leases, keys.job_id))
    return _Plan(keys, _identity(state), commands, segment)


def _identity(state: JobState) -> tuple[object, ...]:
    """Return what says where a job has to stand."""
    return (state.user_id, state.status, state.created_at, state.end_time, state.lease_queue, state.claim)


async def _look(nodes: Nodes, plans: Sequence[_Plan]) -> list[JobKeys]:
    replies = await nodes.read_at_once([command for plan in plans for command in plan.commands])
    left, start = [], 0
    for plan in plans:
        end = start + len(plan.commands)
        if not _is_right(plan, replies[start:end]):
            left.append(plan.keys)
        start = end
    return left


def _is_right(plan: _Plan, replies: Sequence[Reply]) -> bool:
    first, fields, others, *standing = replies
    if any(reply is WRONG_TYPE for reply in replies) or not first or others:
        return False
    if plan.segment is not None and standing.pop() is not None:
        # Something came later.
        return False
    found = as_text_map(fields)
    if any(reply in (None, 0) for reply in standing) or found.get("log") != (plan.segment and str(plan.segment)):
        return False
    fold = Fold(plan.keys)
    try:
        if plan.segment is not None:
            fold.state = from_packed(plan.keys.job_id, state_in(first, plan.segment)).but(mark=found.get("mark"))
        elif len(first) < SMALL_ENTRIES:
            fold.take(at_places(entries_in(first)))
    except StoreFormatError:
        return False
    if fold.state is None or (plan.segment is not None and fold.place != plan.segment.last):
        return False
    # What a packed record lacks says nothing of where a job has to stand that has ended.
    known = len(plan.identity) if plan.segment is None else -2
    return _identity(fold.state)[:known] == plan.identity[:known] and not compare_fields("", fold, found)
