"""What the segments of a sealed job say of it: where its log lies, and the fold of what lies there."""

from collections.abc import Sequence

from ci_eventstore.connection.nodes import Nodes
from ci_eventstore.connection.replies import WRONG_TYPE, as_text
from ci_eventstore.errors import ProjectionDamagedError, SegmentDamagedError, StoreFormatError
from ci_eventstore.events.codec import decode
from ci_eventstore.events.log_index import LogIndex
from ci_eventstore.events.log_source import LogSource, entries_in, range_command
from ci_eventstore.events.records import Fact, FactType, Place
from ci_eventstore.events.sealed_log import Reference, references_in
from ci_eventstore.jobs.state import from_packed, pack_state
from ci_eventstore.keys import JobKeys
from ci_eventstore.projection.fold import Fold


async def read_log(nodes: Nodes, keys: JobKeys) -> str | None:
    """Return the field `log` of a job's record, None if it has none."""
    [log] = await nodes.read_many([("HGET", keys.hash, "log")])
    return None if log is None or log is WRONG_TYPE else as_text(log)


async def log_of(nodes: Nodes, source: LogSource, keys: JobKeys, log: str | None) -> str | None:
    """Return where the log of a job lies, as its record says or should say; None if it is all in its stream.

    A job that has lost its record, or whose record lacks that, is known by its segments.
    """
    [begin] = await nodes.read_many([range_command(keys, Place(0), None, 1)])
    if begin is WRONG_TYPE or (begin and _is_beginning(*entries_in(begin)[0])):
        return None
    if log is not None:
        try:
            references_in(keys.job_id, log)
        except ProjectionDamagedError:
            pass
        else:
            return log
    found = await source.sealed.find(keys)
    return " ".join(map(str, found)) or None


def _is_beginning(stream_id: bytes, payload: bytes) -> bool:
    """Return whether a log begins with an entry; StoreFormatError."""
    if stream_id == b"0-1":
        return True
    record = decode(payload, 0)
    return isinstance(record, Fact) and record.type is FactType.LOG_DELETED


async def fold_of_sealed(
    source: LogSource, keys: JobKeys, log: str, *, is_deep: bool, index: Sequence[str] | None = None
) -> Fold:
    """Return the fold of what lies in segments: the last one's checkpoint, or, if it is to be deep, of all entries.

    A deep one compares each segment with the one before, and each checkpoint with the fold. StoreFormatError.
    """
    references, fold = references_in(keys.job_id, log), Fold(keys)
    missing = await source.sealed.missing(keys, references)
    if missing:
        raise SegmentDamagedError(missing[0].name, f"it is missing, or doesn't have {missing[0].size} bytes")
    if not is_deep:
        state = from_packed(keys.job_id, await source.sealed.state(keys, references))
        reader = await source.sealed.reader(keys, references[-1])
        fold.state = state.but(mark=reader.tail.mark or None)
        _check_end(keys, fold, references[-1])
        return fold
    fold.index = LogIndex(index)
    before = b""
    for number, reference in enumerate(references, 1):
        reader = await source.sealed.reader(keys, reference)
        tail = reader.tail
        if (tail.job_id, tail.previous, tail.last) != (keys.job_id, before, tuple(reference.last)):
            raise SegmentDamagedError(reference.name, "it isn't what comes here in this job's log")
        before = reader.root
        await fold.advance(source, reference.last)
        _check_end(keys, fold, reference)
        checkpoint = await source.sealed.state(keys, references[:number])
        if fold.state is None or (pack_state(fold.state), fold.state.mark) != (checkpoint, tail.mark):
            raise SegmentDamagedError(reference.name, "the state at its end isn't what its entries say")
    return fold


def _check_end(keys: JobKeys, fold: Fold, reference: Reference) -> None:
    if fold.place != reference.last:
        raise StoreFormatError(f"job {keys.job_id!r}: segment {reference.name} ends at {fold.place}")
