"""Groups and remarks, as several systems mark them."""

from datetime import UTC, datetime

import pytest

from ci_eventstore.lines.marks import Closing, Opening, Remark, mark_of
from ci_eventstore.lines.outline import Outline
from ci_eventstore.lines.passages import Passage

NOW = datetime(2030, 1, 1, tzinfo=UTC)
MARKS = {
    "::group::Build": Opening("Build", ""),
    "##[group]Build": Opening("Build", ""),
    "::endgroup::": Closing(""),
    "##[endgroup]": Closing(""),
    "::error file=a.py,line=3::no": Remark("error", "no"),
    "##[warning]careful": Remark("warning", "careful"),
    "::notice::\x1b[31mred": Remark("notice", "red"),
    "\x1b[0Ksection_start:15:my_tests[collapsed=true]\r\x1b[0KTests": Opening("Tests", "my_tests"),
    "section_end:16:my_tests\r\x1b[0K": Closing("my_tests"),
    "travis_fold:start:install": Opening("install", "install"),
    "##teamcity[blockOpened name='Tests' description='d']": Opening("Tests", "Tests"),
    "##teamcity[blockClosed name='Tests']": Closing("Tests"),
    "--- :rocket: Deploy": Opening(":rocket: Deploy", "buildkite", is_section=True),
    "---": None,
    "an error: no": None,
    " ::group::not at the beginning": None,
}


@pytest.mark.parametrize("line", MARKS)
def test_marks_are_read(line: str) -> None:
    """Each as its system means it; what isn't marked is nothing."""
    assert mark_of(line) == MARKS[line]


def outline_of(*passages: str) -> Outline:
    outline, number = Outline(), 1
    for position, text in enumerate(passages, 1):
        passage = Passage(number, text, [0], [NOW], position)
        outline.add(passage)
        number += passage.line_count
    return outline


def test_groups_nest() -> None:
    """An end ends what lies within its group, a section the one before; however the lines come."""
    text = "::group::a\nx\n::group::b\n::endgroup::\n::endgroup::\n--- c\n::group::d\n::error::no\n+++ e\n"
    whole, cut = outline_of(text), outline_of(*text.splitlines(keepends=True))
    shown = [[(group.title, group.line, group.end, group.depth) for group in one.groups] for one in (whole, cut)]
    assert shown[0] == [("a", 1, 5, 0), ("b", 3, 4, 1), ("c", 6, 8, 0), ("d", 7, 8, 1), ("e", 9, None, 0)]
    assert shown[0] == shown[1]
    assert [(one.line, one.remark) for one in cut.remarks] == [(8, Remark("error", "no"))]
    assert cut.line == 10
