"""The sparse index, made and checked in one pass."""

from datetime import UTC, datetime, timedelta, timezone

import pytest

from ci_common.models import JobEvent
from ci_eventstore.events.log_index import LogIndex, milliseconds_of
from ci_eventstore.events.records import Fact, FactType, Record

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
LINES: list[Record] = [JobEvent("log", "ü\n", timestamp=NOW)] * 4999  # it ends as a call did


MS = 1_795_348_800_000  # that is `NOW`


def with_times(entries: list[str]) -> list[str]:
    """Return entries with the time that all events have here."""
    return [f"{entry} {MS}" for entry in entries]


def pass_over(index: LogIndex, records: list[Record]) -> LogIndex:
    for record in records:
        index.add(record)
    return index


def test_entries_are_made_each_thousand_events() -> None:
    """By position, line and byte; facts don't count."""
    records = [*LINES[:1500], Fact(FactType.UPDATED, NOW), *LINES[:1000]]
    assert pass_over(LogIndex(), records).entries == with_times(["1000 1000 3000", "2000 2000 6000"])


def test_entries_are_made_each_mebibyte() -> None:
    """Big events come to entries sooner."""
    big = JobEvent("log", "x" * 600_000, timestamp=NOW)
    assert pass_over(LogIndex(), [big] * 5).entries == with_times(["2 0 1200000", "4 0 2400000"])


@pytest.mark.parametrize(
    ("found", "is_right", "gap_at"),
    [
        (["1000 1000 3000", "2000 2000 6000", "3000 3000 9000", "4000 4000 12000"], True, None),
        (["1999 1999 5997", "3998 3998 11994"], True, 4999),
        (["1999 1999 5997", "4000 4000 12000"], True, 3999),
        (["1999 1999 5997", "3998 3998 11994", "4001 4001 12003"], True, None),
        (["1999 1999 5997", "3000 3000 9000"], True, 4999),
        ([], True, 2000),
        (["1000 1000 3001", "2000 2000 6000", "4000 4000 12000"], False, 4000),
        (["2000 2000 6000", "1000 1000 3000"], False, None),
        (["1000 1000 3000", "1000 1000 3000"], False, 3000),
        (["9000 9000 27000"], False, 2000),
        (["x"], False, 2000),
    ],
)
def test_an_index_is_checked(found: list[str], is_right: bool, gap_at: int | None) -> None:
    """Each entry has to be right, whatever call it came behind, and none may be too far from the next."""
    index = pass_over(LogIndex(with_times(found)), LINES)
    assert (index.entries == with_times(found)) == is_right
    if is_right:
        assert index.gap_at == gap_at


@pytest.mark.parametrize(
    ("time", "expected"),
    [
        (NOW, MS),
        (NOW.astimezone(timezone(timedelta(hours=5))) + timedelta(microseconds=1999), MS + 1),
        (datetime(1969, 12, 31, 23, 59, 59, 999_500, tzinfo=UTC), -1),
        (NOW.replace(tzinfo=None), 0),
        (None, 0),
    ],
)
def test_a_time_is_milliseconds(time: datetime | None, expected: int) -> None:
    """Since 1970, whatever its zone; one without a zone is none."""
    assert milliseconds_of(time) == expected


def test_an_index_without_times_is_wrong() -> None:
    """As programs of the version before made it."""
    found = ["1000 1000 3000", "2000 2000 6000", "3000 3000 9000", "4000 4000 12000"]
    assert pass_over(LogIndex(found), LINES).entries != found
