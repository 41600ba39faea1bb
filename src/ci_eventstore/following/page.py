"""What a follower is handed at a time. Pure."""

from collections.abc import Callable, Sequence

from ci_common.models import JobEvent
from ci_eventstore.events.records import Fact, FactType, Place
from ci_eventstore.following.records import Entry, Followed

#: Writes a record down as followers' clients read it.
Encode = Callable[[Followed], bytes]


class Page:
    """Records in their order; followers that stand at the same place share one."""

    __slots__ = ("_encoded", "has_end", "is_last", "records", "until")

    def __init__(self, records: Sequence[Followed], until: Place, *, is_last: bool = False) -> None:
        self.records = records
        #: The place of the last of them.
        self.until = until
        #: Whether nothing follows, because the job has ended.
        self.is_last = is_last
        #: Whether its job was created ended: what follows is all there.
        self.has_end = any(type(record) is Fact and record.type is FactType.ENDED for record in records)
        self._encoded: tuple[Encode, bytes] | None = None

    def encoded(self, encode: Encode) -> bytes:
        """Return all records as a function writes them; computed once for all who share the page."""
        if self._encoded is None or self._encoded[0] is not encode:
            self._encoded = encode, b"".join(map(encode, self.records))
        return self._encoded[1]


def page_of(entries: Sequence[Entry], until: Place) -> Page:
    """Return a page of entries, up to the job's end if that is among them, else with all up to a place."""
    for count, (place, record, _) in enumerate(entries, 1):
        if type(record) is JobEvent and record.type == "complete":
            return Page([entry.record for entry in entries[:count]], place, is_last=True)
    return Page([entry.record for entry in entries], until)
