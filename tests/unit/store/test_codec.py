"""Entries: golden bytes of every version, and round trips."""

from datetime import UTC, datetime, timedelta, timezone

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ci_common.models import JobEvent, Outcome
from ci_common.validation import accept_event
from ci_eventstore.errors import StoreFormatError
from ci_eventstore.events.codec import COMPRESS_FROM_BYTES, decode, decode_event, decode_texts, encode
from ci_eventstore.events.records import Fact, FactType

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)

#: What was once written must be readable for ever, and what is written now must not change by accident.
GOLDEN = [
    ("9401a36c6f67d6ff6b02d940a368690a", JobEvent("log", "hi\n", timestamp=NOON)),
    ("9401a36c6f67d6ff6b02d940c0", JobEvent("log", None, timestamp=NOON)),
    ("9401a36c6f67d6ff6b02d940c403ff0a00", JobEvent("log", "\udcff\n\0", timestamp=NOON)),
    ("9501a8636f6d706c657465d6ff6b02d940c0c3", JobEvent("complete", success=True, timestamp=NOON)),
    (
        "9701a8636f6d706c657465d6ff6b02d940c0c203c0",
        JobEvent("complete", success=False, timestamp=NOON, outcome=Outcome(exit_code=3)),
    ),
    (
        "9701a8636f6d706c657465d6ff6b02d940c0c2c0a75349475445524d",
        JobEvent("complete", success=False, timestamp=NOON, outcome=Outcome(signal="SIGTERM")),
    ),
    (
        "9401a36c6f67b3323032362d31312d32325431323a30303a3030a0",
        JobEvent("log", "", timestamp=NOON.replace(tzinfo=None)),
    ),
    (
        "9401a36c6f67d7ff00000fa06b02d940a0",
        JobEvent("log", "", timestamp=NOON + timedelta(microseconds=1)),
    ),
    (
        "9401a773746172746564d6ff6b02d94082aa73746172745f74696d6581a474696d65d6ff6b02d940"
        "ac636f6e7461696e65725f6964a163",
        Fact(FactType.STARTED, NOON, {"start_time": NOON, "container_id": "c"}),
    ),
]


@pytest.mark.parametrize(("payload", "record"), GOLDEN)
def test_version_1_is_what_it_was(payload: str, record: JobEvent | Fact) -> None:
    """Known records have known bytes, and known bytes are read as these records."""
    assert encode(record).hex() == payload
    assert decode(bytes.fromhex(payload), 7) == record


def test_an_unknown_version_is_refused_by_its_number() -> None:
    """A payload of a later version isn't guessed at."""
    with pytest.raises(StoreFormatError, match="version 9"):
        decode(bytes.fromhex("9409a36c6f6700a0"), 1)


@pytest.mark.parametrize("payload", ["9101", "9401a36c6f6705a0", "9401a36c6f67a178a0", "9401a378797ad6ff6b02d940a0"])
def test_a_damaged_entry_is_told(payload: str) -> None:
    """Too short, a time that is none, an unknown fact: an error of ours, with the position."""
    with pytest.raises(StoreFormatError, match="position 7"):
        decode(bytes.fromhex(payload), 7)


def test_a_fact_is_no_event() -> None:
    """Where an event must be, a fact is an error."""
    with pytest.raises(StoreFormatError, match="created"):
        decode_event(encode(Fact(FactType.CREATED, NOON)), 1)


aware = st.datetimes(timezones=st.just(UTC)) | st.datetimes(
    min_value=datetime(2, 1, 1), max_value=datetime(9998, 1, 1), timezones=st.just(timezone(timedelta(hours=-7)))
)
texts = st.text() | st.binary(max_size=3000).map(lambda raw: raw.decode("utf-8", "surrogateescape"))
events = st.builds(
    JobEvent, st.just("log"), st.none() | texts, st.none() | st.booleans(), aware | st.datetimes()
) | st.builds(
    JobEvent,
    st.just("complete"),
    st.none() | texts,
    st.booleans(),
    aware | st.datetimes(),
    outcome=st.none() | st.builds(Outcome, st.integers(0, 255)) | st.just(Outcome(signal="SIGKILL")),
)


@given(event=events, position=st.integers(1, 2**40))
def test_events_come_back_as_they_were(event: JobEvent, position: int) -> None:
    """Any accepted event survives; so do its awareness, its microseconds and its bytes."""
    accepted = accept_event(event, NOON)
    found = decode_event(encode(accepted), position)
    assert found == accepted
    assert found.id == position
    assert found.timestamp is not None
    assert event.timestamp is not None
    assert (found.timestamp.tzinfo is None) == (event.timestamp.tzinfo is None)


@given(raw=st.binary(min_size=COMPRESS_FROM_BYTES, max_size=10_000))
def test_bytes_survive_compression(raw: bytes) -> None:
    """Text above the threshold, whatever its bytes, comes back byte for byte."""
    event = JobEvent("log", (raw * 3).decode("utf-8", "surrogateescape"), timestamp=NOON)
    payload = encode(event)
    data = decode_event(payload, 1).data
    assert data is not None
    assert data.encode("utf-8", "surrogateescape") == raw * 3
    assert len(payload) < 3 * len(raw)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_record_or_an_error_of_ours(payload: bytes) -> None:
    """Whatever stands in a stream, reading it gives a record or a StoreFormatError."""
    read_or_refuse(payload)


#: Anything that msgpack can write.
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=5)
    | st.binary(max_size=20)
    | st.sampled_from([str(kind) for kind in FactType])
    | st.builds(msgpack.ExtType, st.integers(0, 127), st.binary(max_size=20))
    | st.builds(msgpack.Timestamp, st.integers(-(2**63), 2**63 - 1), st.integers(0, 999_999_999)),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=10,
)
KINDS = st.sampled_from(["log", "complete", *map(str, FactType)])
FIELDS = st.dictionaries(st.sampled_from(["status", "created_at", "command", "epoch", "claim", "success"]), VALUES)


@given(st.lists(VALUES, max_size=6) | st.tuples(st.just(1), KINDS, st.just(NOON) | VALUES, FIELDS | VALUES, VALUES))
def test_anything_that_msgpack_reads_is_a_record_or_an_error_of_ours(entry: object) -> None:
    """A payload that is well-formed and means nothing is refused as one that isn't; its record has the right types."""
    read_or_refuse(msgpack.packb(entry, datetime=True))


@given(st.integers(0, 10_000), st.integers(0, 255))
def test_a_flipped_byte_is_a_record_or_an_error_of_ours(place: int, byte: int) -> None:
    """Damage inside of compressed text doesn't get out as an error of Zstandard's."""
    payload = bytearray(encode(JobEvent("log", "some text " * 300, timestamp=NOON)))
    payload[place % len(payload)] = byte
    read_or_refuse(bytes(payload))


def read_or_refuse(payload: bytes) -> None:
    try:
        record = decode(payload, 7, "job-1")
    except StoreFormatError as error:
        assert str(error).startswith("job 'job-1': the entry at position 7 can't be read: ")  # noqa: PT017
        return
    if isinstance(record, JobEvent):
        assert isinstance(record.data, str | None)
        assert isinstance(record.success, bool | None)
    else:
        assert isinstance(record.fields.get("command"), list | None)
        assert isinstance(record.fields.get("created_at"), datetime | None)
    assert isinstance(record.timestamp if isinstance(record, JobEvent) else record.time, datetime)


EVENTS = [record for _, record in GOLDEN if isinstance(record, JobEvent)] + [
    JobEvent("log", "long\n" * COMPRESS_FROM_BYTES, timestamp=NOON),
    JobEvent("complete", "why", success=False, timestamp=NOON),
]


@given(st.lists(st.sampled_from(EVENTS), max_size=9), st.integers(0, 9), st.binary(max_size=3))
def test_texts_are_those_of_the_events(events: list[JobEvent], place: int, damage: bytes) -> None:
    """A page at once has the times and texts of each; one that is damaged is named as `decode_event` does it."""
    payloads = [encode(event) for event in events]
    found = decode_texts(payloads, 5)
    assert list(found.texts) == [event.data or "" if event.type == "log" else "" for event in events]
    assert list(found.times) == [event.timestamp for event in events]
    damaged = [*payloads[:place], damage, *payloads[place:]]
    with pytest.raises(StoreFormatError, match=f"position {5 + min(place, len(payloads))}"):
        decode_texts(damaged, 5)
