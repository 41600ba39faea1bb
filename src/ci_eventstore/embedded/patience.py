"""What is to be done next for a server that shall run. Pure."""

from dataclasses import dataclass
from enum import Enum

from ci_eventstore.embedded.probe import Answer

#: How often a server that died at its start is started again: whatever killed it may be over.
LAUNCHES = 3
#: How long there may be no sign of a server. A server being stopped is given 10 seconds.
SILENCE_SECONDS = 30.0
#: How long a server may read its data.
LOADING_SECONDS = 600.0


class Step(Enum):
    """What to do; all after WAIT mean to give up, each with its own reason."""

    DONE = "done"
    LAUNCH = "launch"
    WAIT = "wait"
    DIED = "it ended each time it was started"
    LOADS_TOO_LONG = "it is still loading its data; the next try finds it further on"
    DOES_NOT_ANSWER = "it accepts connections, but doesn't answer; a long command or a slow disk may hold it up"
    UNREACHABLE = "one is running, but not at this socket; another user or another container may have started it"


@dataclass(frozen=True)
class Progress:
    """What happened since a server was asked for; times are seconds of one clock."""

    started: float
    #: When a server was launched last, or said that it is loading.
    last_sign: float
    launches: int = 0


def next_step(progress: Progress, answer: Answer, now: float, *, is_free: bool) -> Step:
    """Decide by the last answer; `is_free` says that we hold the lock that a server has while it lives."""
    if answer is Answer.READY:
        return Step.DONE
    if answer is Answer.LOADING:
        return Step.LOADS_TOO_LONG if now - progress.started > LOADING_SECONDS else Step.WAIT
    if is_free:
        return Step.LAUNCH if progress.launches < LAUNCHES else Step.DIED
    if now - progress.last_sign <= SILENCE_SECONDS:
        return Step.WAIT
    return Step.DOES_NOT_ANSWER if answer is Answer.SILENT else Step.UNREACHABLE
