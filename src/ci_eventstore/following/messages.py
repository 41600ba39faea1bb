r"""What `append.lua` tells of an append on its job's channel. Pure.

<place before> <id>:<size> <id>:<size> …\n<payload><payload>…      the entries, if they are few and small
<place before> <place after>                                         else how far the stream goes
"""

from collections.abc import Sequence
from typing import NamedTuple

from ci_eventstore.events.records import Place


class Message(NamedTuple):
    """What was appended to a job's stream."""

    #: Where the stream ended before and ends now.
    before: Place
    after: Place
    #: None: they have to be read.
    payloads: Sequence[tuple[Place, bytes]] | None


def parse(data: bytes) -> Message:
    """Read a message; ValueError if it isn't one."""
    head, newline, body = data.partition(b"\n")
    before, *rest = head.split(b" ")
    if not newline:
        return Message(Place.parse(before), Place.parse(rest[0]), None)
    payloads, start = [], 0
    for item in rest:
        stream_id, size = item.split(b":")
        end = start + int(size)
        payloads.append((Place.parse(stream_id), body[start:end]))
        start = end
    return Message(Place.parse(before), payloads[-1][0], payloads)
