r"""What scripts tell a job's channel of an append. Pure.

<place before> <id>:<size> <id>:<size> …\n<payload><payload>…<mark>      the entries, if they are few and small
<place before> <place after> <mark>                                      else how far the stream goes

The mark is that of the entry at the place before: eight characters, which older programs don't send.
"""

from collections.abc import Sequence
from typing import NamedTuple

from ci_eventstore.events.records import Place

MARK_BYTES = 8


class Message(NamedTuple):
    """What was appended to a job's stream."""

    #: Where the stream ended before and ends now.
    before: Place
    after: Place
    #: None: they have to be read.
    payloads: Sequence[tuple[Place, bytes]] | None
    #: Of the entry that the stream ended with before; None if the message doesn't say.
    mark: str | None = None


def parse(data: bytes) -> Message:
    """Read a message; ValueError if it isn't one."""
    head, newline, body = data.partition(b"\n")
    before, *rest = head.split(b" ")
    if not newline:
        return Message(Place.parse(before), Place.parse(rest[0]), None, rest[1].decode() if len(rest) > 1 else None)
    payloads, start = [], 0
    for item in rest:
        stream_id, size = item.split(b":")
        end = start + int(size)
        payloads.append((Place.parse(stream_id), body[start:end]))
        start = end
    mark = body[start : start + MARK_BYTES].decode() or None
    return Message(Place.parse(before), payloads[-1][0], payloads, mark)
