"""What a follower is handed: a job's records in their order, notices where it is broken, and pages of them. Pure."""

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple, TypeVar

from ci_common.models import JobEvent
from ci_eventstore.events.codec import decode, is_same_entry
from ci_eventstore.events.records import Fact, FactType, Place

T = TypeVar("T")


class NoticeType(StrEnum):
    """Why a follower's log has a break."""

    #: Events are no longer there; the log goes on after them.
    GAP = "gap"
    #: The store has lost events that were handed out, or has others in their place; the log begins again.
    RESET = "reset"


@dataclass(frozen=True, slots=True)
class Notice:
    """A report to a follower that isn't in the stream."""

    type: NoticeType
    #: The position of the next event that exists; 0 for a reset, after which the log begins with its first event.
    position: int
    #: Of a reset: the incarnation of what follows.
    incarnation: str | None = None


Followed = JobEvent | Fact | Notice
_ENDS = (FactType.ENDED, FactType.LOG_DELETED)


class Entry(NamedTuple):
    """A record, its place, and its stored form; a notice isn't stored."""

    place: Place
    record: Followed
    payload: bytes = b""


def in_order(payloads: Iterable[tuple[Place, bytes]], position: int, job_id: str = "") -> list[Entry]:
    """Decode the entries after a position; a notice stands where positions are missing. StoreFormatError."""
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


#: Writes a record as followers' clients read it.
Encode = Callable[[Followed], bytes]


class Page:
    """Records in their order; followers that stand at the same place share one."""

    __slots__ = ("_encoded", "_kept", "before", "has_end", "is_cut", "is_last", "payload", "records", "until")

    def __init__(
        self, records: Sequence[Followed], until: Place, payload: bytes | None = None, *, is_last: bool = False
    ) -> None:
        self.records = records
        #: The place of the last one, and its stored form where that is known.
        self.until = until
        self.payload = payload
        #: Whether nothing follows, because the job has ended.
        self.is_last = is_last
        #: The entry before the page, as stored; None if there is none.
        self.before: bytes | None = None
        #: Whether that one is gone with the beginning of the stream.
        self.is_cut = False
        #: Whether its job was created ended, or its log was deleted: what follows is all there.
        self.has_end = any(type(record) is Fact and record.type in _ENDS for record in records)
        self._encoded: tuple[Encode, bytes] | None = None
        self._kept: dict[Hashable, Any] | None = None

    def follows(self, payload: bytes | None) -> bool:
        """Tell whether the page continues a history that has this entry at its place; None fits any."""
        return payload is None or (self.is_cut if self.before is None else is_same_entry(self.before, payload))

    def encoded(self, encode: Encode) -> bytes:
        """Return all records as a function writes them; computed once for all who share the page."""
        if self._encoded is None or self._encoded[0] is not encode:
            self._encoded = encode, b"".join(map(encode, self.records))
        return self._encoded[1]

    @property
    def kept(self) -> dict[Hashable, Any]:
        """What those who share the page keep with it for each other, by names of theirs."""
        if self._kept is None:
            self._kept = {}
        return self._kept

    def once(self, name: Hashable, make: Callable[[], T]) -> T:
        """Return what a function makes of the page; made once for all who share the page, and kept under a name."""
        if name not in self.kept:
            self.kept[name] = make()
        made: T = self.kept[name]
        return made


def page_of(entries: Sequence[Entry], until: Place, payload: bytes | None = None) -> Page:
    """Return a page of entries, up to the job's end if that is among them, else with all up to a place."""
    for count, (place, record, _) in enumerate(entries, 1):
        if type(record) is JobEvent and record.type == "complete":
            return Page([entry.record for entry in entries[:count]], place, is_last=True)
    return Page([entry.record for entry in entries], until, payload)
