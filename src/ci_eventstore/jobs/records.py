"""Read jobs' records: their hashes, and what of small sealed jobs lies in their segments."""

from collections.abc import Sequence

from ci_eventstore.connection.nodes import Nodes
from ci_eventstore.connection.replies import WRONG_TYPE, Reply, as_bytes, as_text
from ci_eventstore.errors import ProjectionDamagedError, StoreFormatError
from ci_eventstore.events.log_source import TRIES, LogSource
from ci_eventstore.events.sealed_log import ARCHIVED
from ci_eventstore.jobs.packed_records import packed_log
from ci_eventstore.jobs.state import JobState, from_hash, from_packed, part_of_state
from ci_eventstore.keys import JobKeys

#: The fields that say when a job has ended.
ENDING = ("status", "created_at", "end_time")
#: A job's state, None if it has no hash, or what is wrong with its record.
Record = JobState | StoreFormatError | None


async def read_records(
    nodes: Nodes, source: LogSource, jobs: Sequence[JobKeys], tries_left: int = TRIES
) -> list[Record]:
    """Return the states that the records of some jobs say; StoreUnavailableError."""
    replies = await nodes.read_many([("HGETALL", as_bytes(keys.hash)) for keys in jobs])
    logs = {number: log for number, reply in enumerate(replies) if (log := packed_log(reply)) is not None}
    found = [None if number in logs else _record_in(jobs[number], reply) for number, reply in enumerate(replies)]
    states = await source.sealed.states([(jobs[number], log) for number, log in logs.items()]) if logs else []
    for (number, log), state in zip(logs.items(), states, strict=True):
        found[number] = _unpacked(jobs[number], replies[number], state)
        if isinstance(state, StoreFormatError):
            # Another segment may have come in its place between the two reads, or it was moved there and back.
            [reply] = await nodes.read_many([("HGETALL", as_bytes(jobs[number].hash))])
            tries = tries_left - 1 if packed_log(reply) == log else TRIES
            if tries:
                [found[number]] = await read_records(nodes, source, [jobs[number]], tries)
    return found


async def read_record(nodes: Nodes, source: LogSource, keys: JobKeys) -> JobState | None:
    """Return the state that a job's record says, None if it has no hash; StoreFormatError, StoreUnavailableError."""
    [reply] = await nodes.read_many([("HGETALL", keys.hash)])
    if packed_log(reply) is None and reply is not WRONG_TYPE:
        return from_hash(keys.job_id, reply) if reply else None
    [found] = await read_records(nodes, source, [keys])
    if isinstance(found, StoreFormatError):
        raise found
    return found


async def parts_in(
    nodes: Nodes, source: LogSource, jobs: Sequence[JobKeys], names: Sequence[str], replies: Sequence[Reply]
) -> list[JobState | None]:
    """Return states of which some fields are needed, read by `HMGET`, the last of them `log`; None: they can't be read.

    Creation and status are among the fields. Of a packed record, which lacks them, they are in the segment.
    """
    found = [_part_in(keys, names, reply) for keys, reply in zip(jobs, replies, strict=True)]
    logs = {
        number: as_text(reply[-1])
        for number, reply in enumerate(replies)
        if found[number] is None and reply is not WRONG_TYPE and reply[-1] is not None
    }
    here = [number for number, log in logs.items() if not log.endswith(ARCHIVED)]
    states = await source.sealed.states([(jobs[number], logs[number]) for number in here])
    for number, state in zip(here, states, strict=True):
        pairs = zip(names, replies[number], strict=True)
        reply = [part for name, value in pairs if value is not None for part in (name.encode(), value)]
        record = _unpacked(jobs[number], reply, state)
        found[number] = record if isinstance(record, JobState) else None
    # Those of archived jobs have all they need; others were sealed anew between the two reads, or can't be read.
    left = [number for number in logs if found[number] is None]
    for number, record in zip(left, await read_records(nodes, source, [jobs[number] for number in left]), strict=True):
        found[number] = record if isinstance(record, JobState) else None
    return found


def ended_member(keys: JobKeys, reply: Reply) -> str:
    """Return what a hash, of which these are the fields of `ENDING`, says is the job's member of the ended."""
    state = _part_in(keys, ENDING, reply)
    return "" if state is None else state.ended_member(keys.job_id)


def _part_in(keys: JobKeys, names: Sequence[str], reply: Reply) -> JobState | None:
    try:
        return None if reply is WRONG_TYPE else part_of_state(keys.job_id, names, reply)
    except StoreFormatError:
        return None


def _record_in(keys: JobKeys, reply: Reply) -> Record:
    if reply is WRONG_TYPE:
        return ProjectionDamagedError(keys.job_id, "its hash is no hash")
    try:
        return from_hash(keys.job_id, reply) if reply else None
    except StoreFormatError as error:
        return error


def _unpacked(keys: JobKeys, reply: Reply, state: bytes | StoreFormatError) -> Record:
    try:
        return state if isinstance(state, StoreFormatError) else from_packed(keys.job_id, state, reply)
    except StoreFormatError as error:
        return error
