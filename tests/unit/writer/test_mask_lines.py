"""Lines that name secrets are taken out of the output, however it is split, and nothing else is."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ci_eventstore.writer.mask_lines import _LONGEST_LINE, MARKER, MOST_CHARACTERS, MOST_SECRETS, MaskLines

lines = st.lists(
    st.sampled_from([b"", b"\n", b"a", b":", b"::", b"::add-mask", MARKER, b"\r\n", b"value", b"x::add-mask::value\n"]),
    max_size=12,
).map(b"".join)


def taken(pieces: list[bytes]) -> tuple[bytes, list[str]]:
    """Return what is left of the output, and the secrets that it names."""
    secrets: list[str] = []
    lines = MaskLines(secrets.append)
    return b"".join(map(lines.take, pieces)) + lines.finish(), secrets


@given(text=lines, cuts=st.lists(st.integers(0, 100), max_size=6))
def test_any_split_is_the_same(text: bytes, cuts: list[int]) -> None:
    """Lines that begin with the marker are left out, all others are as they were, wherever the output is cut."""
    edges = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    left, secrets = taken([text[start:end] for start, end in itertools.pairwise(edges)])
    marked = [line for line in text.split(b"\n") if line.startswith(MARKER)]
    values = [line[len(MARKER) :].decode().strip() for line in marked]
    assert secrets == [value for value in values if len(value) >= 4]
    others = b"".join(line for line in text.replace(b"\n", b"\n\0").split(b"\0") if not line.startswith(MARKER))
    assert b"".join(line for line in left.splitlines(keepends=True) if b"masks nothing" not in line) == b"".join(
        others.splitlines(keepends=True)
    )


@pytest.mark.parametrize(
    ("line", "secrets"),
    {
        b"::add-mask::value\r\n": ["value"],
        b"::add-mask:: \t\n": [],
        b"::add-mask::\n": [],
        b"::add-mask::two words \n": ["two words"],
        b"::add-mask::unfinished": ["unfinished"],
        b"::add-mask::caf\xe9\n": ["caf\udce9"],
        b"::add-mask::one line%0Aand 100%25\n": ["one line\nand 100%", "one line%0Aand 100%25"],
    }.items(),
)
def test_values(line: bytes, secrets: list[str]) -> None:
    """A value is what stands to the end of the line, without white space around it, or its end."""
    left, found = taken([line])
    assert (left, sorted(found)) == (b"", sorted(secrets))


def test_a_line_that_only_begins_like_one_is_shown() -> None:
    """It waits no longer than it may be one."""
    lines = MaskLines(lambda secret: None)
    assert lines.take(b"one\n::add") == b"one\n"
    assert lines.take(b"-on\n") == b"::add-on\n"
    assert lines.take(b"::a") == b""
    assert lines.finish() == b"::a"


def test_a_short_value_isnt_masked() -> None:
    """A line says so, without it."""
    left, secrets = taken([b"x\n::add-mask::abc\ny\n"])
    assert (left.splitlines()[0], left.splitlines()[2], secrets) == (b"x", b"y", [])
    assert b"fewer than 4 characters" in left
    assert b"abc" not in left


def test_a_command_may_name_so_many_secrets() -> None:
    """Each takes memory of the controller's; a line says which of them aren't masked, without the value."""
    left, secrets = taken([b"".join(b"::add-mask::number-%d\n" % number for number in range(MOST_SECRETS + 2))])
    assert len(secrets) == MOST_SECRETS
    assert left.count(b"masks nothing") == 2
    left, secrets = taken([b"::add-mask::" + b"x" * (MOST_CHARACTERS + 1) + b"\n"])
    assert (secrets, len(left) < 200) == ([], True)


def test_a_line_without_an_end_takes_no_memory() -> None:
    """It is neither kept nor stored, and what comes after it is."""
    lines = MaskLines(lambda secret: None)
    shown = lines.take(MARKER + b"x" * _LONGEST_LINE)
    assert shown.startswith(b"[::add-mask:: masks nothing: the line is too long")
    assert lines.take(b"x" * 1000) == b""
    assert lines.take(b"x\nnext\n::add-mask::value\n") == b"next\n"
