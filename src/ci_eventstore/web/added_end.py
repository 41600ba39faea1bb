"""The end of a job that was created ended: clients get a `complete` for it that the store doesn't have. Pure."""

from dataclasses import dataclass, replace
from typing import Self

from ci_common.models import JobEvent
from ci_eventstore.events.records import Fact, FactType
from ci_eventstore.following.records import Followed, Notice
from ci_eventstore.jobs.state import JobState
from ci_eventstore.web import sse


@dataclass(frozen=True, slots=True)
class AddedEnd:
    """A `complete` that stands after the events that the job was created with.

    It has a position of its own, or a client that was cut off just before it would be told that it has everything.
    So for clients each event that comes later, which is late output, is one further.
    """

    position: int
    success: bool | None

    @classmethod
    def of(cls, state: JobState) -> Self | None:
        """Return that of a job; None if its end is an event, or hasn't come."""
        if state.end_position is None or state.has_complete:
            return None
        return cls(state.end_position + 1, state.success)

    def to_store(self, position: int) -> int:
        """Return what the store calls a client's position."""
        return position - (position >= self.position)


class EndAdding:
    """Encodes the records of one stream, with the added end at its place if the client doesn't have it."""

    def __init__(self, end: AddedEnd, after: int) -> None:
        """Go on after a client's position."""
        self._end = end
        self._has_end = after >= end.position

    def __call__(self, record: Followed) -> bytes:
        """Return a record's frame."""
        if isinstance(record, JobEvent):
            return sse.encode(replace(record, id=self._moved(record.id or 0)))
        if isinstance(record, Notice):
            # A reset begins again, a gap tells of events further on.
            self._has_end = record.position > self._end.position
            return sse.encode(replace(record, position=self._moved(record.position)))
        if isinstance(record, Fact) and record.type is FactType.ENDED:
            if self._has_end:
                return b""
            self._has_end = True
            return sse.encode_completion(self._end.success, self._end.position)
        return sse.encode(record)

    def _moved(self, position: int) -> int:
        return position + (position >= self._end.position)
