"""Encode and decode stream entries: msgpack, with a schema version.

Version 1 is an array:

    [1, "log", time, data]                      data may be nil
    [1, "complete", time, data, success]
    [1, "complete", time, data, success, exit code, signal]    one of the two is nil
    [1, <fact type>, time, {field: value}]
    [1, "created", time, {field: value}, token]    of the call that created the job; older jobs with events have none

- A log event given a `success` has it as a fifth element.
- time: msgpack's timestamp for an aware one, ISO 8601 text for a naive one.
- data: text; bytes if it isn't UTF-8; extension type 1, Zstandard, if that is smaller.
"""

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from types import NoneType
from typing import Any, NamedTuple, cast

import msgpack
import zstandard

from ci_common.models import JobEvent, Outcome, as_utc
from ci_eventstore.errors import StoreFormatError
from ci_eventstore.events.records import Fact, FactType, Record, log_text, text_size
from ci_eventstore.job_fields import JOB_FIELDS
from ci_eventstore.segments.payloads import Unpacked, mark_in

VERSION = 1
_EPOCH = datetime.fromtimestamp(0, UTC)
_MICROSECOND = timedelta(microseconds=1)
#: What reading garbage as fields raises.
_UNREADABLE = (ValueError, TypeError, KeyError, AttributeError, OverflowError, msgpack.UnpackException)
#: Calling the enumeration takes several times as long.
_FACT_TYPES = {kind.value: kind for kind in FactType}
#: Shorter texts would shrink to a third or a half as well, but take ten times as long to encode (`benchmarks/`).
COMPRESS_FROM_BYTES = 512
#: Up to 7 % smaller than level 1, up to a fifth slower (`benchmarks/`).
COMPRESSION_LEVEL = 3
ZSTANDARD = 1


def _plain(value: Any) -> Any:
    """Return a subclass of datetime in a form that msgpack can write."""
    if isinstance(value, datetime):
        return msgpack.Timestamp.from_datetime(value)
    raise TypeError(f"{value!r} can't be encoded")


_pack = msgpack.Packer(datetime=True, default=_plain).pack
#: Returns an aware time as it stands in a payload.
encode_time: Callable[[datetime], bytes] = _pack


class _Zstandard(threading.local):
    """Compressors, one pair for each thread: making one takes longer than compressing a short text."""

    def __init__(self) -> None:
        self.compress = zstandard.ZstdCompressor(level=COMPRESSION_LEVEL).compress
        self.decompress = zstandard.ZstdDecompressor().decompress


_zstandard = _Zstandard()


def encode(record: Record) -> bytes:
    """Return the payload of a record; an event needs its timestamp."""
    if isinstance(record, Fact):
        known = (VERSION, str(record.type), _encode_time(record.time), encode_fields(record.fields))
        return _pack(known if record.token is None else (*known, record.token))
    return encode_event(record)


def encode_event(event: JobEvent) -> bytes:
    """Return the payload of a visible event."""
    time, data = event.timestamp, event.data
    if time is None:
        raise ValueError("an event needs its timestamp before it is encoded")
    stored = time if time.tzinfo is not None else time.isoformat()
    if data is not None and (len(data) >= COMPRESS_FROM_BYTES or not data.isascii()):
        return _pack((VERSION, event.type, stored, _encode_text(data), *_result(event)))
    if event.success is None:
        return _pack((VERSION, event.type, stored, data))
    return _pack((VERSION, event.type, stored, data, *_result(event)))


def _result(event: JobEvent) -> tuple[bool | int | str | None, ...]:
    if event.success is None:
        return ()
    outcome = event.outcome
    # Older programs ignore the elements after the result.
    return (event.success,) if outcome is None else (event.success, outcome.exit_code, outcome.signal)


def _encode_text(data: str) -> str | bytes | msgpack.ExtType:
    raw = data.encode("utf-8", "surrogateescape")
    if len(raw) >= COMPRESS_FROM_BYTES:
        packed = _zstandard.compress(raw)
        if len(packed) < len(raw):
            return msgpack.ExtType(ZSTANDARD, packed)
    try:
        data.encode()
    except UnicodeEncodeError:
        return raw
    return data


def _encode_time(time: datetime) -> datetime | str:
    return time if time.tzinfo is not None else time.isoformat()


def encode_fields(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return fields of a job in the form that payloads hold, ready to be packed."""
    return {
        name: {"time": _encode_time(value)} if isinstance(value, datetime) else value for name, value in fields.items()
    }


def pack_fields(fields: Mapping[str, Any]) -> bytes:
    """Return fields of a job in the form of a checkpoint."""
    return _pack(encode_fields(fields))


def unpack_fields(packed: bytes) -> dict[str, Any]:
    """Return the fields that `pack_fields` packed; StoreFormatError."""
    try:
        return _decode_fields(msgpack.unpackb(packed, timestamp=3))
    except _UNREADABLE as error:
        raise StoreFormatError(f"the state at the end of a segment can't be read: {error}") from error


def pack_values(fields: Mapping[str, Any], names: Sequence[str]) -> bytes:
    """Return the values of fields of these names, in that order, up to the last one that there is.

    Of aware times all but the first are microseconds since that one: they are half as long so.
    """
    values, first = list[Any](), None
    for value in map(fields.get, names):
        if isinstance(value, datetime) and value.tzinfo is not None:
            time = as_utc(value)
            values.append(time if first is None else (time - first) // _MICROSECOND)
            first = first or time
        else:
            values.append(_encode_time(value) if isinstance(value, datetime) else value)
    while values and values[-1] is None:
        values.pop()
    return _pack(values)


def unpack_values(packed: bytes, names: Sequence[str]) -> dict[str, Any]:
    """Return what was packed so, but for those that aren't there; StoreFormatError.

    Up to version 4 of the format, each time is whole.
    """
    try:
        found = dict(zip(names, msgpack.unpackb(packed, timestamp=3), strict=False))
        known, first = {}, None
        for name, value in found.items():
            if _FIELD_TYPES.get(name) is not datetime:
                known[name] = value
                continue
            time = first + value * _MICROSECOND if type(value) is int and first is not None else value
            known[name] = {"time": time}
            first = time if first is None and isinstance(time, datetime) else first
        return {name: value for name, value in _decode_fields(known).items() if value is not None}
    except _UNREADABLE as error:
        raise StoreFormatError(f"the packed state in a record can't be read: {error}") from error


def mark_of(payload: bytes) -> str:
    """Return the mark of an entry, which tells it from another history's entry at the same place.

    It is that of the payload as it was written, also if the entry was read of a segment that has it unpacked.
    """
    return mark_in(payload).hex()


def is_same_entry(one: bytes | None, other: bytes | None) -> bool:
    """Return whether payloads found at the same place are of the same entry, as it was written or unpacked.

    All who compare payloads from different reads ask this: meanwhile, the log may have been sealed.
    """
    if one == other or one is None or other is None:
        return one == other
    return (isinstance(one, Unpacked) or isinstance(other, Unpacked)) and mark_in(one) == mark_in(other)


def decode(payload: bytes, position: int, job_id: str = "") -> Record:
    """Return the record in a payload; a visible event gets `position` as its id.

    StoreFormatError, which names job and position, for one that this program can't read.
    """
    try:
        entry = msgpack.unpackb(payload, timestamp=3)
        decoder = DECODERS.get(entry[0])
        if decoder is None:
            raise ValueError(f"version {entry[0]!r} is unknown, this program reads up to {VERSION}")
        return decoder(entry, position)
    except Exception as error:
        # msgpack and Zstandard raise errors of many kinds for bytes that are damaged.
        where = f"job {job_id!r}: " if job_id else ""
        raise StoreFormatError(f"{where}the entry at position {position} can't be read: {error}") from error


def decode_event(payload: bytes, position: int, job_id: str = "") -> JobEvent:
    """Return the visible event in a payload; StoreFormatError if it holds a fact."""
    record = decode(payload, position, job_id)
    if type(record) is JobEvent:
        return record
    where = f"job {job_id!r}: " if job_id else ""
    raise StoreFormatError(f"{where}entry {position}-0 holds the fact {record.type}, not an event")


#: Kinds of entries that are events; all others are facts.
_EVENTS = {"log", "complete"}


class Texts(NamedTuple):
    """Of events that follow each other, when each was written and its text; "" if it has none."""

    times: Sequence[datetime]
    texts: Sequence[str]


def decode_texts(payloads: Sequence[bytes], position: int, job_id: str = "") -> Texts:
    """Return times and texts of visible events that follow each other; StoreFormatError.

    Several times as fast as `decode_event` for each, a column at a time: whoever reads a million lines needs nothing
    else of them.
    """
    try:
        if found := _columns(payloads):
            return found
    except Exception:  # noqa: BLE001 - one by one, the payloads say which one is damaged, and how
        pass
    return texts_of(decode_event(payload, position + place, job_id) for place, payload in enumerate(payloads))


def _columns(payloads: Sequence[bytes]) -> Texts | None:
    """Decode payloads that have the form of almost all; None or any error if one hasn't."""
    unpacker = msgpack.Unpacker(timestamp=3, max_buffer_size=0, use_list=False)
    unpacker.feed(b"".join(payloads))
    versions, kinds, times, texts, *_ = zip(*unpacker, strict=False)
    if not set(map(type, texts)) <= {str, NoneType}:
        texts = tuple(text if text is None or type(text) is str else _decode_text(text) for text in texts)
    if kinds.count("log") != len(kinds) or None in texts:
        texts = tuple(text if kind == "log" and text else "" for kind, text in zip(kinds, texts, strict=True))
    is_plain = set(versions) == {VERSION} and set(kinds) <= _EVENTS and set(map(type, times)) == {datetime}
    return Texts(times, texts) if is_plain and len(times) == len(payloads) else None


def texts_of(events: Iterable[JobEvent]) -> Texts:
    """Return events' times and texts."""
    found = [(event.timestamp or _EPOCH, log_text(event)) for event in events]
    return Texts([time for time, _ in found], [text for _, text in found])


def _decode_1(entry: list[Any], position: int) -> Record:
    kind, time, data = entry[1], entry[2], entry[3]
    last = entry[4] if len(entry) > 4 else None
    if type(time) is not datetime:
        time = datetime.fromisoformat(time)
    if kind not in _EVENTS:
        if last is not None and type(last) is not str:
            raise ValueError(f"its token is {last!r}")
        return Fact(_FACT_TYPES.get(kind) or FactType(kind), time, _decode_fields(data), last)
    if data is not None and type(data) is not str:
        data = _decode_text(data)
    if last is not None and type(last) is not bool:
        raise ValueError(f"its result is {last!r}")
    if len(entry) < 6:
        return JobEvent(kind, data, last, time, id=position)
    return JobEvent(kind, data, last, time, id=position, outcome=_decode_outcome(entry[5], entry[6]))


def _decode_outcome(exit_code: object, signal: object) -> Outcome | None:
    if exit_code is None and signal is None:
        return None
    if type(exit_code) not in (int, NoneType) or type(signal) not in (str, NoneType):
        raise ValueError(f"its exit code is {exit_code!r}, its signal {signal!r}")
    return Outcome(cast(int | None, exit_code), cast(str | None, signal))


#: By schema version; every version that was ever written stays.
DECODERS: dict[int, Callable[[list[Any], int], Record]] = {1: _decode_1}


def _decode_text(data: bytes | msgpack.ExtType) -> str:
    if isinstance(data, msgpack.ExtType):
        if data.code != ZSTANDARD:
            raise ValueError(f"extension type {data.code} is unknown")
        data = _zstandard.decompress(data.data)
    return data.decode("utf-8", "surrogateescape")


#: The types of facts' fields that make a job's state; later programs may add others.
_FIELD_TYPES: dict[str, type] = {
    **{name: field.type for name, field in JOB_FIELDS.items()},
    **dict.fromkeys(("status", "controller", "claim", "ticket", "cancel_line"), str),
    **dict.fromkeys(("epoch", "attempts"), int),
}


def _decode_fields(fields: dict[str, Any]) -> dict[str, Any]:
    found = {}
    for name, value in fields.items():
        if isinstance(value, dict):
            time = value["time"]
            value = datetime.fromisoformat(time) if isinstance(time, str) else time  # noqa: PLW2901
        if value is not None and not isinstance(value, _FIELD_TYPES.get(name, object)):
            raise ValueError(f"its field {name} is {value!r}")
        found[name] = value
    return found


#: One script call takes at most this many log events, and this much text unless one event alone has more bytes.
BATCH_EVENTS = 1000
BATCH_BYTES = 1024 * 1024


@dataclass(slots=True, eq=False)
class Batch:
    """Encoded records, and what their text adds to their job's counters."""

    payloads: list[bytes] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    bytes: int = 0
    lines: int = 0

    def extend(self, other: "Batch") -> None:
        """Add another batch's log events after this one's."""
        self.payloads += other.payloads
        self.texts += other.texts
        self.bytes += other.bytes
        self.lines += other.lines

    def sizes(self) -> list[str]:
        """Return "bytes lines" of each record's text."""
        return ["{} {}".format(*text_size(text)) for text in self.texts]


def encode_logs(events: Sequence[JobEvent]) -> Batch:
    """Return log events ready to be sent."""
    return _batch([encode_event(event) for event in events], [event.data or "" for event in events])


def encode_records(records: Sequence[Record]) -> Batch:
    """Return records of all kinds ready to be sent."""
    return _batch([encode(record) for record in records], [log_text(record) for record in records])


def _batch(payloads: list[bytes], texts: list[str]) -> Batch:
    all_text = "".join(texts)
    return Batch(payloads, texts, *text_size(all_text))


def encode_batches(events: Sequence[JobEvent]) -> Iterator[Batch]:
    """Yield log events in batches that one script call takes, each encoded when it is asked for."""
    start = size = 0
    for place, event in enumerate(events):
        added, _ = text_size(event.data or "")
        if place > start and (place - start >= BATCH_EVENTS or size + added > BATCH_BYTES):
            yield encode_logs(events[start:place])
            start, size = place, 0
        size += added
    yield encode_logs(events[start:])
