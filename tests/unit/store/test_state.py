"""A job's hash: what is read of it, and what is refused as damaged."""

from contextlib import suppress
from dataclasses import fields
from datetime import UTC, datetime

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ci_common.models import Job, JobStatus
from ci_eventstore.connection.replies import as_text
from ci_eventstore.errors import ProjectionDamagedError, StoreFormatError
from ci_eventstore.jobs.packed_records import (
    ENDS,
    KEPT_FIELDS,
    PIECES,
    REST_FIELDS,
    SURELY_KEPT,
    packed_log,
    repacked,
    shortened,
)
from ci_eventstore.jobs.state import JobState, from_hash, rest_of, to_hash, to_job

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
STATE = JobState(
    created_at=NOON, status=JobStatus.RUNNING, command=("a", "b"), name="x", position=3, bytes=7, success=True
)
FIELDS = {name.encode(): value.encode() for name, value in to_hash(STATE).items()}
#: What no field but a text may hold.
GARBAGE = [
    b"",
    b"garbage",
    b"\xff",
    b"-1",
    b"1e3",
    b" 1",
    b"9" * 400,
    b"9007199254740993",
    b"[1]",
    b'"ab"',
    b"[" * 100_000,
]


def read(fields: dict[bytes, bytes]) -> JobState:
    return from_hash("job-1", [part for pair in fields.items() for part in pair])


def test_a_hash_is_read_as_it_was_written() -> None:
    """Fields of later programs are left alone."""
    assert read({**FIELDS, b"unheard_of": b"\xff"}) == STATE


@pytest.mark.parametrize("value", GARBAGE, ids=lambda value: repr(value[:10]))
@pytest.mark.parametrize("field", [b"created_at", b"status", b"command", b"position", b"bytes", b"success", b"version"])
def test_garbage_in_a_field_is_told(field: bytes, value: bytes) -> None:
    """The error names job and field, and says what mends it."""
    with pytest.raises(ProjectionDamagedError, match=rf"job 'job-1': field {field.decode()} .*ci-eventstore rebuild"):
        read({**FIELDS, field: value})


def test_a_text_that_is_not_utf_8_is_told() -> None:
    """A text may be anything else."""
    with pytest.raises(ProjectionDamagedError, match="field name"):
        read({**FIELDS, b"name": b"\xff"})


@pytest.mark.parametrize("field", [b"created_at", b"status"])
def test_a_field_that_every_job_has_is_missed(field: bytes) -> None:
    """A hash without creation or status is damaged."""
    with pytest.raises(ProjectionDamagedError, match=f"no field {field.decode()}"):
        read({name: value for name, value in FIELDS.items() if name != field})


@given(st.sampled_from(sorted(FIELDS)), st.binary(max_size=30) | st.text(max_size=30).map(str.encode))
def test_any_value_is_a_state_or_an_error_of_ours(field: bytes, value: bytes) -> None:
    """Whatever a field holds, reading the hash gives a state or a ProjectionDamagedError."""
    with suppress(ProjectionDamagedError):
        read({**FIELDS, field: value})


@pytest.mark.parametrize("truncated_at", [None, 2])
def test_a_job_is_what_its_constructor_makes_of_the_state(truncated_at: int | None) -> None:
    """All its fields, and lists of its own, as whoever makes a job by hand gets them."""
    state = STATE.but(truncated_at=truncated_at, exit_code=3)
    shared = {field.name: getattr(state, field.name) for field in fields(Job) if hasattr(state, field.name)}
    made = Job(id="job-1", **shared, log_truncated=truncated_at is not None)
    job = to_job("job-1", state)
    assert (job, vars(job), hash(job)) == (made, vars(made), hash(made))
    assert type(job.command) is list


def packed(state: JobState) -> dict[bytes, bytes]:
    """Return the hash of a job whose small segment is in the archive."""
    kept = shortened({name: value for name, value in to_hash(state).items() if name in KEPT_FIELDS})
    found = {name.encode(): value.encode() for name, value in kept.items()}
    return found | {name.encode(): piece for name, piece in rest_of(state).items()}


def test_packed_records_lack_no_field() -> None:
    """Each field of a state is kept for scripts, or is one of the rest."""
    assert {*KEPT_FIELDS, *REST_FIELDS} == {field.name for field in fields(JobState)}
    assert not {*KEPT_FIELDS} & {*REST_FIELDS}


texts, times = st.none() | st.text(max_size=20), st.datetimes() | st.datetimes(timezones=st.just(UTC))
numbers = st.integers(0, 2**53)


@given(
    st.builds(
        STATE.but,
        created_at=times,
        start_time=st.none() | times,
        end_time=st.none() | times,
        status=st.sampled_from(JobStatus),
        name=texts,
        user_id=texts,
        command=st.none() | st.lists(st.text(max_size=9), max_size=5).map(tuple),
        success=st.none() | st.booleans(),
        exit_code=st.none() | numbers,
        epoch=numbers,
        hand_backs=st.none() | numbers,
        handed_back_by=texts,
        is_kept=st.none() | st.booleans(),
        has_complete=st.booleans(),
        lines=numbers,
        end_position=st.sampled_from([STATE.position, 1]),
        end_bytes=st.sampled_from([STATE.bytes, 1]),
        log=st.sampled_from(["0-1,3-0,400,0123456789abcdef,a", "0-1,3-1,4,01a", "0-1,2-0,4,01a,a 2-1,3-0,4,01a"]),
    )
)
def test_a_packed_record_is_read_as_it_was_written(state: JobState) -> None:
    """Whatever its fields hold; what the hash has wins, and no value is too long for a small hash."""
    found = packed(state)
    if b"r0" in found:
        assert read(found) == state
        assert (b"end_position" in found) == (state.end_position != state.position)
        assert (b"position" in found, b"part" in found) == (("3-1" in (state.log or ""),) * 2)
        # As earlier versions wrote it.
        for left_out in (("position", "part"), ("position", "part", *ENDS)):
            known = {name.encode(): str(getattr(state, name)).encode() for name in left_out}
            assert read({**found, **known}) == state
        assert read({**found, b"lines": b"7", b"unheard_of": b"1"}) == state.but(lines=7)
        assert packed_log([part for pair in found.items() for part in pair]) is None
        assert max(len(value) for name, value in found.items() if name.decode() in PIECES) <= 64


def test_a_packed_record_without_a_readable_log_is_told() -> None:
    """Only that says where it ends."""
    for log in (b"", b"0-1", b"0-1,3,400,0123456789abcdef,a", b"0-1,%s-0,4,01a" % (b"9" * 5000), b"\xff"):
        found = {**packed(STATE.but(log="0-1,3-0,400,0123456789abcdef,a")), b"log": log}
        with pytest.raises(ProjectionDamagedError, match="job 'job-1': where its log lies can't be read"):
            read(found)


def test_pieces_of_version_4_are_known() -> None:
    """Each of their times is whole; what isn't a state stays as it is, and says so."""
    known = msgpack.packb(["c", NOON, NOON, True, NOON, "x"], datetime=True)
    state = STATE.but(status=JobStatus.COMPLETED, command=None, end_time=NOON, start_time=NOON)
    found = packed(state.but(log="0-1,3-0,400,0123456789abcdef,a"))
    assert read({**found, b"r0": known}) == read(found)
    texts = {name.decode(): as_text(value) for name, value in found.items()}
    assert repacked({**texts, "r0": as_text(known)}) == texts == repacked(texts)
    for garbage in ({"r0": "garbage"}, {"r1": texts["r0"]}, {"r0": texts["r0"][:9], "r1": texts["r0"][9:]}, {"r0": ""}):
        assert repacked({**garbage, "x": "1"}) == {**garbage, "x": "1"}


def test_only_what_follows_may_lack() -> None:
    """Of the fields that are kept."""
    assert {*KEPT_FIELDS} - SURELY_KEPT == {*ENDS, "position", "part"}


def test_what_is_too_long_is_not_packed() -> None:
    """Four pieces are enough for most jobs; another one has all fields."""
    assert rest_of(STATE.but(command=("x" * 300,))) == {}
    assert list(rest_of(STATE.but(command=("x" * 180,)))) == list(PIECES)


@given(st.binary(max_size=80))
def test_any_piece_is_a_state_or_an_error_of_ours(piece: bytes) -> None:
    """Whatever it holds."""
    with suppress(StoreFormatError):
        read({**packed(STATE), b"r0": piece})
