"""What a follower is handed: a job's records in their order, and notices where that order is broken. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from ci_common.models import JobEvent
from ci_eventstore.events.codec import decode
from ci_eventstore.events.records import Fact, Place


class NoticeType(StrEnum):
    """What may be wrong with the events that a follower was handed."""

    #: Events are no longer there; the log goes on after them.
    GAP = "gap"
    #: The store has lost events that were handed out, or has others in their place; the log begins again.
    RESET = "reset"


@dataclass(frozen=True, slots=True)
class Notice:
    """Something that a follower is told of, and that isn't in the stream."""

    type: NoticeType
    #: Of the next event that there is; 0 for a reset, after which the log begins with its first event.
    position: int
    #: Of a reset: the incarnation of what follows.
    incarnation: str | None = None


Followed = JobEvent | Fact | Notice


class Entry(NamedTuple):
    """A record, where it stands, and how it is stored; notices are not."""

    place: Place
    record: Followed
    payload: bytes = b""


def in_order(payloads: Iterable[tuple[Place, bytes]], position: int, job_id: str = "") -> list[Entry]:
    """Decode the entries after a position; where positions are missing, a notice says so. StoreFormatError."""
    entries: list[Entry] = []
    for place, payload in payloads:
        record = decode(payload, place.position, job_id)
        if place.position > position + (place.part == 0):
            # A fact comes after the event at its position, which is missing as well.
            next_position = place.position + (place.part > 0)
            entries.append(Entry(Place(place.position, -1), Notice(NoticeType.GAP, next_position)))
        position = place.position
        entries.append(Entry(place, record, payload))
    return entries
