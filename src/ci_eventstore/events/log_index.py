"""The sparse index of a job's log: which line and byte stand at which position, and when that was.

The append script adds an entry after a call with which the last entry is INDEX_EVENTS or INDEX_BYTES back. A call
takes at most as much again, so two entries lie at most twice as far apart. The stream doesn't say where calls began
and ended: an index is right if each of its entries is, and if none lies too far from the next. Pure.
"""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from ci_common.models import JobEvent
from ci_eventstore.events.records import Fact, FactType, Record, log_text, text_size

INDEX_EVENTS = 1000
INDEX_BYTES = 1024 * 1024
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def milliseconds_of(time: datetime | None) -> int:
    """Return a time as milliseconds since 1970; 0 for one without a zone, which is no point in time."""
    return 0 if time is None or time.tzinfo is None else (time - _EPOCH) // timedelta(milliseconds=1)


def first_entry(deletion: Fact) -> str:
    """Return the entry with which an index begins whose log was deleted: how far that went."""
    position, lines, size = (deletion.fields.get(name, 0) for name in ("position", "lines", "bytes"))
    return f"{position} {lines} {size} {milliseconds_of(deletion.time)}"


class LogIndex:
    """An index, made in one pass over the log: with the positions of one that is to be checked, or as they are due."""

    def __init__(self, found: Iterable[str] | None = None) -> None:
        self.entries: list[str] = []
        self._gap_at: int | None = None
        self._positions = None if found is None else {entry.split(" ")[0] for entry in found}
        self._position = self._bytes = self._lines = 0
        self._indexed_position = self._indexed_bytes = 0

    @property
    def gap_at(self) -> int | None:
        """The first position before which the index lacks an entry. The log has to end where a call ended."""
        return self._position if self._gap_at is None and self._is_behind(1) else self._gap_at

    def add(self, record: Record) -> None:
        """Go on by one record."""
        if not isinstance(record, JobEvent):
            if record.type is FactType.LOG_DELETED and record.fields.get("position"):
                self._begin(record)
            return
        if self._gap_at is None and self._is_behind(2):
            self._gap_at = self._position
        size, lines = text_size(log_text(record))
        self._position, self._bytes, self._lines = self._position + 1, self._bytes + size, self._lines + lines
        if self._is_entry():
            self._indexed_position, self._indexed_bytes = self._position, self._bytes
            time = milliseconds_of(record.timestamp)
            self.entries.append(f"{self._position} {self._lines} {self._bytes} {time}")

    def _begin(self, deletion: Fact) -> None:
        """Begin after the events that were deleted, with an entry that says how much they were."""
        self._position, self._bytes, self._lines = (
            deletion.fields.get(name, 0) for name in ("position", "bytes", "lines")
        )
        self._indexed_position, self._indexed_bytes = self._position, self._bytes
        self.entries.append(first_entry(deletion))

    def _is_entry(self) -> bool:
        if self._positions is not None:
            return str(self._position) in self._positions
        return self._is_behind(1)

    def _is_behind(self, steps: int) -> bool:
        """Return whether the last entry is at least `steps` steps back."""
        events, size = self._position - self._indexed_position, self._bytes - self._indexed_bytes
        return events >= steps * INDEX_EVENTS or size >= steps * INDEX_BYTES
