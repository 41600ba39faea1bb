"""Passages of a log, as its events come."""

from datetime import UTC, datetime

from ci_eventstore.lines.passages import LONGEST_LINE, _Cutter

NOW = datetime(2030, 1, 1, tzinfo=UTC)


def test_a_line_without_an_end_takes_bounded_memory() -> None:
    """Of a long one only its beginning is kept; the lines after it keep their numbers."""
    cutter = _Cutter(1, 1, is_in_line=False)
    for position in range(1, 301):
        assert cutter.add([(NOW, "x" * 65_536)], position) is None
    passage = cutter.add([(NOW, "y\nnext\n")], 301)
    assert passage is not None
    line, following, end = passage.text.split("\n")
    assert LONGEST_LINE <= len(line) <= LONGEST_LINE + 65_536
    assert (following, end, passage.first, passage.line_count) == ("next", "", 1, 2)
