"""From where on a client is sent events."""

import pytest

from ci_common.models import JobStatus, utc_now
from ci_eventstore.jobs.state import JobState
from ci_eventstore.web.start import Answer, Asked, Start, decide_start, lacks_completion, parse_asked

NOW = utc_now()
RUNNING = JobState(created_at=NOW, status=JobStatus.RUNNING, position=5)
ENDED = JobState(created_at=NOW, status=JobStatus.COMPLETED, position=5, end_position=5, has_complete=True)
WITH_LATE_OUTPUT = ENDED.but(position=8)
CREATED_ENDED = ENDED.but(has_complete=False)
EMPTY = CREATED_ENDED.but(position=0, end_position=0)
BEGINNING = Asked(0, is_resumed=False)


def resumed(position: int, incarnation: str | None = None) -> Asked:
    return Asked(position, is_resumed=True, incarnation=incarnation)


@pytest.mark.parametrize(
    ("header", "query", "from_beginning", "asked"),
    [
        (None, None, False, None),
        (None, None, True, BEGINNING),
        (None, "0", False, resumed(0)),
        (None, "3", True, resumed(3)),
        ("4", "3", True, resumed(4)),
        ("0", "3", False, resumed(0)),
    ],
)
def test_what_is_asked_for(header: str | None, query: str | None, from_beginning: bool, asked: Asked | None) -> None:
    """The header wins over the address, a position over the beginning."""
    assert parse_asked(header, query, from_beginning) == asked


@pytest.mark.parametrize(
    ("state", "asked", "start", "lacks_end"),
    [
        (RUNNING, None, Start(Answer.FOLLOW, 5), False),
        (RUNNING, BEGINNING, Start(Answer.FOLLOW, 0), False),
        (RUNNING, resumed(5), Start(Answer.FOLLOW, 5, is_resumed=True), False),
        (RUNNING, resumed(9), Start(Answer.FOLLOW, 9, is_resumed=True), False),
        (ENDED, None, Start(Answer.COMPLETE, 5), False),
        (ENDED, BEGINNING, Start(Answer.FOLLOW, 0), False),
        (ENDED, resumed(4), Start(Answer.FOLLOW, 4, is_resumed=True), False),
        (ENDED, resumed(5), Start(Answer.NOTHING, 5), False),
        (ENDED, resumed(6), Start(Answer.FOLLOW, 6, is_resumed=True), False),
        (WITH_LATE_OUTPUT, None, Start(Answer.COMPLETE, 5), False),
        (WITH_LATE_OUTPUT, resumed(5), Start(Answer.FOLLOW, 5, is_resumed=True), False),
        (WITH_LATE_OUTPUT, resumed(8), Start(Answer.NOTHING, 8), False),
        (CREATED_ENDED, BEGINNING, Start(Answer.FOLLOW, 0), True),
        (CREATED_ENDED, resumed(4), Start(Answer.FOLLOW, 4, is_resumed=True), True),
        (CREATED_ENDED, resumed(5), Start(Answer.NOTHING, 5), None),
        (CREATED_ENDED, resumed(9), Start(Answer.FOLLOW, 9, is_resumed=True), True),
        (CREATED_ENDED.but(position=8), resumed(6), Start(Answer.FOLLOW, 6, is_resumed=True), False),
        (EMPTY, BEGINNING, Start(Answer.FOLLOW, 0), True),
        (EMPTY, resumed(0), Start(Answer.NOTHING, 0), None),
        (RUNNING, resumed(5, "now"), Start(Answer.FOLLOW, 5, is_resumed=True), False),
        (RUNNING, resumed(5, "before"), Start(Answer.FOLLOW, 5, is_resumed=True, is_another=True), False),
        (ENDED, resumed(5, "now"), Start(Answer.NOTHING, 5), False),
        (ENDED, resumed(5, "before"), Start(Answer.FOLLOW, 5, is_resumed=True, is_another=True), False),
        (CREATED_ENDED, resumed(5, "before"), Start(Answer.FOLLOW, 5, is_resumed=True, is_another=True), True),
    ],
)
def test_where_a_stream_begins(state: JobState, asked: Asked | None, start: Start, lacks_end: bool | None) -> None:
    """By what is asked for and by how far the job is; nothing only to who has everything of a job that has ended."""
    assert decide_start(state, asked, "now") == start
    if lacks_end is not None:
        assert lacks_completion(state, start) == lacks_end
