"""Groups and remarks, as several systems mark them."""

from datetime import UTC, datetime
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ci_eventstore.lines.marks import Closing, Opening, Remark, mark_of
from ci_eventstore.lines.outline import Outline
from ci_eventstore.lines.passages import Passage

NOW = datetime(2030, 1, 1, tzinfo=UTC)
MARKS = {
    "::group::Build": Opening("Build", ""),
    "##[group]Build": Opening("Build", ""),
    "::endgroup::": Closing(""),
    "##[endgroup]": Closing(""),
    "::error file=a.py,line=3::no": Remark("error", "a.py:3: no"),
    "::error title=a: b%2C c::%0Ad": Remark("error", "a: b, c:  d"),
    "##[warning]careful": Remark("warning", "careful"),
    "::notice::\x1b[31mred": Remark("notice", "red"),
    "\x1b[0Ksection_start:15:my_tests[collapsed=true]\r\x1b[0KTests": Opening("Tests", "my_tests"),
    "section_end:16:my_tests\r\x1b[0K": Closing("my_tests"),
    "travis_fold:start:install": Opening("install", "install"),
    "##teamcity[blockOpened name='Tests' description='d']": Opening("Tests", "Tests"),
    "##teamcity[blockClosed name='Tests']": Closing("Tests"),
    "--- :rocket: Deploy": Opening(":rocket: Deploy", "buildkite", is_section=True, sign="---"),
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


TEXTS = ["::group::a", "::endgroup::", "--- a", "+++ b", "~~~ c", "::error::x", "section_start:1:s\r\x1b[0KS", "y", ""]
TEXTS += ["section_end:2:s\r", "travis_fold:start:t", "travis_fold:end:t", "##[warning]w"]


@given(st.lists(st.sampled_from(TEXTS), max_size=30), st.sets(st.integers(1, 29)))
def test_any_cut_gives_the_same_outline(lines: list[str], cuts: set[int]) -> None:
    """However many lines come at a time."""
    texts, parts = [f"{line}\n" for line in lines], sorted(cut for cut in cuts if cut < len(lines))
    cut = ["".join(texts[begin:end]) for begin, end in pairwise([0, *parts, len(texts)])]
    found = [outline_of("".join(texts)), outline_of(*cut)]
    shown = [[(group.title, group.line, group.end, group.depth) for group in one.groups] for one in found]
    assert shown[0] == shown[1]
    assert [mark.line for mark in found[0].remarks] == [mark.line for mark in found[1].remarks]
    assert all(group.end is None or group.end >= group.line for group in found[0].groups)


def test_a_diff_is_no_section() -> None:
    """Two lines that name the files of a diff begin none, wherever they are cut; one such line alone does."""
    for text in (["--- a/x\n+++ b/x\n@@ -1 +1 @@\n"], ["--- a/x\n", "+++ b/x\n", "@@ -1 +1 @@\n"]):
        assert outline_of(*text).groups == []
    assert [group.title for group in outline_of("--- a\nb\n+++ c\n").groups] == ["a", "c"]


def test_a_hostile_log_has_a_bounded_outline() -> None:
    """Of groups that nest without end, and of a million others, some are left out, and it says so."""
    deep = outline_of("::group::g\n" * 5000 + "section_end:1:x\n" * 5000 + "::endgroup::\n" * 5000)
    assert (deep.is_limited, len(deep.groups), deep.groups[0].end) == (True, 32, 15_000)
    wide = outline_of("::group::g\n::endgroup::\n::error::e\n" * 6000)
    assert (wide.is_limited, len(wide.groups), len(wide.remarks)) == (True, 5000, 5000)
    assert len(outline_of("::group::" + "x" * 100_000 + "\n").groups[0].title) == 200
