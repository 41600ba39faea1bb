"""What people see."""

import sys
import time
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ci_common import JobEvent
from ci_eventstore.cli import output
from ci_eventstore.events.records import TimestampedLines

START = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-1, "0.0s"),
        (0.44, "0.4s"),
        (9.99, "10.0s"),
        (10, "10s"),
        (59.9, "59s"),
        (187, "3m 07s"),
        (7500, "2h 05m"),
        (100_000, "1d 03h"),
    ],
)
def test_durations_are_short(seconds: float, text: str) -> None:
    """Two units at most; never negative."""
    assert output.duration(START, START + timedelta(seconds=seconds)) == text


def test_a_naive_time_counts_as_utc() -> None:
    """Beside an aware one, too."""
    assert output.duration(START.replace(tzinfo=None), START + timedelta(seconds=20)) == "20s"


@pytest.mark.parametrize(
    ("zone", "text"),
    [
        ("UTC", "2026-01-01 00:00:00Z"),
        ("Europe/Berlin", "2026-01-01 01:00:00+01:00"),
        ("America/St_Johns", "2025-12-31 20:30:00-03:30"),
    ],
)
def test_a_time_says_its_zone(monkeypatch: pytest.MonkeyPatch, zone: str, text: str) -> None:
    """It is the reader's own; naive times count as UTC."""
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        assert output.local_time(START) == output.local_time(START.replace(tzinfo=None)) == text
    finally:
        monkeypatch.undo()
        time.tzset()


def test_text_stays_in_its_line() -> None:
    """What would move the cursor is written out; letters of all scripts stay."""
    assert output.printable("né\n\x1b[2J\x00日本\u202e") == "né\\n\\x1b[2J\\x00日本\\u202e"


def test_a_table_is_cut_to_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal a row takes one line; into a pipe it goes whole."""
    rows = [("1", "x" * 100)]
    assert max(map(len, output.table(("ID", "NAME"), rows).splitlines())) == 104
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "50")
    assert output.table(("ID", "NAME"), rows).splitlines()[1] == "1   " + "x" * 45 + "…"


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["a\n", "b\n"], "1 a\n2 b\n"),
        (["a", "b", "\nc"], "1 ab\n3 c"),
        (["a\nb\n\n"], "1 a\n1 b\n1 \n"),
        (["\r1%\r2%", "\n"], "1 \r1%\r2%\n"),
        (["", "a"], "2 a"),
        (["a\r", "b\r\n", "c"], "1 a\rb\r\n3 c"),
    ],
)
def test_each_line_has_one_time(texts: list[str], expected: str) -> None:
    """That of the event in which it begins."""
    lines = TimestampedLines()
    shown = b"".join(
        lines.render(JobEvent("log", text, timestamp=START + timedelta(seconds=second)))
        for second, text in enumerate(texts, 1)
    )
    for second in range(1, len(texts) + 1):
        shown = shown.replace(f"2026-01-01T00:00:0{second}.000Z".encode(), str(second).encode())
    assert shown.decode() == expected


@given(texts=st.lists(st.text("a\n\r", max_size=4), max_size=8), data=st.data())
def test_a_log_from_any_place_on_is_the_end_of_the_whole(texts: list[str], data: st.DataObject) -> None:
    """Times included, which stand at the beginnings of lines only, whatever pieces the lines came in."""
    events = [JobEvent("log", text, timestamp=START) for text in texts]
    after = data.draw(st.integers(0, len(texts)))
    before = "".join(texts[:after])
    whole, rest = TimestampedLines(), TimestampedLines(is_at_line_start=not before or before.endswith("\n"))
    shown = b"".join(map(whole.render, events))
    stamp = b"2026-01-01T00:00:00.000Z "
    assert shown.endswith(b"".join(map(rest.render, events[after:])))
    assert shown.replace(stamp, b"") == "".join(texts).encode()
    assert [line.count(stamp) for line in shown.split(b"\n") if line] == [1 for line in shown.split(b"\n") if line]


def test_a_line_that_began_earlier_has_no_time() -> None:
    """Shown from its middle on, it has none; the next one has."""
    lines = TimestampedLines(is_at_line_start=False)
    shown = lines.render(JobEvent("log", "st\nsecond\n", timestamp=START))
    assert shown == b"st\n2026-01-01T00:00:00.000Z second\n"


def test_a_log_that_begins_again_begins_a_line() -> None:
    """The line that was cut off is ended first, so that no time stands in its middle."""
    lines = TimestampedLines(is_at_line_start=False)
    assert lines.break_off() == b""
    lines.render(JobEvent("log", "cut", timestamp=START))
    assert (lines.break_off(), lines.break_off()) == (b"\n", b"")
    assert lines.render(JobEvent("log", "new\n", timestamp=START)) == b"2026-01-01T00:00:00.000Z new\n"
