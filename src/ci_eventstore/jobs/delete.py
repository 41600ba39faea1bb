"""Delete one job that has ended, or its log alone.

Of a job its tombstone comes first, then all that is the job's goes, in one script. Its log goes in one script, too: the
fact of it begins a new stream, and has the state that the log said. Both may be repeated by anybody, however often.

In a store with an archive, that is told first, and its objects go last: if it is away, nothing is deleted; if it goes
away after that, the next call, or `archive check`, removes what is left there.
"""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import NamedTuple

from ci_common.errors import InvalidTransitionError, JobGoneError, JobNotFoundError
from ci_common.models import utc_now
from ci_common.transitions import ENDED
from ci_eventstore.connection.call_names import Key
from ci_eventstore.connection.nodes import Nodes, time_ms
from ci_eventstore.connection.scripts import load_script
from ci_eventstore.errors import StoreError
from ci_eventstore.events.append import Field
from ci_eventstore.events.archived_log import name_in_archive
from ci_eventstore.events.codec import encode
from ci_eventstore.events.log_index import first_entry
from ci_eventstore.events.log_source import BEGINNING, LogSource, check_standing
from ci_eventstore.events.records import Fact, FactType, Place
from ci_eventstore.events.sealed_log import references_in
from ci_eventstore.facts.facts import FactKind, fact_text, owner_mark
from ci_eventstore.jobs.packed_records import PIECES
from ci_eventstore.jobs.records import read_record
from ci_eventstore.jobs.state import JobState, checkpoint_fields, to_hash
from ci_eventstore.jobs.tombstones import (
    Deletion,
    Reason,
    Tombstone,
    note_deletion,
    read_tombstone,
    remove_deleted,
)
from ci_eventstore.keys import JobKeys, facts_key, gone_key, segment_key, unsealable_key
from ci_eventstore.members import listing_member, sort_key

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
    #: The fact of all jobs that it comes to, and the mark of the owner.
    fact: str
    owner: str
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


class DeleteLogCall(NamedTuple):
    """What `delete_log.lua` is called with."""

    hash: Key
    stream: Key
    log_index: Key
    ring: Key
    unsealed: Key
    unsealable: Key
    gone: Key
    facts: Key
    id: str
    #: The fact of all jobs that it comes to.
    fact: str
    #: The job as it was read.
    version: str
    position: str
    part: str
    incarnation: str
    log: str
    #: What the log shall have: an entry at a place, and one of the sparse index, "" for none.
    place: str
    entry: bytes
    milestone: str
    segments: Sequence[Key]
    #: Of the record as it shall be.
    fields: Sequence[Field]


DELETE_LOG = load_script(__package__, "delete_log", {"PIECES": PIECES}, call=DeleteLogCall)


async def delete_job(
    nodes: Nodes,
    source: LogSource,
    keys: JobKeys,
    reason: Reason,
    user_id: str | None = None,
    *,
    takes: Callable[[JobState], bool] | None = None,
    marks_owner: bool = True,
) -> bool:
    """Delete a job that has ended, as long as `takes` says so; False: it was deleted before, or isn't taken.

    Given a user, only theirs. With `marks_owner` its fact recognises the owner.

    JobNotFoundError, InvalidTransitionError (it hasn't ended), ProjectionMissingError, StoreFormatError,
    ArchiveUnavailableError.
    """
    archive, noted = await source.sealed.archived.archive(keys.tag), None
    for _ in range(LOOKS):
        try:
            state = await _ended_state(nodes, source, keys, user_id)
        except JobGoneError:
            tombstone = await read_tombstone(nodes, keys)
            if archive is not None and tombstone is not None:
                await remove_deleted(archive, keys, tombstone.incarnation, Deletion(keys.job_id, tombstone))
            return False
        if takes is not None and not takes(state):
            if archive is not None and noted is not None:
                await archive.delete(name_in_archive(keys, state.incarnation, noted.name))
            return False
        call = _call(keys, state, reason, owner_mark(keys.job_id, state.user_id) if marks_owner else "")
        if archive is not None:
            tombstone = _tombstone(state, reason)._replace(deleted_ms=await time_ms(nodes, keys.tag))
            noted = Deletion(keys.job_id, tombstone)
            await note_deletion(archive, keys, state.incarnation, noted)
        answer = await nodes.run(DELETE, *DELETE.order(call))
        if answer in (b"deleted", b"gone"):
            if archive is not None and noted is not None:
                await remove_deleted(archive, keys, state.incarnation, noted)
            return bool(answer == b"deleted")
    raise StoreError(f"job {keys.job_id!r} is written to all the time: delete it later")


async def delete_log(nodes: Nodes, source: LogSource, keys: JobKeys, user_id: str | None = None) -> bool:
    """Delete the log of a job that has ended; False: it was deleted before, and nothing came after it.

    Given a user, only theirs.

    JobNotFoundError, JobGoneError, InvalidTransitionError (it hasn't ended), ProjectionMissingError, StoreFormatError,
    ArchiveUnavailableError.
    """
    archive = await source.sealed.archived.archive(keys.tag)
    for _ in range(LOOKS):
        state = await _ended_state(nodes, source, keys, user_id)
        # What an older store has again may lack its objects, and is deleted without being read.
        first = [] if state.deleted_to is None else await source.range(keys, BEGINNING, limit=1)
        end = Place(state.position, state.part)
        is_repeated = bool(first) and first[0][0] == b"%d-%d" % end
        # The log begins at the place after that of the last entry that was deleted.
        deletion = Deletion(keys.job_id, until=end._replace(part=end.part - 1) if is_repeated else end)
        call = _log_call(keys, state, utc_now())
        if archive is not None and not is_repeated:
            await note_deletion(archive, keys, state.incarnation, deletion)
        if is_repeated or await nodes.run(DELETE_LOG, *DELETE_LOG.order(call)) == b"deleted":
            if archive is not None:
                await remove_deleted(archive, keys, state.incarnation, deletion)
            return not is_repeated
    raise StoreError(f"job {keys.job_id!r} is written to all the time: delete its log later")


async def _ended_state(nodes: Nodes, source: LogSource, keys: JobKeys, user_id: str | None) -> JobState:
    """Return the state of a job that may be deleted; the errors of `delete_log`."""
    state = await read_record(nodes, source, keys)
    if state is None or user_id not in (None, state.user_id):
        await check_standing(nodes, keys)
        raise JobNotFoundError(keys.job_id)
    if state.status not in ENDED or state.claim is not None:
        raise InvalidTransitionError(keys.job_id, state.status, "deleted", "cancel it first")
    return state


def _log_call(keys: JobKeys, state: JobState, now: datetime) -> DeleteLogCall:
    end = Place(state.position, state.part).next
    after = state.but(version=state.version + 1, part=end.part, log=None, deleted_to=state.position)
    deletion = Fact(FactType.LOG_DELETED, now, checkpoint_fields(after))
    return DeleteLogCall(
        *(keys.hash, keys.stream, keys.log_index, keys.ring, keys.unsealed),
        *(unsealable_key(keys.tag), gone_key(keys.tag), facts_key(keys.tag)),
        id=keys.job_id,
        fact=fact_text(FactKind.LOG_DELETED, state.status),
        version=str(state.version),
        position=str(state.position),
        part=str(state.part),
        incarnation=state.incarnation or "",
        log=state.log or "",
        place=str(end),
        entry=encode(deletion),
        milestone=first_entry(deletion) if state.position else "",
        segments=_segments(keys, state),
        fields=[Field(name, value) for name, value in to_hash(after.but(mark=None)).items()],
    )


def _segments(keys: JobKeys, state: JobState) -> Sequence[str]:
    references = references_in(keys.job_id, state.log) if state.log else []
    return [segment_key(keys, reference.name) for reference in references]


def _tombstone(state: JobState, reason: Reason) -> Tombstone:
    times = sort_key(state.created_at), sort_key(state.end_time or state.created_at)
    return Tombstone(reason, state.status, *times, state.incarnation or "")


def _call(keys: JobKeys, state: JobState, reason: Reason, mark: str) -> DeleteCall:
    tombstone = _tombstone(state, reason)
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
        owner=mark,
        version=str(state.version),
        position=str(state.position),
        part=str(state.part),
        incarnation=state.incarnation or "",
        log=state.log or "",
        member=listing_member(state.created_at, keys.job_id),
        ended=state.ended_member(keys.job_id),
        listings=keys.listings(state.user_id, state.status),
        segments=_segments(keys, state),
    )
