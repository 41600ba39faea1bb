"""What is done next for a server that shall run."""

import pytest

from ci_eventstore.embedded.start import (
    LAUNCHES,
    LOADING_SECONDS,
    SILENCE_SECONDS,
    Answer,
    Progress,
    Step,
    answer_of,
    next_step,
)

START = 1000.0
LATE, TOO_LATE = START + SILENCE_SECONDS, START + SILENCE_SECONDS + 0.1
LOADED_TOO_LONG = START + LOADING_SECONDS + 0.1


@pytest.mark.parametrize(
    ("answer", "is_free", "launches", "now", "step"),
    [
        (Answer.READY, False, 0, TOO_LATE, Step.DONE),
        (Answer.READY, False, LAUNCHES, START, Step.DONE),
        (Answer.LOADING, False, 0, TOO_LATE, Step.WAIT),
        (Answer.LOADING, False, 0, LOADED_TOO_LONG, Step.LOADS_TOO_LONG),
        (Answer.SILENT, False, 0, LATE, Step.WAIT),
        (Answer.SILENT, False, 0, TOO_LATE, Step.DOES_NOT_ANSWER),
        (Answer.ABSENT, False, 0, LATE, Step.WAIT),
        (Answer.ABSENT, False, 0, TOO_LATE, Step.UNREACHABLE),
        (Answer.ABSENT, True, 0, TOO_LATE, Step.LAUNCH),
        (Answer.ABSENT, True, LAUNCHES - 1, START, Step.LAUNCH),
        (Answer.ABSENT, True, LAUNCHES, START, Step.DIED),
    ],
)
def test_the_next_step(answer: Answer, is_free: bool, launches: int, now: float, step: Step) -> None:
    """Every answer leads to one step, early and late."""
    progress = Progress(started=START, last_sign=START, launches=launches)
    assert next_step(progress, answer, now, is_free=is_free) is step


@pytest.mark.parametrize("answer", [Answer.SILENT, Answer.ABSENT])
def test_a_sign_of_life_renews_patience(answer: Answer) -> None:
    """Waiting counts from the last sign, not from the beginning."""
    progress = Progress(started=START, last_sign=LATE)
    assert next_step(progress, answer, TOO_LATE, is_free=False) is Step.WAIT


@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        (b"+PONG\r\n", Answer.READY),
        (b"-LOADING Valkey is loading the dataset in memory\r\n", Answer.LOADING),
        (b"-BUSY Valkey is busy running a script\r\n", Answer.READY),
        (b"-MISCONF Errors writing to the AOF file\r\n", Answer.READY),
        (b"", Answer.ABSENT),
    ],
)
def test_the_meaning_of_a_reply(reply: bytes, answer: Answer) -> None:
    """Only a server that reads its data isn't ready yet; a closed connection was no server's."""
    assert answer_of(reply) is answer
