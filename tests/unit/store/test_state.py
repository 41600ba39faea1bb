"""A job's hash: what is read of it, and what is refused as damaged."""

from contextlib import suppress
from dataclasses import fields
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ci_common.models import Job, JobStatus
from ci_eventstore.errors import ProjectionDamagedError, StoreFormatError
from ci_eventstore.jobs.state import (
    ENDS,
    KEPT_FIELDS,
    PIECES,
    REST_FIELDS,
    JobState,
    from_hash,
    packed_log,
    rest_of,
    to_hash,
    to_job,
    without_ends,
)

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
    kept = without_ends({name: value for name, value in to_hash(state).items() if name in KEPT_FIELDS})
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
        log=st.just("0-1,4-0,400,0123456789abcdef,a"),
    )
)
def test_a_packed_record_is_read_as_it_was_written(state: JobState) -> None:
    """Whatever its fields hold; what the hash has wins, and no value is too long for a small hash."""
    found = packed(state)
    if b"r0" in found:
        assert read(found) == state
        assert (b"end_position" in found) == (state.end_position != state.position)
        # As earlier versions wrote it.
        assert read({**found, **{name.encode(): str(getattr(state, name)).encode() for name in ENDS}}) == state
        assert read({**found, b"lines": b"7", b"unheard_of": b"1"}) == state.but(lines=7)
        assert packed_log([part for pair in found.items() for part in pair]) is None
        assert max(len(value) for name, value in found.items() if name.decode() in PIECES) <= 64


def test_what_is_too_long_is_not_packed() -> None:
    """Four pieces are enough for most jobs; another one has all fields."""
    assert rest_of(STATE.but(command=("x" * 300,))) == {}
    assert list(rest_of(STATE.but(command=("x" * 180,)))) == list(PIECES)


@given(st.binary(max_size=80))
def test_any_piece_is_a_state_or_an_error_of_ours(piece: bytes) -> None:
    """Whatever it holds."""
    with suppress(StoreFormatError):
        read({**packed(STATE), b"r0": piece})
