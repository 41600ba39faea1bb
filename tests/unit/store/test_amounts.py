"""Durations and sizes, read and written."""

import pytest

from ci_eventstore.amounts import format_duration, format_size, parse_duration, parse_size


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30s", 30), ("15m", 900), ("1h", 3600), ("2d", 172_800), ("90", 90), ("1.5h", 5400), ("0", 0), (" 5s ", 5)],
)
def test_durations_are_read(text: str, seconds: float) -> None:
    """With a unit or, in seconds, without."""
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "s", "-1", "-1s", "1 h", "1H", "1w", "1h30m", "1e3", "inf", "nan", "1,5h", ".5s", "٣s", "9999999999"]
)
def test_what_is_no_duration_is_refused(text: str) -> None:
    """The message says how one is written."""
    with pytest.raises(ValueError, match="write it as 30s"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (0.5, "0.5s"), (30, "30s"), (60, "1m"), (90, "90s"), (5400, "90m"), (3600, "1h"), (172_800, "2d")],
)
def test_durations_are_written(seconds: float, text: str) -> None:
    """In the biggest unit that fits, and so that they can be read again."""
    assert format_duration(seconds) == text
    assert parse_duration(text) == seconds


def test_sizes_are_written_as_they_are_read() -> None:
    """With the biggest unit that fits; what is no size is refused."""
    for text in ("1B", "1023B", "1KiB", "1536KiB", "10GiB", "2TiB", "0B"):
        assert format_size(parse_size(text)) == text
    assert parse_size(" 1024 ") == 1024
    for text in ("", "1.5GiB", "-1", "1 GiB", "1gib"):
        with pytest.raises(ValueError, match="is no size"):
            parse_size(text)
