"""What is found in lines."""

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ci_eventstore.lines.matching import MOST_OF_LINE, matcher_of, utf16_places

TEXT = "one two\nTwo tWo\n\nthree\ntwo"


def found(text: str, wanted: str, mode: str = "text", *, has_case: bool = False) -> list[tuple[str, list[str]]]:
    """Return the lines with hits, each with what was found."""
    matches = matcher_of(wanted, mode, has_case=has_case).find(text)
    lines = [(text[start:end], places) for start, end, places in matches]
    return [(line, [line[start:end] for start, end in places]) for line, places in lines]


@pytest.mark.parametrize("mode", ["text", "regex"])
def test_texts_and_patterns_are_found(mode: str) -> None:
    """In all lines that have them, upper and lower case alike unless that is asked for."""
    assert found(TEXT, "two", mode) == [("one two", ["two"]), ("Two tWo", ["Two", "tWo"]), ("two", ["two"])]
    assert found(TEXT, "two", mode, has_case=True) == [("one two", ["two"]), ("two", ["two"])]
    assert found(TEXT, "four", mode) == []


def test_patterns_stay_within_lines() -> None:
    """Also those that could match a newline, and those that match ends of lines."""
    assert found(TEXT, r"two\s+two", "regex") == [("Two tWo", ["Two tWo"])]
    assert found(TEXT, "^two", "regex") == [("Two tWo", ["Two"]), ("two", ["two"])]
    assert found(TEXT, "e$", "regex") == [("three", ["e"])]
    assert found("a\nb", r"a\sb|b", "regex") == [("b", ["b"])]


#: What a pattern is made of.
PIECES = [
    "a",
    "b",
    "^",
    "$",
    r"\A",
    r"\z",
    r"\b",
    r"\B",
    r"\s",
    r"\S",
    ".",
    "[^a]",
    r"\W",
    "(?s:.)",
    "(?-m:^)",
    "(?-m:$)",
    r"\Qa\E",
    "()",
]
PIECES += ["(?m)", "(?i)", "(?U)", "(?s)", "(?-m)"]


@given(
    st.lists(st.sampled_from(["a", "b", "A", " ", "ä", "\n"]), max_size=30).map("".join),
    st.lists(st.tuples(st.sampled_from(PIECES), st.sampled_from(["", "", "*", "+", "?", "|"])), min_size=1, max_size=5),
)
@example("b\na", [(r"\A", ""), ("a", "")])
@example("a\nb", [("a", ""), (r"\z", "")])
@example("b\na", [("(?-m:^)", ""), ("a", "")])
@example("b\na", [("(?-m)", ""), ("^", ""), ("a", "")])
def test_each_line_is_searched_by_itself(text: str, pieces: list[tuple[str, str]]) -> None:
    """Whatever lines are around: how a log is cut into passages is nobody's business."""
    wanted = "".join(piece if piece.startswith("(?") and ":" not in piece else piece + how for piece, how in pieces)
    try:
        expected = [hit for line in text.split("\n") for hit in found(line, wanted, "regex", has_case=True)]
    except ValueError:
        return
    assert found(text, wanted, "regex", has_case=True) == expected


def test_a_backslash_before_a_letter_is_searched_for() -> None:
    """It is no escape if it is escaped itself."""
    assert found(r"C:\CI", r"\\C", "regex") == [(r"C:\CI", [r"\C"])]


def test_what_is_behind_many_empty_matches_is_found() -> None:
    """A pattern that matches nothing, too, as one does that is being typed, finds what it has in a long line."""
    assert found("b" * 5000 + "a", "a|", "regex") == [("b" * 5000 + "a", ["a"])]


@pytest.mark.parametrize("wanted", ["a[^x]*b", "a(?s:.*)b", r"a\W*b", r"\Aa(?s).*b\z", "a+[^c]*?b"])
def test_a_pattern_goes_over_the_lines_once(wanted: str) -> None:
    """Also one that would go on over newlines, from each line to the last one: this would take ten minutes."""
    assert found("a\n" * 300_000 + "b\n", wanted, "regex", has_case=True) == []


@pytest.mark.parametrize(
    ("wanted", "mode"), [("", "text"), ("a\nb", "text"), ("a" * 1001, "text"), ("(", "regex"), (r"x\C", "regex")]
)
def test_what_cant_be_searched_for_is_refused(wanted: str, mode: str) -> None:
    """With a reason, before anything is read."""
    with pytest.raises(ValueError, match=r"\w"):
        matcher_of(wanted, mode, has_case=False)


def test_of_a_line_a_large_pattern_sees_less() -> None:
    """A search must have an end soon, whatever the pattern is; one with too many instructions is refused."""
    assert matcher_of("error|warning", "regex", has_case=False).most_of_line == MOST_OF_LINE
    assert 20_000 <= matcher_of("a[ab]{900}c", "regex", has_case=True).most_of_line <= 50_000
    with pytest.raises(ValueError, match="instructions"):
        matcher_of(r"\pL{9}", "regex", has_case=False)


@given(st.text("aAbÄäİ😀\n", max_size=30), st.text("aAbÄäİ😀", min_size=1, max_size=2))
def test_both_ways_find_the_same(text: str, wanted: str) -> None:
    """A text is found where a pattern without special characters finds it, place by place."""
    assert found(text, wanted, has_case=True) == found(text, wanted, "regex", has_case=True)


@given(st.text("aAkK\u212aiİÄä😀\n", max_size=30), st.text("aAkKiİÄä", min_size=1, max_size=2))
def test_upper_and_lower_case_are_alike_in_every_text(text: str, wanted: str) -> None:
    """Whatever letters are around: the fast way for texts with others than ASCII's finds what lower case has."""
    if len(text.lower()) != len(text):
        return
    lines = [(line, line.lower(), wanted.lower()) for line in text.split("\n")]
    # Hits of one line don't overlap.
    expected = [
        (line, [line[one.start() : one.end()] for one in re.finditer(re.escape(low), lower)])
        for line, lower, low in lines
    ]
    assert found(text, wanted) == [(line, places) for line, places in expected if places]


def test_places_count_utf16_units() -> None:
    """As JavaScript does."""
    assert utf16_places("a😀b", [(0, 1), (1, 2), (2, 3)]) == [(0, 1), (1, 3), (3, 4)]
