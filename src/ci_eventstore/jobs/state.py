"""A job's state, and the hash that holds it."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from datetime import datetime
from functools import lru_cache
from typing import Any

from ci_common.models import Job, JobFields, JobStatus, as_utc
from ci_common.transitions import ENDED
from ci_eventstore.errors import ProjectionDamagedError
from ci_eventstore.events.codec import pack_fields, pack_values, unpack_fields, unpack_values
from ci_eventstore.events.reader import Extent
from ci_eventstore.facts.facts import STATUS_LETTERS, STATUSES
from ci_eventstore.job_fields import JOB_FIELDS
from ci_eventstore.jobs.packed_records import PIECES, REST_FIELDS, completed, pieces_of
from ci_eventstore.keys import NO_QUEUE
from ci_eventstore.members import listing_member


@dataclass(frozen=True, kw_only=True)
class JobState(JobFields):
    """The fold of a job's stream: the job's own fields, other decided fields, then counters."""

    @staticmethod
    def of(**known: Any) -> "JobState":
        """Return a state with these fields and defaults; the constructor takes three times as long."""
        state = object.__new__(JobState)
        state.__dict__.update(_DEFAULTS)
        state.__dict__.update(known)
        return state

    def but(self, **changes: Any) -> "JobState":
        """Return the state with some fields changed, in a tenth of the time of `dataclasses.replace`."""
        state = object.__new__(JobState)
        state.__dict__.update(self.__dict__, **changes)
        return state

    @property
    def lease_queue(self) -> str:
        """The queue in whose leases the job's stands: the nameless one if the job ends with its holder."""
        return NO_QUEUE if self.ends_if_lost else self.queue

    def ended_member(self, job_id: str) -> str:
        """Return the job's member in the index of ended jobs, which sorts by their ends; "" if it hasn't ended."""
        return listing_member(self.end_time or self.created_at, job_id) if self.status in ENDED else ""

    @property
    def extent(self) -> Extent:
        """How far the job's log goes."""
        return Extent(**{name: self.__dict__[name] for name in Extent._fields})

    #: Tells the job from an earlier one with the same id; None for jobs of older programs.
    incarnation: str | None = None
    created_at: datetime
    command: tuple[str, ...] | None = None
    status: JobStatus
    #: Whether `end_time` came from an event; an explicit one may then replace it.
    end_time_from_event: bool = False
    #: How often controllers were given the job, and how many attempts these cost.
    epoch: int = 0
    attempts: int = 0
    #: How often controllers handed the job back because their machines couldn't run it, and their names.
    hand_backs: int | None = None
    handed_back_by: str | None = None
    #: The controller that has the job, its claim ("epoch token"), and the ticket that it took for it.
    controller: str | None = None
    claim: str | None = None
    ticket: str | None = None
    #: Whether the job ends with its holder, such as `ci-eventstore run`, and goes to no controller.
    ends_if_lost: bool | None = None
    #: The last line of the log once the controller has stopped the job; None if nobody asked for a cancel.
    cancel_line: str | None = None
    #: Whether retention leaves the job alone.
    is_kept: bool | None = None
    #: Position of the `complete` event; of the last event if the job was created as ended, without one.
    end_position: int | None = None
    #: Whether there is a `complete` event.
    has_complete: bool = False
    #: Raised by each fact and by `complete`, not by logs.
    version: int = 0
    #: The last entry's stream id is `<position>-<part>`.
    position: int = 0
    part: int = 0
    #: Of all events' data: UTF-8 bytes and newlines.
    bytes: int = 0
    lines: int = 0
    #: Bytes at the job's end, and the position at which the log last outgrew its budget.
    end_bytes: int | None = None
    truncated_at: int | None = None
    #: Position of the last event that was deleted with the log; None if the log is whole.
    deleted_to: int | None = None
    #: References to the segments of the log's beginning; None if it wasn't sealed.
    log: str | None = None
    #: The mark of the last entry, see `mark_of`; None for jobs of older programs.
    mark: str | None = None


#: The append script moves these itself; it is sent the other fields.
_NUMBERS = ("position", "part", "bytes", "lines", "end_position", "end_bytes", "truncated_at")
COUNTERS = frozenset({*_NUMBERS, "mark"})

#: Scripts count in floating-point numbers, which are exact up to here.
MAX_NUMBER = 2**53


@lru_cache(maxsize=1000)
def _decode_number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 16) or int(text) > MAX_NUMBER:
        raise ValueError("a number from 0 to 2^53 is expected")
    return int(text)


@lru_cache
def _decode_flag(text: str) -> bool:
    if text not in ("0", "1"):
        raise ValueError("0 or 1 is expected")
    return text == "1"


@lru_cache
def _decode_status(text: str) -> JobStatus:
    return JobStatus(text)


def _decode_words(text: str) -> tuple[str, ...]:
    words = json.loads(text)
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise ValueError("a list of texts is expected")
    return tuple(words)


Decode = Callable[[str], Any]
_BY_TYPE: dict[type, Decode] = {
    str: str,
    datetime: datetime.fromisoformat,
    bool: _decode_flag,
    int: _decode_number,
    list: _decode_words,
}
_DECODERS: dict[str, Decode] = {
    **{name: _BY_TYPE[field.type] for name, field in JOB_FIELDS.items()},
    "status": _decode_status,
    **dict.fromkeys(("end_time_from_event", "has_complete", "ends_if_lost", "is_kept"), _decode_flag),
    **dict.fromkeys(("epoch", "attempts", "hand_backs", "version", "deleted_to", *_NUMBERS), _decode_number),
    "mark": lambda text: text or None,
}
_NAMES = tuple(field.name for field in fields(JobState))
_RAW_NAMES = tuple(name.encode() for name in _NAMES)
_NEEDED = tuple((name, _DECODERS.get(name, str)) for name in _NAMES)
_NEEDED_BY_NAME = dict(zip(_RAW_NAMES, _NEEDED, strict=True))
#: Fields that only ended jobs have.
_OF_ENDED = {name for name, field in JOB_FIELDS.items() if field.is_result}
_OF_ENDED |= {"end_time_from_event", "has_complete", "end_position", "end_bytes", "log", "deleted_to"}
_NEEDED_OF_CLAIMED = tuple((name, decode) for name, decode in _NEEDED if name not in _OF_ENDED)
#: Fields of a claimed job's hash, for scripts that return their values in this order.
CLAIMED_FIELDS = " ".join(name for name, _ in _NEEDED_OF_CLAIMED)
_DEFAULTS = {field.name: None if field.default is MISSING else field.default for field in fields(JobState)}


def _encode_time(time: datetime) -> str:
    return time.isoformat() if time.tzinfo is None else as_utc(time).isoformat()


def _encode_words(words: Sequence[str]) -> str:
    return json.dumps(words, ensure_ascii=False)


#: By the type of the value; a field's value is of one of these types or a subclass.
_ENCODERS: dict[type, Callable[[Any], str]] = {
    str: str,
    bool: lambda value: "1" if value else "0",
    int: str,
    JobStatus: lambda status: status.value,
    datetime: _encode_time,
    tuple: _encode_words,
    list: _encode_words,
}


def encode_field(value: Any) -> str | None:
    """Return a field's text in the hash; None if the hash has no such field."""
    if value is None:
        return None
    encode = _ENCODERS.get(type(value))
    if encode is None:
        encode = next(encode for kind, encode in _ENCODERS.items() if isinstance(value, kind))
    return encode(value)


def to_hash(state: JobState) -> dict[str, str]:
    """Return all fields of the hash of a job in that state."""
    encoded = {name: encode_field(getattr(state, name)) for name in _NAMES}
    return {name: text for name, text in encoded.items() if text is not None}


def from_hash(job_id: str, reply: Sequence[bytes]) -> JobState:
    """Return the state in a hash, given as names and values by turns.

    Fields that this version doesn't know are ignored. ProjectionDamagedError.
    """
    found = dict(zip(reply[::2], reply[1::2], strict=True))
    if b"r0" in found and b"has_complete" not in found:
        packed = b"".join(found.get(piece.encode(), b"") for piece in PIECES)
        rest, found = unpack_values(packed, REST_FIELDS), completed(found)
        if b"position" not in found:
            raise ProjectionDamagedError(job_id, "where its log lies can't be read")
        return _unpacked(job_id, {**rest, "status": STATUSES.get(rest.get("status", ""))}, found)
    return _state_of(job_id, _NEEDED, [found.get(name) for name in _RAW_NAMES])


def rest_of(state: JobState) -> dict[str, bytes]:
    """Return the fields that have the rest of a state; none if it is too long for them."""
    known = {name: value for name in REST_FIELDS if (value := getattr(state, name)) != _DEFAULTS[name]}
    packed = pack_values({**known, "status": STATUS_LETTERS[state.status]}, REST_FIELDS)
    return pieces_of(packed)


def checkpoint_fields(state: JobState) -> dict[str, Any]:
    """Return the fields of a state in the form of facts, except `log` and `mark`."""
    known = {name: value for name in _NAMES if (value := getattr(state, name)) != _DEFAULTS[name]}
    known = {name: value for name, value in known.items() if name not in ("log", "mark")}
    return {**known, "status": state.status.value}


def pack_state(state: JobState) -> bytes:
    """Return the checkpoint that ends a segment."""
    # `log` isn't known before the segment is stored; the mark is in the tail.
    return pack_fields(checkpoint_fields(state))


def from_checkpoint(fields: Mapping[str, Any]) -> JobState:
    """Return the state with these fields; ignore fields that only later programs know.

    ValueError, KeyError, TypeError.
    """
    known = {name: value for name, value in fields.items() if name in _DEFAULTS}
    known["status"] = JobStatus(known["status"])
    if known.get("command") is not None:
        known["command"] = tuple(known["command"])
    if type(known["created_at"]) is not datetime:
        raise ValueError(f"it was created {known['created_at']!r}")
    return JobState.of(**known)


def from_packed(job_id: str, packed: bytes, reply: Sequence[bytes] = ()) -> JobState:
    """Return the state at the end of a segment, updated with the fields of the job's hash; StoreFormatError."""
    found = dict(zip(reply[::2], reply[1::2], strict=True))
    known = unpack_fields(packed)
    if found and b"incarnation" not in found:
        # An older program wrote the hash, which lacks the incarnation that the log has.
        known.pop("incarnation", None)
    return _unpacked(job_id, known, found)


def _unpacked(job_id: str, known: dict[str, Any], found: Mapping[bytes, bytes]) -> JobState:
    """Return the state with what was packed and, before that, what the hash has; ProjectionDamagedError."""
    try:
        known |= {
            needed[0]: needed[1](value.decode()) for raw, value in found.items() if (needed := _NEEDED_BY_NAME.get(raw))
        }
        return from_checkpoint(known)
    except (ValueError, KeyError, TypeError) as error:
        raise ProjectionDamagedError(job_id, f"its packed record can't be read: {error!r}") from error


def claimed_state(job_id: str, values: Sequence[bytes | None]) -> JobState:
    """Return a claimed job's state, from the values of CLAIMED_FIELDS; ProjectionDamagedError."""
    return _state_of(job_id, _NEEDED_OF_CLAIMED, values)


def part_of_state(job_id: str, names: Sequence[str], values: Sequence[bytes | None]) -> JobState:
    """Return a state from some fields, `created_at` and `status` among them; ProjectionDamagedError."""
    return _state_of(job_id, [(name, _DECODERS.get(name, str)) for name in names], values)


def _state_of(job_id: str, decoders: Sequence[tuple[str, Decode]], values: Sequence[bytes | None]) -> JobState:
    fields = zip(decoders, values, strict=True)
    try:
        known = {name: decode(value.decode()) for (name, decode), value in fields if value is not None}
    except (ValueError, RecursionError):
        _raise_damage(job_id, decoders, values)
        raise
    for name in ("created_at", "status"):
        if name not in known:
            raise ProjectionDamagedError(job_id, f"its hash has no field {name}")
    return JobState.of(**known)


def _raise_damage(job_id: str, decoders: Sequence[tuple[str, Decode]], values: Sequence[bytes | None]) -> None:
    """Raise ProjectionDamagedError for the field that can't be read; only damaged hashes pay for this search."""
    for (name, decode), value in zip(decoders, values, strict=True):
        try:
            None if value is None else decode(value.decode())
        except (ValueError, RecursionError) as error:
            what = f"field {name} of its hash holds {(value or b'')[:100]!r}: {error}"
            raise ProjectionDamagedError(job_id, what) from error


#: The fields of a hash that nobody has set.
_DEFAULT_FIELDS = {
    name: encode_field(value) or "" for name, value in _DEFAULTS.items() if value is not None and name not in COUNTERS
}


def given_fields(known: Mapping[str, Any]) -> dict[str, str]:
    """Return the fields with which a new job was created, as its hash holds them; none of them is None."""
    # Most are text.
    return {name: value if type(value) is str else encode_field(value) or "" for name, value in known.items()}


def created_fields(known: Mapping[str, Any]) -> dict[str, str]:
    """Return all decided fields of a new job's hash, from the fields that it was created with."""
    return {**_DEFAULT_FIELDS, **given_fields(known), "version": "1"}


def decided_changes(before: JobState | None, after: JobState) -> tuple[dict[str, str], list[str]]:
    """Return the decided fields to set in a hash, and those to delete, to go from one state to the next."""
    given, lost = dict[str, str](), list[str]()
    # A sealed job's hash may be packed: it gets all fields.
    known = before.__dict__ if before and before.log is None else {}
    for name, new in after.__dict__.items():
        if name in COUNTERS or name == "log" or (name in known and (known[name] is new or known[name] == new)):
            continue
        text = encode_field(new)
        if text is not None:
            given[name] = text
        elif before and getattr(before, name) is not None:
            lost.append(name)
    return given, [*lost, *PIECES] if before and before.log is not None else lost


#: Fields that `Job` and `JobState` share.
_SHARED = tuple(field.name for field in fields(Job) if field.name in _NAMES)


def to_job(job_id: str, state: JobState) -> Job:
    """Return the job, without its events; made without the constructor, as in `JobState.of`."""
    known = vars(state)
    job = object.__new__(Job)
    shared = {name: known[name] for name in _SHARED}
    said = {"log_truncated": state.truncated_at is not None, "log_deleted": state.deleted_to is not None}
    vars(job).update(shared, id=job_id, events=[], **said)
    if state.command is not None:
        vars(job).update(command=list(state.command))
    return job
