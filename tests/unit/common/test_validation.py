"""What a repository accepts, and what it says of the rest."""

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from ci_common import Job, JobEvent
from ci_common.errors import (
    EventTooLargeError,
    InvalidEventError,
    InvalidIdError,
    InvalidJobError,
    InvalidPositionError,
    InvalidTextError,
    InvalidTimeError,
)
from ci_common.validation import (
    MAX_EVENT_BYTES,
    accept_event,
    accept_events,
    check_id,
    check_job,
    check_optional_id,
    check_optional_time,
    check_position,
    check_text,
    check_time,
    fold_email,
    spell,
)

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("", "job id '' is empty"),
        ("x" * 257, "is longer than 256 characters"),
        ("a{b", "job id 'a{b' has a brace, a control character or another that can't be printed"),
        ("}", "has a brace"),
        ("a\tb", "has a brace, a control character"),
        ("\x7f", "control character"),
        ("\x85", "control character"),
        ("\u200b", "can't be printed"),
        ("\u00a0", "can't be printed"),
        ("\ud800", "can't be printed"),
        (None, "job id None is not text"),
        (1, "is not text"),
        (b"a", "is not text"),
    ],
    ids=repr,
)
def test_what_is_no_id(value: Any, message: str) -> None:
    """The error names the id, shows it and says what is wrong with it."""
    with pytest.raises(InvalidIdError) as caught:
        check_id("job id", value)
    assert message in str(caught.value)
    assert caught.value.value == value


@pytest.mark.parametrize("value", ["x", " ", "x" * 256, "é" * 256, "漢字", "🚒", "a:b/c*?[d]", "0"])
def test_what_is_an_id(value: str) -> None:
    """An id comes back as it is."""
    assert check_id("job id", value) == value


def test_an_optional_id_may_be_none() -> None:
    """But not empty."""
    check_optional_id("user id", None)
    with pytest.raises(InvalidIdError, match="user id '' is empty"):
        check_optional_id("user id", "")


@pytest.mark.parametrize("value", [0, 1, 2**70])
def test_what_is_a_position(value: int) -> None:
    """Any whole number from 0 on."""
    assert check_position(value) == value


@pytest.mark.parametrize("value", [-1, 1.5, 1.0, True, False, "1", None], ids=repr)
def test_what_is_no_position(value: Any) -> None:
    """The error shows it, and says what to use."""
    with pytest.raises(InvalidPositionError, match="use the id of the last event you have seen, 0 for none"):
        check_position(value)


def test_short_text_is_unicode() -> None:
    """Anything but lone surrogates, escaped bytes among them."""
    for value in (None, "", "é\x00\n🚒"):
        check_text("name", value)
    for value in ("\ud800", "a\udcff"):
        with pytest.raises(InvalidTextError, match=r"name .* is not valid Unicode"):
            check_text("name", value)


@pytest.mark.parametrize(
    "value",
    [
        None,
        "2026-01-01",
        0,
        datetime.min.replace(tzinfo=timezone(timedelta(seconds=1))),
        datetime.max.replace(tzinfo=timezone(timedelta(seconds=-1))),
    ],
    ids=repr,
)
def test_what_is_no_time(value: Any) -> None:
    """No datetime, or one that has no place in the years 1 to 9999 in UTC."""
    with pytest.raises(InvalidTimeError, match=r"end_time .* is not a datetime of the years 1 to 9999 in UTC"):
        check_time("end_time", value)


def test_what_is_a_time() -> None:
    """The first and the last of them, naive and aware; an optional one may be None."""
    for value in (datetime.min, datetime.max, datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)):
        check_time("end_time", value)
    check_optional_time("end_time", None)
    with pytest.raises(InvalidTimeError):
        check_optional_time("end_time", "soon")  # type: ignore[arg-type]  # what it is about


@pytest.mark.parametrize(("one", "other"), [("Ada@X.org", "aDA@x.ORG"), ("Straße@x", "STRASSE@x"), ("É@x", "é@x")])
def test_emails_are_equal_whatever_their_case(one: str, other: str) -> None:
    """Also in scripts where case is more than a letter for a letter."""
    assert fold_email(one) == fold_email(other)


@pytest.mark.parametrize(
    ("event", "message"),
    [
        (JobEvent("progress"), "the event type 'progress' is unknown: use log or complete"),
        (JobEvent("LOG"), "unknown"),
        (JobEvent("complete"), "a complete event needs success=True or success=False"),
        (JobEvent("log", "a\ud800b"), "lone surrogate at character 1"),
    ],
)
def test_what_is_no_event(event: JobEvent, message: str) -> None:
    """The error says what to do instead."""
    with pytest.raises(InvalidEventError, match=message):
        accept_event(event, NOW)


@pytest.mark.parametrize(
    "fields", [{"data": b"x"}, {"data": 1}, {"success": 1}, {"success": "yes"}, {"type": None}, {"type": 3}], ids=str
)
def test_fields_of_other_types_are_refused(fields: dict[str, Any]) -> None:
    """Bytes, numbers and words don't slip through."""
    with pytest.raises(InvalidEventError):
        accept_event(JobEvent(**({"type": "log"} | fields)), NOW)


@pytest.mark.parametrize(("data", "size"), [("x" * 11, 11), ("é" * 6, 12), ("\udcff" * 11, 11), ("🚒" * 3, 12)])
def test_an_event_above_the_limit(data: str, size: int) -> None:
    """Bytes count, those that are escaped too; the error tells both numbers and what to do."""
    with pytest.raises(EventTooLargeError, match="split it into several events") as caught:
        accept_event(JobEvent("log", data), NOW, max_bytes=10)
    assert (caught.value.size_bytes, caught.value.limit_bytes) == (size, 10)
    assert accept_event(JobEvent("log", data), NOW, max_bytes=size).data == data


def test_the_usual_limit() -> None:
    """Sixteen mebibytes."""
    assert MAX_EVENT_BYTES == 16 * 1024 * 1024


def test_an_accepted_event_has_a_time() -> None:
    """Its own, or now."""
    own = datetime(2020, 1, 1)
    assert accept_event(JobEvent("log", timestamp=own), NOW).timestamp == own
    assert accept_event(JobEvent("log"), NOW).timestamp == NOW


def test_all_events_or_none_are_accepted() -> None:
    """They come from any iterable, in their order; one that is bad refuses all."""
    accepted = accept_events((JobEvent("log", text) for text in "abc"), NOW)
    assert [event.data for event in accepted] == ["a", "b", "c"]
    with pytest.raises(InvalidEventError):
        accept_events([JobEvent("log"), JobEvent("progress")], NOW)


def test_text_has_one_spelling() -> None:
    """Escaped bytes that form a character become it; those that don't stay escaped."""
    assert spell("\udcc3\udca9") == ("é", 2)
    assert spell("\udcc3") == ("\udcc3", 1)
    assert spell("é\udcff") == ("é\udcff", 3)
    assert spell("") == ("", 0)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"status": "queued", "success": False}, "it is queued, so it can't have a result"),
        ({"status": "running", "end_time": NOW}, "it is running, so it can't have a result, an end"),
        ({"status": "running", "events": [JobEvent("complete", success=True)]}, "a complete event"),
        ({"status": "completed", "events": [JobEvent("complete", success=True)] * 2}, "more than one complete event"),
        (
            {"status": "completed", "success": True, "events": [JobEvent("complete", success=False)]},
            "its complete event says another result",
        ),
        ({"status": "failed", "success": True}, "it is failed, so its result can't be success=True"),
        ({"status": "cancelled", "events": [JobEvent("complete", success=True)]}, "its result can't be success=True"),
    ],
)
def test_a_job_that_contradicts_itself(fields: dict[str, Any], message: str) -> None:
    """The error names the job and the contradiction."""
    with pytest.raises(InvalidJobError, match=message) as caught:
        check_job(Job(id="j", **fields))
    assert caught.value.job_id == "j"
    assert str(caught.value).startswith("job 'j': ")
