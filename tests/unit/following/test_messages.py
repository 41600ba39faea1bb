"""What is said on a job's channel."""

import pytest

from ci_eventstore.events.records import Place
from ci_eventstore.following.feed import Message, parse_message


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"0-1 7-0", Message(Place(0, 1), Place(7, 0), None)),
        (b"6-2 7-0:3\nabc", Message(Place(6, 2), Place(7), [(Place(7), b"abc")])),
        (b"6-0 7-0:2 7-1:0\na\n", Message(Place(6), Place(7, 1), [(Place(7), b"a\n"), (Place(7, 1), b"")])),
        (b"0-1 7-0 0123abcd", Message(Place(0, 1), Place(7, 0), None, "0123abcd")),
        (b"6-2 7-0:3\nabc0123abcd", Message(Place(6, 2), Place(7), [(Place(7), b"abc")], "0123abcd")),
        (b"6-2 7-0:0\n0123abcd", Message(Place(6, 2), Place(7), [(Place(7), b"")], "0123abcd")),
        (b"6-0 7-0:2 8-0:1\n\n\n ", Message(Place(6), Place(8), [(Place(7), b"\n\n"), (Place(8), b" ")])),
    ],
)
def test_messages_are_read(data: bytes, expected: Message) -> None:
    """With the entries or without, whatever bytes they have; older programs send no mark."""
    assert parse_message(data) == expected
