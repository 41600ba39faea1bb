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
class Start:
    """An answer, and the position behind which it begins."""

    answer: Answer
    after: int


def asked_position(header: str | None, query: str | None, from_beginning: bool) -> int | None:
    """Return the position that a client asks for, None for where the job stands; InvalidPositionError.

    `EventSource` reconnects to the address that it began with and adds the header, so the header is the newer one.
    """
    text = query if header is None else header
    if text is not None:
        return parse_position(text)
    return 0 if from_beginning else None


def decide_start(state: JobState, asked: int | None, *, is_resumed: bool) -> Start:
    """Return where to begin; `is_resumed`: the client has been sent everything up to there.

    A client may be ahead of the job: the store has lost events, and following tells it so.
    """
    end = state.end_position
    if asked is None:
        return Start(Answer.FOLLOW, state.position) if end is None else Start(Answer.COMPLETE, end)
    if end is not None and is_resumed and asked == state.position:
        return Start(Answer.NOTHING, asked)
    return Start(Answer.FOLLOW, asked)


def lacks_completion(state: JobState, start: Start, *, is_resumed: bool) -> bool:
    """Tell whether a client has to be told of a job's end that its stream doesn't have: it was created ended."""
    if state.end_position is None or state.has_complete:
        return False
    return start.after < state.end_position or not is_resumed
