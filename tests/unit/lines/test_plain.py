"""What a line shows on a terminal."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ci_eventstore.lines.plain import CONTROLS, plain_line, plain_lines

LINES = {
    "plain\ttext": "plain\ttext",
    "\x1b[31mred\x1b[0m and \x1b[38;2;1;2;3mmore\x1b[m": "red and more",
    "10 %\r50 %\rdone": "done",
    "longer\rab": "abnger",
    "abc\b\bX": "aXc",
    "abc\x1b[2DX": "aXc",
    "a\x1b[3Cb": "a   b",
    "abc\x1b[1GX": "Xbc",
    "abc\r\x1b[K": "",
    "abc\r\x1b[2Kd": "d",
    "abc\x1b[1K": "   ",
    "section_start:1:test\r\x1b[0KTests": "Tests",
    "\x1b]8;;https://a\x07link\x1b]8;;\x07": "link",
    "\x1b]0;title\x1b\\text": "text",
    "\x1b]0;never ends": "",
    "\x1b]0;a\x1b[31mb": "b",
    "\x1bPq\x07after": "after",
    "\x1b(Btext": "text",
    "\x9b31mred": "red",
    "\x1b": "",
    "\x1b[": "",
    "\x00\x7f\x07": "",
    "crlf\r": "crlf",
    "a\x1b\x1b[1mb": "ab",
    "a\x1b[3\x1b[1m1mb": "a1mb",
    "abc\x1b[00002GX": "aXc",
    "é\x1b[1D\U0001f600": "\U0001f600",
}


@pytest.mark.parametrize("line", LINES)
def test_a_line_is_shown(line: str) -> None:
    """Escapes do what they say within the line, or vanish wholly."""
    assert plain_line(line) == LINES[line]


@given(st.lists(st.text(st.sampled_from("ab\t\r\b\x1b[]0;1mKCDGX\x07\\\x9b\x9d\x80é\U0001f600\udcff"), max_size=12)))
def test_many_lines_are_shown_as_each(lines: list[str]) -> None:
    """Together they are what each is by itself, and nothing is left that a terminal wouldn't show."""
    shown = plain_lines("\n".join(lines))
    assert shown == "\n".join(map(plain_line, lines))
    assert CONTROLS.search(shown) is None


HOSTILE = ["\x1b[", "\x1b[1", "\x1b]", "\x1b]a\x1b", "\x1b", "\x9b", "a\r", "\rx\x1b[9999C\x1b[1K", "\x1b[9999X"]


@pytest.mark.parametrize("part", HOSTILE)
def test_no_text_makes_it_slow(part: str) -> None:
    """Kilobytes of it, after as much text, take no longer than so many others: each is looked at once."""
    size = 5000
    line = "x" * size + part * (size // len(part)) + "\x1b[1K" * (size // 4)
    assert len(plain_line(line)) <= 2 * size
    assert plain_lines(f"{line}\n{line}").count("\n") == 1
