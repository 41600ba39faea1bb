"""What is written can be read again: events, times and text, whatever they are."""

from datetime import UTC, datetime, timedelta, timezone

from hypothesis import assume, given
from hypothesis import strategies as st

from ci_common import JobEvent
from ci_common.models import as_utc, from_rfc3339, to_rfc3339
from ci_common.validation import accept_event, spell

NOW = datetime(2026, 1, 1, tzinfo=UTC)
offsets = st.integers(-23 * 3600, 23 * 3600).map(lambda seconds: timezone(timedelta(seconds=seconds)))
#: A day away from the ends of time, so that all of them can be written in UTC.
EARLIEST, LATEST = datetime(1, 1, 2), datetime(9999, 12, 30)
naive_times: st.SearchStrategy[datetime] = st.datetimes(EARLIEST, LATEST)
times = naive_times | st.datetimes(EARLIEST, LATEST, timezones=offsets)
texts = st.text() | st.binary().map(lambda raw: raw.decode("utf-8", "surrogateescape"))
events = st.builds(
    JobEvent,
    st.sampled_from(["log", "complete"]),
    st.none() | texts.filter(lambda text: not any("\ud800" <= each <= "\udc7f" for each in text)),
    st.booleans(),
    st.none() | times,
)


@given(events)
def test_an_event_survives_its_dictionary(event: JobEvent) -> None:
    """`from_dict(to_dict)` with the timestamp is the same event."""
    assert JobEvent.from_dict(event.to_dict(), event.timestamp) == event


@given(times)
def test_a_time_survives_its_text(time: datetime) -> None:
    """It is the same moment, aware, in UTC; its text ends in Z and sorts like the time."""
    text = to_rfc3339(time)
    assert text is not None
    assert text.endswith("Z")
    assert "+" not in text
    assert from_rfc3339(text) == as_utc(time)


@given(times, times)
def test_moments_compare_as_in_utc(one: datetime, other: datetime) -> None:
    """A naive time is one of UTC; an aware one keeps its moment."""
    for time in (one, other):
        assert as_utc(time).utcoffset() == timedelta(0)
        assert as_utc(as_utc(time)) == as_utc(time)
    if one.tzinfo is not None and other.tzinfo is not None:
        assert (as_utc(one) < as_utc(other)) == (one < other)


@given(st.binary(max_size=60))
def test_bytes_have_one_spelling(raw: bytes) -> None:
    """Bytes decoded at once, or piece by piece, are accepted as the same text, which has the same bytes."""
    whole = raw.decode("utf-8", "surrogateescape")
    pieces = "".join(bytes([byte]).decode("utf-8", "surrogateescape") for byte in raw)
    assert spell(whole) == spell(pieces) == (whole, len(raw))
    assert spell(pieces)[0].encode("utf-8", "surrogateescape") == raw


@given(events)
def test_an_accepted_event_is_accepted_as_it_is(event: JobEvent) -> None:
    """Accepting fills the time and settles the spelling, once."""
    accepted = accept_event(event, NOW)
    assert accepted.timestamp == (event.timestamp or NOW)
    assert accept_event(accepted, NOW + timedelta(1)) == accepted
    assume(event.timestamp)
    assert (accepted.data or "").encode("utf-8", "surrogateescape") == (event.data or "").encode(
        "utf-8", "surrogateescape"
    )


def test_no_time_is_no_text() -> None:
    """None stays None in both directions."""
    assert to_rfc3339(None) is None
    assert from_rfc3339(None) is None
