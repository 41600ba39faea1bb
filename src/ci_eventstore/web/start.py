"""From where on a client is sent a job's events. Pure."""

from dataclasses import dataclass
from enum import Enum, auto

from ci_eventstore.jobs.state import JobState
from ci_eventstore.web.sse import parse_position


class Answer(Enum):
    """What a request for a job's stream is answered with."""

    #: Events behind a position, as they come.
    FOLLOW = auto()
    #: The job's `complete` alone: it has ended, and only what is new was asked for.
    COMPLETE = auto()
    #: 204: the client has everything, and nothing will come; `EventSource` stops.
    NOTHING = auto()


@dataclass(frozen=True, slots=True)
class Asked:
    """The position that a client names."""

    position: int
    #: The client has been sent everything up to there.
    is_resumed: bool
    #: Of what it was sent; None if it doesn't say.
    incarnation: str | None = None


@dataclass(frozen=True, slots=True)
class Start:
    """An answer, and the position after which it begins."""

    answer: Answer
    after: int
    is_resumed: bool = False
    #: What the client was sent is another incarnation's.
    is_another: bool = False

    def begins_again(self, state: JobState) -> bool:
        """Tell whether what the client was sent isn't what a job of this state has."""
        return self.is_another or self.after > state.position


def parse_asked(
    header: str | None, query: str | None, from_beginning: bool, incarnation: str | None = None
) -> Asked | None:
    """Return the position that a client names, None for where the job stands; InvalidPositionError.

    `EventSource` reconnects to the address that it began with and adds the header, so the header is the newer one.
    """
    text = query if header is None else header
    if text is not None:
        return Asked(parse_position(text), is_resumed=True, incarnation=incarnation or None)
    return Asked(0, is_resumed=False) if from_beginning else None


def decide_start(state: JobState, asked: Asked | None, incarnation: str | None = None) -> Start:
    """Return where to begin in a job of this state and incarnation.

    A client may be ahead of the job, or know another incarnation: following tells it that the store has lost events.
    """
    end = state.end_position
    if asked is None:
        return Start(Answer.FOLLOW, state.position) if end is None else Start(Answer.COMPLETE, end)
    is_another = asked.incarnation not in (None, incarnation)
    if end is not None and asked.is_resumed and asked.position == state.position and not is_another:
        return Start(Answer.NOTHING, asked.position)
    return Start(Answer.FOLLOW, asked.position, asked.is_resumed, is_another)


def lacks_completion(state: JobState, start: Start) -> bool:
    """Tell whether a client has to be told of a job's end that its stream doesn't have: it was created ended."""
    if state.end_position is None or state.has_complete:
        return False
    return start.after < state.end_position or not start.is_resumed or start.begins_again(state)
