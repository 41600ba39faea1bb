"""What is made of the answers of Sentinels, which may differ, fail, or not come at all."""

import re

import pytest
from redis import exceptions

from ci_eventstore.connection.failures import MisledError, note_reply, note_unreached, outcome_of, words_of
from ci_eventstore.connection.outcomes import Cause, Kind, Patience
from ci_eventstore.connection.sentinels import Answer, newest, why_unknown

ONE, TWO, THREE = ("s1", 1), ("s2", 2), ("s3", 3)
OLD, NEW = ("old", 6379), ("new", 6379)
SILENT = exceptions.TimeoutError("no answer")


def replied(reply: str) -> exceptions.RedisError:
    error = exceptions.ResponseError(reply)
    note_reply(error, reply)
    return error


@pytest.mark.parametrize(
    ("answers", "server"),
    [
        ([], None),
        ([Answer(ONE, OLD, 3)], OLD),
        ([Answer(ONE, OLD, 3), Answer(TWO, NEW, 4)], NEW),
        ([Answer(ONE, NEW, 4), Answer(TWO, OLD, 3), Answer(THREE, OLD, 3)], NEW),
        ([Answer(ONE, failure=SILENT), Answer(TWO), Answer(THREE, OLD, 3)], OLD),
        ([Answer(ONE, failure=SILENT), Answer(TWO)], None),
    ],
)
def test_the_newest_answer_counts(answers: list[Answer], server: tuple[str, int] | None) -> None:
    """One Sentinel that was cut off, or two, go on naming the primary that the others have replaced."""
    assert newest(answers) == server


@pytest.mark.parametrize(
    ("answers", "cause", "patience", "says"),
    [
        ([Answer(ONE), Answer(TWO)], Cause.UNSUITABLE, Patience.NONE, "know no server by the name 'ci'"),
        ([Answer(ONE), Answer(TWO), Answer(THREE)], Cause.UNSUITABLE, Patience.NONE, "know no server"),
        (
            [Answer(ONE), Answer(TWO, failure=SILENT), Answer(THREE, failure=SILENT)],
            Cause.UNAVAILABLE,
            Patience.OUTAGE,
            "too few Sentinels answer .* s2:2: no answer; s3:3: no answer",
        ),
        ([Answer(ONE, failure=SILENT)], Cause.UNAVAILABLE, Patience.OUTAGE, "s1:1: no answer"),
        (
            [Answer(ONE, failure=replied("ERR unknown command 'SENTINEL', with args beginning with: 'ci'"))],
            Cause.UNSUITABLE,
            Patience.NONE,
            "s1:1 is no Sentinel",
        ),
        (
            [Answer(ONE, failure=SILENT), Answer(TWO, failure=replied("NOAUTH Authentication required."))],
            Cause.ACCESS,
            Patience.NONE,
            "NOAUTH Authentication required.*sentinel_password",
        ),
        (
            [Answer(ONE, failure=replied("NOPERM this user has no permissions to run the 'sentinel' command"))],
            Cause.RIGHTS,
            Patience.NONE,
            "NOPERM.*sentinel_username",
        ),
    ],
)
def test_why_nobody_knows_the_server(answers: list[Answer], cause: Cause, patience: Patience, says: str) -> None:
    """An unknown name, a wrong address and missing credentials are reported at once; silence may pass."""
    error = why_unknown(answers, "ci", 3)
    note_unreached(error)
    outcome = outcome_of(error, Kind.SCRIPT)
    assert (outcome.cause, outcome.patience) == (cause, patience)
    assert re.search(says, words_of(error))
    assert isinstance(error, MisledError) == (cause is Cause.UNSUITABLE)
