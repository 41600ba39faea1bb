"""Delete one job that has ended: its tombstone first, then all that is the job's, in one script.

A deletion may be repeated by anybody, however often: who finds the tombstone has nothing left to do.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from ci_common.errors import InvalidTransitionError, JobGoneError, JobNotFoundError
from ci_common.transitions import ENDED
from ci_eventstore.connection.call_names import Key
from ci_eventstore.connection.nodes import Nodes
from ci_eventstore.connection.scripts import load_script
from ci_eventstore.errors import StoreError
from ci_eventstore.events.log_source import LogSource, check_standing
from ci_eventstore.events.sealed_log import references_in
from ci_eventstore.facts.facts import FactKind, fact_text
from ci_eventstore.jobs.records import read_record
from ci_eventstore.jobs.state import JobState
from ci_eventstore.jobs.tombstones import Reason, Tombstone
from ci_eventstore.keys import JobKeys, facts_key, gone_key, listing_member, segment_key, sort_key, unsealable_key

#: How often a job is read again that was written to meanwhile.
LOOKS = 20


class DeleteCall(NamedTuple):
    """What `delete.lua` is called with."""

    hash: Key
    stream: Key
    calls: Key
    log_index: Key
    ring: Key
    ids: Key
    ended_jobs: Key
    unsealed: Key
    unsealable: Key
    gone: Key
    facts: Key
    id: str
    #: The tombstone, but for the server's time that stands after its letters.
    letters: str
    tombstone: str
    #: The fact of all jobs that it comes to.
    fact: str
    #: The job as it was read.
    version: str
    position: str
    part: str
    incarnation: str
    log: str
    #: Its members of the listings and of the ended.
    member: str
    ended: str
    listings: Sequence[Key]
    segments: Sequence[Key]


DELETE = load_script(__package__, "delete", call=DeleteCall)


async def delete_job(
    nodes: Nodes,
    source: LogSource,
    keys: JobKeys,
    reason: Reason,
    user_id: str | None = None,
    *,
    takes: Callable[[JobState], bool] | None = None,
) -> bool:
    """Delete a job that has ended, as long as `takes` says so; False: it was deleted before, or isn't taken.

    Given a user, only theirs.

    JobNotFoundError, InvalidTransitionError (it hasn't ended), ProjectionMissingError, StoreFormatError.
    """
    for _ in range(LOOKS):
        state = await read_record(nodes, source, keys)
        if state is None or user_id not in (None, state.user_id):
            try:
                await check_standing(nodes, keys)
            except JobGoneError:
                return False
            raise JobNotFoundError(keys.job_id)
        if state.status not in ENDED or state.claim is not None:
            raise InvalidTransitionError(keys.job_id, state.status, "deleted", "cancel it first")
        if takes is not None and not takes(state):
            return False
        call = _call(keys, state, reason)
        answer = await nodes.run(DELETE, *DELETE.order(call))
        if answer in (b"deleted", b"gone"):
            return bool(answer == b"deleted")
    raise StoreError(f"job {keys.job_id!r} is written to all the time: delete it later")


def _call(keys: JobKeys, state: JobState, reason: Reason) -> DeleteCall:
    references = references_in(keys.job_id, state.log) if state.log else []
    tombstone = Tombstone(
        reason,
        state.status,
        sort_key(state.created_at),
        sort_key(state.end_time or state.created_at),
        state.incarnation or "",
    )
    return DeleteCall(
        keys.hash,
        keys.stream,
        keys.calls,
        keys.log_index,
        keys.ring,
        keys.ids,
        keys.ended,
        keys.unsealed,
        unsealable_key(keys.tag),
        gone_key(keys.tag),
        facts_key(keys.tag),
        id=keys.job_id,
        letters=tombstone.letters,
        tombstone=tombstone.rest,
        fact=fact_text(FactKind.DELETED, state.status),
        version=str(state.version),
        position=str(state.position),
        part=str(state.part),
        incarnation=state.incarnation or "",
        log=state.log or "",
        member=listing_member(state.created_at, keys.job_id),
        ended=state.ended_member(keys.job_id),
        listings=keys.listings(state.user_id, state.status),
        segments=[segment_key(keys, reference.name) for reference in references],
    )
