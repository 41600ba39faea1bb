"""The pace of a replay, by the times of its records."""

import math
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from ci_common.errors import InvalidArgumentError, InvalidPositionError
from ci_eventstore.replay.replay import Pace, check_point

NOON = datetime(2026, 11, 26, 12, tzinfo=UTC)
NAIVE = datetime(2026, 11, 26, 12)


def after(seconds: float) -> datetime:
    """Return a time after noon."""
    return NOON + timedelta(seconds=seconds)


@pytest.mark.parametrize(
    ("pace", "before", "time", "seconds"),
    [
        (Pace(1), NOON, after(3), 3.0),
        (Pace(4), NOON, after(3), 0.75),
        (Pace(0.5), NOON, after(3), 6.0),
        (Pace(None), NOON, after(3), 0.0),
        (Pace(math.inf), NOON, after(3), 0.0),
        # The first record, and one without a time.
        (Pace(1), None, after(3), 0.0),
        (Pace(1), NOON, None, 0.0),
        # A clock that stands still, or jumps back.
        (Pace(1), NOON, NOON, 0.0),
        (Pace(1), NOON, after(-3600), 0.0),
        # A naive time is one in UTC; zones are what they are.
        (Pace(1), NAIVE, after(3), 3.0),
        (Pace(1), NOON, NAIVE + timedelta(seconds=2), 2.0),
        (Pace(1), NOON, datetime(2026, 11, 26, 13, 0, 5, tzinfo=timezone(timedelta(hours=1))), 5.0),
        # A long gap is cut, and then divided.
        (Pace(1), NOON, after(60), 60.0),
        (Pace(1), NOON, after(61), 60.0),
        (Pace(4), NOON, after(86400), 15.0),
        (Pace(1, 0), NOON, after(3), 0.0),
        (Pace(1, 2.5), NOON, after(3), 2.5),
        (Pace(1, None), NOON, after(86400), 86400.0),
        (Pace(2), datetime.min, datetime.max, 30.0),
    ],
)
def test_a_replay_waits(pace: Pace, before: datetime | None, time: datetime | None, seconds: float) -> None:
    """As long as the records were apart, by the speed; never longer than the longest gap, never back."""
    assert pace.seconds_between(before, time) == seconds


@pytest.mark.parametrize(
    ("speed", "longest"), [(0, 1), (-1, 1), (math.nan, 1), ("4", 1), (True, 1), (1, -1), (1, math.nan), (1, "1m")]
)
def test_what_is_no_pace_is_refused(speed: Any, longest: Any) -> None:
    """Before anything is read."""
    with pytest.raises(InvalidArgumentError):
        Pace(speed, longest)


def test_a_point_is_a_position_or_a_time() -> None:
    """A naive time is one in UTC."""
    assert [check_point("since", point) for point in (None, 0, 7, NAIVE)] == [None, 0, 7, NOON]
    with pytest.raises(InvalidPositionError):
        check_point("since", -1)
    wrong: Any = "7"
    with pytest.raises(InvalidArgumentError):
        check_point("since", wrong)
