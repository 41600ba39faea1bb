"""Payloads come back from columns byte for byte, be they lines or not."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ci_common.models import JobEvent
from ci_eventstore.events.codec import encode_event
from ci_eventstore.segments.columns import Columns, join, split

START = datetime(2026, 11, 26, tzinfo=UTC)
TEXTS = st.one_of(
    st.sampled_from(["ok\n", "", "\n", "a\nb\n", "no end", "ü\n", "\r\n", "x" * 31, "x" * 32, "x" * 300, "x" * 600]),
    st.text(max_size=40),
)
TIMES = st.one_of(
    st.sampled_from([START, START - timedelta(days=9), START.replace(tzinfo=None), datetime(1960, 1, 1, tzinfo=UTC)]),
    st.integers(0, 10**12).map(lambda number: START + timedelta(microseconds=number)),
)
#: A nanosecond that no program of ours writes, a longer head than a text needs, an event with a result, any bytes.
OTHERS = st.one_of(
    st.sampled_from(
        [
            b"\x94\x01\xa3log\xd7\xff" + bytes.fromhex("00000004672ff300") + b"\xa3ok\n",
            b"\x94\x01\xa3log\xd7\xff" + bytes.fromhex("00000fa0672ff300") + b"\xd9\x03ok\n",
            b"\x94\x01\xa3log\xd7\xff",
            encode_event(JobEvent("complete", success=True, timestamp=START)),
        ]
    ),
    st.binary(max_size=30),
)
PAYLOADS = st.one_of(
    st.builds(lambda text, time: encode_event(JobEvent("log", text, timestamp=time)), TEXTS, TIMES), OTHERS
)


@given(st.lists(PAYLOADS, max_size=40))
def test_payloads_come_back(payloads: Sequence[bytes]) -> None:
    """Whatever they are, in their order."""
    assert join(split(payloads)) == payloads


def test_lines_are_columns() -> None:
    """Of a line for each event nothing is left but the distance of its time, and its text."""
    lines = [f"line {number}\n" for number in range(3)]
    times = [START.replace(microsecond=number) for number in (7, 9, 8)]
    payloads = [encode_event(JobEvent("log", line, timestamp=time)) for line, time in zip(lines, times, strict=True)]
    complete = encode_event(JobEvent("complete", success=True, timestamp=START))
    first = int(START.timestamp()) * 1_000_000 + 7
    columns = split([*payloads, complete])
    assert columns == Columns([3, 1], [complete], [first, 2, -1], [], [], b"", "".join(lines).encode())


@pytest.mark.parametrize(
    "columns",
    [
        Columns([2], [], [1], [], [], b"", b"ok\n"),
        Columns([1], [], [1, 2], [], [], b"", b"ok\n"),
        Columns([1], [], [1], [], [], b"", b"ok\nmore"),
        Columns([1], [], [1], [9], [], b"", b"ok\n"),
        Columns([1], [b"other"], [1], [], [], b"", b"ok\n"),
        Columns([0, 2], [b"other"], [], [], [], b"", b""),
        Columns([1], [], [1], [], [], b"mark", b"ok\n"),
        Columns([1], [], [1], [], [0, 1], b"", b"ok\n"),
        Columns([1], [], [1], [], [0, 1], b"markmark", b"ok\n"),
        Columns([1], [], [1], [], [0, 2], b"markmark", b"ok\n"),
        Columns([1], [], [1], [], [1, 1], b"mark", b"ok\n"),
        Columns([1], [], [1], [], [0, 1], b"mar", b"ok\n"),
    ],
)
def test_columns_that_make_no_payloads_are_refused(columns: Columns) -> None:
    """More or fewer entries, times or texts than there should be."""
    with pytest.raises(ValueError, match=r"column|time|mark"):
        join(columns)
