"""Tell of many small jobs at a time which of them are plainly as their streams say."""

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

from ci_common.models import JobStatus
from ci_eventstore.connection.nodes import Nodes
from ci_eventstore.connection.replies import WRONG_TYPE, Reply, as_text_map
from ci_eventstore.errors import StoreFormatError
from ci_eventstore.events.log_source import at_places, entries_in, range_command
from ci_eventstore.events.records import Place
from ci_eventstore.jobs.state import part_of_state
from ci_eventstore.keys import JobKeys, backlog_member, listing_member
from ci_eventstore.projection.fold import Fold
from ci_eventstore.projection.jobs import compare_fields

#: The fields that say what there has to be of a job, and how much.
PLANNED = ("status", "user_id", "created_at", "queue", "claim", "ends_if_lost", "position", "bytes", "truncated_at")
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


async def doubtful(nodes: Nodes, jobs: Sequence[JobKeys]) -> list[JobKeys]:
    """Return those jobs that have to be looked at one by one: large, damaged, or changed between two looks."""
    hashes = await nodes.read_many([("HMGET", keys.hash, *PLANNED) for keys in jobs])
    plans, left = defaultdict[str, list[_Plan]](list), list[JobKeys]()
    for keys, reply in zip(jobs, hashes, strict=True):
        plan = _plan(keys, reply)
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


def _plan(keys: JobKeys, reply: Reply) -> _Plan | None:
    if reply is WRONG_TYPE:
        return None
    try:
        state = part_of_state(keys.job_id, PLANNED, reply)
    except StoreFormatError:
        return None
    if state.position > SMALL_ENTRIES // 2 or state.bytes > SMALL_BYTES or state.truncated_at is not None:
        return None
    member, queue = listing_member(state.created_at, keys.job_id), keys.queue(state.lease_queue)
    commands: list[tuple[str | int, ...]] = [
        range_command(keys, Place(0), None, SMALL_ENTRIES),
        ("HGETALL", keys.hash),
        ("EXISTS", keys.log_index, keys.ring),
        ("ZSCORE", keys.ids, keys.job_id),
        *(("ZSCORE", listing, member) for listing in keys.listings(state.user_id, state.status)),
    ]
    if state.status is JobStatus.QUEUED:
        waiting = backlog_member(state.user_id, state.created_at, keys.job_id)
        commands += [("ZSCORE", queue.backlog, waiting), ("HGET", queue.tickets, state.user_id or "")]
        commands.append(("XLEN", queue.dispatch))
    if state.claim is not None:
        commands.append(("ZSCORE", queue.leases, keys.job_id))
    identity = (state.user_id, state.status, state.created_at, state.lease_queue, state.claim)
    return _Plan(keys, identity, commands)


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
    entries, fields, index_or_ring, *standing = replies
    if any(reply is WRONG_TYPE for reply in replies) or not entries or index_or_ring:
        return False
    if any(reply in (None, 0) for reply in standing) or len(entries) >= SMALL_ENTRIES:
        return False
    fold = Fold(plan.keys)
    try:
        fold.take(at_places(entries_in(entries)))
    except StoreFormatError:
        return False
    state = fold.state
    if (
        state is None
        or (state.user_id, state.status, state.created_at, state.lease_queue, state.claim) != plan.identity
    ):
        return False
    return not compare_fields("", fold, as_text_map(fields))
