"""Look at what a store holds: queues, leases, readers of facts, logs that aren't sealed, growth, and its archive.

Nothing is changed but for a trial object in the archive, which is removed. Errors are those of `Nodes`.
"""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from ci_eventstore.archive import Archive
from ci_eventstore.connection.nodes import Nodes, time_ms
from ci_eventstore.connection.replies import WRONG_TYPE, Reply, as_count, as_optional_texts, as_text_map, as_texts
from ci_eventstore.diagnosis.store_rules import (
    ArchiveSeen,
    EndedJob,
    GroupSeen,
    GrowthSeen,
    QueueSeen,
    SealingSeen,
)
from ci_eventstore.errors import ArchiveDiffersError, ArchiveUnavailableError, ProjectionDamagedError
from ci_eventstore.events.archived_log import ArchivedLogs
from ci_eventstore.events.caller import new_token
from ci_eventstore.events.sealed_log import references_in
from ci_eventstore.facts.groups import Groups
from ci_eventstore.keys import NO_QUEUE, JobKeys, Keys, QueueKeys, ended_key, unsealable_key, unsealed_key
from ci_eventstore.members import member_job_id, member_time
from ci_eventstore.queues.overview import queue_names, read_overviews

#: How many leases of a queue are read in each partition, those that end first; and of how many jobs the holder.
LEASES = 500
#: How many jobs that ended last are looked at in all partitions together, and at least in each.
SAMPLE, LEAST_SAMPLE = 1000, 20
#: A store that is younger than this grows less than its first jobs say.
LEAST_SPAN_SECONDS = 3600.0
UNSEALED_LOOKED_AT = 50
#: The beginning of the name of the object that is tried.
TRIAL = "ci-eventstore-doctor-"
CLEANING_SECONDS = 5.0


async def see_queues(nodes: Nodes, keys: Keys) -> list[QueueSeen]:
    """Return what all queues hold, and who takes jobs from them; the last one has the leases of `run`."""
    names = await queue_names(nodes, keys.tags)
    found = {name: _Found() for name in (*names, NO_QUEUE)}
    for tag in keys.tags:
        await _add_partition(nodes, tag, found)
    overviews, now = await read_overviews(nodes, keys, names), datetime.now(UTC)
    waits = {
        queue.name: (queue.waiting, 0.0 if queue.oldest_created_at is None else _seconds(now, queue.oldest_created_at))
        for queue in overviews.queues
    }
    queues = []
    for name, one in found.items():
        waiting, oldest = waits.get(name, (0, 0.0))
        queues.append(
            QueueSeen(
                name=name,
                waiting=waiting,
                oldest_seconds=oldest,
                running=one.running,
                asked=one.asked,
                holders=frozenset(one.holders),
                overdue=one.overdue,
            )
        )
    return queues


def _seconds(later: datetime, earlier: datetime) -> float:
    return max((later - earlier).total_seconds(), 0.0)


@dataclass(slots=True)
class _Found:
    """What was found of one queue so far."""

    running: int = 0
    asked: dict[str, float] = field(default_factory=dict)
    holders: set[str] = field(default_factory=set)
    overdue: list[tuple[str, str, float]] = field(default_factory=list)


async def _add_partition(nodes: Nodes, tag: str, found: Mapping[str, _Found]) -> None:
    """Add what one partition has of all queues, in two round trips."""
    queues, now = [QueueKeys(name, tag) for name in found], await time_ms(nodes, tag)
    commands = [
        command
        for queue in queues
        for command in (
            ("ZRANGEBYSCORE", queue.leases, "-inf", "+inf", "WITHSCORES", "LIMIT", 0, LEASES),
            ("HGETALL", queue.offered),
        )
    ]
    clock, *replies = await nodes.read_many([("HGETALL", queues[0].clock), *commands])
    # The clock stands still while nobody calls a script; the server's own goes on.
    known = as_text_map(clock)
    time = float(known.get("now", 0)) + max(now - float(known.get("seen", now)), 0)
    leases = {
        queue.name: [(job_id, (time - end) / 1000) for job_id, end in _scored(reply)]
        for queue, reply in zip(queues, replies[::2], strict=True)
    }
    for queue, reply in zip(queues, replies[1::2], strict=True):
        for controller, text in as_text_map(reply).items():
            asked = found[queue.name].asked
            asked[controller] = min(asked.get(controller, float("inf")), max(time - _asked_at(text), 0) / 1000)
    ids = [job_id for its in leases.values() for job_id, _ in its]
    holders = await nodes.read_many([("HGET", JobKeys(job_id, tag).hash, "controller") for job_id in ids])
    names = iter("" if name is None or name is WRONG_TYPE else as_texts([name])[0] for name in holders)
    for name, its in leases.items():
        one = found[name]
        for job_id, ago in its:
            holder = next(names)
            one.holders.add(holder)
            if ago > 0:
                one.overdue.append((job_id, holder, ago))
            else:
                one.running += 1


def _scored(reply: Reply) -> list[tuple[str, float]]:
    words = as_texts(reply)
    return [(member, float(score)) for member, score in zip(words[::2], words[1::2], strict=True)]


def _asked_at(text: str) -> float:
    """Return when a controller asked last, by its partition's clock, in milliseconds."""
    words = text.partition("\n")[0].split()
    return float(words[2]) if len(words) > 2 and words[2].isdecimal() else 0.0


async def see_groups(nodes: Nodes, keys: Keys) -> list[GroupSeen]:
    """Return the groups of readers of facts, by the server's clock."""
    groups, now = await Groups(nodes, keys).all(), await time_ms(nodes, keys.tags[0])
    server_now = datetime.fromtimestamp(now / 1000, UTC)
    return [
        GroupSeen(
            name=group.name,
            silent_seconds=_seconds(server_now, group.looked_at),
            behind_seconds=group.behind_seconds,
        )
        for group in groups
    ]


async def see_sealing(nodes: Nodes, tags: Sequence[str]) -> SealingSeen:
    """Return how many ended jobs of some partitions aren't sealed, since when, and those that can't be."""
    seen = SealingSeen(unsealed=0)
    for tag in tags:
        unsealed = unsealed_key(tag)
        first = ("ZRANGEBYSCORE", unsealed, "-inf", "+inf", "WITHSCORES", "LIMIT", 0, UNSEALED_LOOKED_AT)
        count, ended, failed, reply = await nodes.read_many(
            [("ZCARD", unsealed), ("ZCARD", ended_key(tag)), ("HLEN", unsealable_key(tag)), first]
        )
        jobs, now = _scored(reply), await time_ms(nodes, tag)
        oldest = max(now - jobs[0][1], 0) / 1000 if jobs else 0.0
        example = seen.example or (await _failure(nodes, tag, [job_id for job_id, _ in jobs]) if failed else "")
        seen = replace(
            seen,
            unsealed=seen.unsealed + as_count(count),
            oldest_seconds=max(seen.oldest_seconds, oldest),
            ended=seen.ended + as_count(ended),
            failed=seen.failed + as_count(failed),
            example=example,
        )
    return seen


async def _failure(nodes: Nodes, tag: str, job_ids: Sequence[str]) -> str:
    """Return one of the jobs that can't be sealed, and why; "" if it isn't among these."""
    [reply] = await nodes.read_many([("HMGET", unsealable_key(tag), *job_ids)]) if job_ids else [WRONG_TYPE]
    notes = [] if reply is WRONG_TYPE else as_optional_texts(reply)
    found = next(((job_id, text) for job_id, text in zip(job_ids, notes, strict=False) if text), None)
    return "" if found is None else f"job {found[0]}: {' '.join(found[1].split(' ')[2:])}"


async def see_growth(nodes: Nodes, tags: Sequence[str], partitions: int) -> GrowthSeen:
    """Return what the partitions of one server grow by, as the jobs show that ended last; the rest is left open."""
    limit, rate, jobs = max(SAMPLE // partitions, LEAST_SAMPLE), 0.0, list[EndedJob]()
    for tag in tags:
        [reply] = await nodes.read_many([("ZREVRANGEBYLEX", ended_key(tag), "+", "-", "LIMIT", 0, limit)])
        members = as_texts(reply)
        if not members:
            continue
        span = max(_seconds(datetime.now(UTC), member_time(members[-1])), LEAST_SPAN_SECONDS)
        rate += 86_400 * len(members) / span
        ids = [member_job_id(member) for member in members]
        records = await nodes.read_many([("HMGET", JobKeys(job_id, tag).hash, "bytes", "log") for job_id in ids])
        jobs += [_ended_job(job_id, record) for job_id, record in zip(ids, records, strict=True)]
    return GrowthSeen(used_bytes=0, limit_bytes=0, jobs_per_day=rate, jobs=jobs)


def _ended_job(job_id: str, record: Reply) -> EndedJob:
    size, log = (None, None) if record is WRONG_TYPE else as_optional_texts(record)
    text_bytes = int(size) if size and size.isdecimal() else 0
    try:
        references = references_in(job_id, log) if log else []
    except ProjectionDamagedError:
        # `verify` names it.
        references = []
    return EndedJob(
        text_bytes=text_bytes,
        sealed_bytes=sum(one.size for one in references if not one.is_archived),
        archived_bytes=sum(one.size for one in references if one.is_archived),
    )


async def see_archive(nodes: Nodes, keys: Keys, *, is_read_only: bool) -> ArchiveSeen | None:
    """Try the store's archive by an object that is removed again; None if it has no archive."""
    try:
        logs = ArchivedLogs(nodes)
        archive = await logs.archive(keys.tags[0])
    except ArchiveUnavailableError as error:
        return ArchiveSeen(url=error.url, trouble=str(error))
    if archive is None:
        return None
    seen = ArchiveSeen(url=archive.url, is_bucket=not archive.url.startswith("file:"), is_read_only=is_read_only)
    try:
        await archive.check()
        seen = replace(seen, is_foreign=await logs.is_own(keys, archive) is False)
    except ArchiveUnavailableError as error:
        return replace(seen, trouble=str(error))
    return seen if is_read_only else await _try_object(archive, seen)


async def _try_object(archive: Archive, seen: ArchiveSeen) -> ArchiveSeen:
    """Create an object, create it once more with other bytes, read it, and remove it, however that goes."""
    name, first, second = f"{TRIAL}{new_token()}", b"first\n", b"second\n"
    was_created = False
    try:
        await archive.put(name, first)
        was_created = True
        with suppress(ArchiveDiffersError):
            await archive.put(name, second)
        seen = replace(seen, overwrites=await archive.get(name) != first)
    except ArchiveUnavailableError as error:
        seen = replace(seen, trouble=str(error))
    finally:
        is_left = await _is_left(archive, name)
    return replace(seen, leftover=name if is_left or (was_created and is_left is None) else "")


async def _is_left(archive: Archive, name: str) -> bool | None:
    """Remove an object; tell whether it is there still, None if that can't be seen. Also when the trial broke off."""
    with suppress(TimeoutError, ArchiveUnavailableError):
        async with asyncio.timeout(CLEANING_SECONDS):
            await archive.delete(name)
    with suppress(TimeoutError, ArchiveUnavailableError):
        async with asyncio.timeout(CLEANING_SECONDS):
            return await archive.get(name) is not None
    return None
