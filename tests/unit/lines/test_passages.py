"""Passages of a log, as its events come."""

from datetime import UTC, datetime, timedelta
from itertools import accumulate

from hypothesis import given
from hypothesis import strategies as st

from ci_eventstore.events.codec import Texts
from ci_eventstore.lines.passages import LONGEST_LINE, Passage, _Cutter

NOW = datetime(2030, 1, 1, tzinfo=UTC)


def test_a_line_without_an_end_takes_bounded_memory() -> None:
    """Of a long one only its beginning is kept; the lines after it keep their numbers."""
    cutter = _Cutter(1, 1, 10, is_in_line=False)
    for position in range(1, 301):
        assert cutter.add(Texts([NOW], ["x" * 65_536]), position) is None
    passage = cutter.add(Texts([NOW], ["y\nnext\n"]), 301)
    assert passage is not None
    line, following, end = passage.text.split("\n")
    assert LONGEST_LINE <= len(line) <= LONGEST_LINE + 65_536
    assert (following, end, passage.first, passage.line_count) == ("next", "", 1, 2)


@given(st.lists(st.text("ab\n", min_size=1, max_size=9), max_size=9), st.integers(1, 12))
def test_parts_are_the_same_lines(texts: list[str], most: int) -> None:
    """Each is short, has its lines' numbers and times, and long lines are cut."""
    starts = list(accumulate(map(len, texts), initial=0))[:-1]
    whole = Passage(7, "".join(texts), starts, [NOW + timedelta(seconds=place) for place in range(len(texts))], 1)
    lines, begin = list[tuple[int, str, datetime]](), 0
    for number, line in enumerate(whole.text.splitlines(keepends=True), 7):
        lines.append((number, line.rstrip("\n")[:most] + "\n" * line.endswith("\n"), whole.time_at(begin)))
        begin += len(line)
    found = list[tuple[int, str, datetime]]()
    for part in whole.parts(most):
        begin = 0
        assert len(part.text) <= most or part.line_count == 1
        for number, line in enumerate(part.text.splitlines(keepends=True), part.first):
            found.append((number, line, part.time_at(begin)))
            begin += len(line)
    assert found == lines
