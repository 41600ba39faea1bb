"""Where in a job's events a client stands: where its stream begins, and the end that is added for it. Pure."""

from dataclasses import dataclass, replace
from enum import Enum, auto
from typing import Self

from ci_common.models import JobEvent
from ci_eventstore.events.records import Fact, FactType
from ci_eventstore.following.records import Encode, Followed, Notice
from ci_eventstore.jobs.state import JobState
from ci_eventstore.web.streams import sse
from ci_eventstore.web.streams.sse import parse_position


@dataclass(frozen=True, slots=True)
class AddedEnd:
    """A `complete` that clients get after the events of a job that was created ended; the store doesn't have it.

    It has a position of its own, or a client that was cut off just before it would seem to have everything. So for
    clients each later event, which is late output, has a position that is higher by one.
    """

    position: int
    success: bool | None

    @classmethod
    def of(cls, state: JobState) -> Self | None:
        """Return the added end of a job; None if the job's end is an event, or hasn't come."""
        if state.end_position is None or state.has_complete:
            return None
        return cls(state.end_position + 1, state.success)

    def to_store(self, position: int) -> int:
        """Return the store's position for a client's."""
        return position - (position >= self.position)


class EndAdding:
    """Encodes the records of one stream after a client's position, and adds the end at its place."""

    def __init__(self, end: AddedEnd, after: int, encode: Encode = sse.encode) -> None:
        self._encode = encode
        self._end = end
        self._has_end = after >= end.position

    def __call__(self, record: Followed) -> bytes:
        """Return a record's frame."""
        if isinstance(record, JobEvent):
            return self._encode(replace(record, id=self._moved(record.id or 0)))
        if isinstance(record, Notice):
            # A reset goes back to the beginning, a gap goes further on.
            self._has_end = record.position > self._end.position
            return self._encode(replace(record, position=self._moved(record.position)))
        if isinstance(record, Fact) and record.type is FactType.ENDED:
            if self._has_end:
                return b""
            self._has_end = True
            return sse.encode_completion(self._end.success, self._end.position)
        return self._encode(record)

    def _moved(self, position: int) -> int:
        return position + (position >= self._end.position)


class Answer(Enum):
    """The kinds of answers to a request for a job's stream."""

    #: Events after a position, as they come.
    FOLLOW = auto()
    #: The job's `complete` alone: the job has ended, and the client wants only what is new.
    COMPLETE = auto()
    #: 204: the client has everything, and nothing will come; `EventSource` stops.
    NOTHING = auto()


@dataclass(frozen=True, slots=True)
class Asked:
    """The position that a client names."""

    position: int
    #: The client has got everything up to the position.
    is_resumed: bool
    #: The incarnation of what it got; None if it doesn't say.
    incarnation: str | None = None


@dataclass(frozen=True, slots=True)
class Start:
    """An answer, and the position after which it begins, as clients count."""

    answer: Answer
    after: int
    #: The client has read another incarnation.
    is_another: bool = False

    def begins_again(self, state: JobState) -> bool:
        """Return whether the client has read what a job of this state doesn't have."""
        return self.is_another or self.after > last_position(state)


def parse_asked(
    header: str | None,
    query: str | None,
    from_beginning: bool,
    incarnation: str | None = None,
    polyfill: str | None = None,
) -> Asked | None:
    """Return the position that a client names, None for the job's present one; InvalidPositionError.

    `EventSource` reconnects to its first address and adds the header; polyfills that can't set headers add
    `lastEventId` to the address. So the header is the newest position, and the address's own is the oldest. Blank ones
    count as absent: `EventSource` would stop for good at an error.
    """
    named = [parse_position(text.strip()) for text in (header, polyfill, query) if text is not None and text.strip()]
    if named:
        return Asked(named[0], is_resumed=True, incarnation=(incarnation or "").strip() or None)
    return Asked(0, is_resumed=False) if from_beginning else None


def decide_start(state: JobState, asked: Asked | None, incarnation: str | None = None) -> Start:
    """Return where to begin in a job of this state and incarnation.

    A client may be ahead of the job, or know another incarnation: then the stream notifies it of lost events.
    """
    end = state.end_position
    if asked is None:
        # A client that is cut off before the end must get it when it comes back.
        if end is None:
            return Start(Answer.FOLLOW, state.position)
        return Start(Answer.COMPLETE, end - 1 if state.has_complete else end)
    is_another = asked.incarnation not in (None, incarnation)
    has_everything = asked.is_resumed and asked.position == last_position(state) and not is_another
    if end is not None and has_everything:
        return Start(Answer.NOTHING, asked.position)
    return Start(Answer.FOLLOW, asked.position, is_another)


def last_position(state: JobState) -> int:
    """Return the position of a job's last event, as clients count positions."""
    return state.position + (AddedEnd.of(state) is not None)
