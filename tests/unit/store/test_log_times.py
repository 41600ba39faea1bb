"""The times of a log are in order."""

import pytest

from ci_common.models import JobEvent
from ci_common.testing.samples import at
from ci_eventstore.jobs.log_times import LogTime, LogTimes


@pytest.mark.parametrize(
    ("came_at", "noted", "expected"),
    [
        (1, [], 1),
        (1, [0.5], 1),
        (1, [2], 2),
        (1, [2, 1.5], 2),
        # A time that someone has made up doesn't take others with it.
        (1, [1000], 10),
        # The clock was set back meanwhile.
        (11, [], 10),
        (None, [], 10),
    ],
)
def test_times_in_order(came_at: float | None, noted: list[float], expected: float) -> None:
    """Text that came at one time, after events of others, is stored at second 10."""
    time = LogTime()
    for other in noted:
        time.note(at(other))
    assert time.in_order(None if came_at is None else at(came_at), at(10)) == at(expected)


def test_times_are_kept_while_a_log_is_written() -> None:
    """Of other jobs nothing is remembered, and of this one no longer than its writers."""
    times = LogTimes()
    times.note("j", [at(5)])
    writers = [times.of("j"), times.of("j")]
    assert writers[0].in_order(at(1), at(10)) == at(1)
    times.note("j", [None, at(3).replace(tzinfo=None)])
    times.note_events("j", [JobEvent("log", timestamp=at(6)), JobEvent("log", timestamp=at(4))])
    times.note_events("other", [JobEvent("log", timestamp=at(9))])
    assert writers[1].in_order(at(1), at(10)) == at(6)
    writers.clear()
    assert times.of("j").in_order(at(1), at(10)) == at(1)
