"""The lines that are measured with."""

from benchmarks.scale import EVENT_BYTES
from benchmarks.texts import events, generated_lines, generated_log, large_events


def test_generated_lines_are_the_same_every_time() -> None:
    """A fixed seed gives the same lines, so that two runs measure the same; they differ from each other."""
    lines = generated_lines(200)
    assert lines == generated_lines(200)
    assert len(set(lines)) > 190


def test_events_have_the_size_that_the_table_names() -> None:
    """Each event's text has EVENT_BYTES bytes with its line's end, and a time of its own."""
    given = events(50)
    assert {len((event.data or "").encode()) for event in given} == {EVENT_BYTES}
    assert all((event.data or "").endswith("\n") for event in given)
    assert len({event.timestamp for event in given}) == 50


def test_large_events_are_large() -> None:
    """Events that are to be compressed have the size asked for, and differ."""
    given = large_events(3, 4096)
    assert [len(event.data or "") for event in given] == [4096] * 3
    assert len({event.data for event in given}) == 3


def test_a_generated_log_is_as_long_as_asked_for() -> None:
    """Pieces of every size can be cut from it."""
    assert len(generated_log(100_000)) >= 100_000
