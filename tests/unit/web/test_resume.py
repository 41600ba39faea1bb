"""From where on a client is sent events."""

import pytest

from ci_common.errors import InvalidPositionError
from ci_common.models import JobEvent, JobStatus, utc_now
from ci_eventstore.events.records import Fact, FactType
from ci_eventstore.following.records import Followed, Notice, NoticeType
from ci_eventstore.jobs.state import JobState
from ci_eventstore.web.streams.resume import AddedEnd, Answer, Asked, EndAdding, Start, decide_start, parse_asked

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
    ("header", "polyfill", "query", "from_beginning", "asked"),
    [
        (None, None, None, False, None),
        (None, None, None, True, BEGINNING),
        (None, None, "0", False, resumed(0)),
        (None, None, "3", True, resumed(3)),
        ("4", None, "3", True, resumed(4)),
        ("0", None, "3", False, resumed(0)),
        (None, "4", "3", True, resumed(4)),
        ("5", "4", "3", True, resumed(5)),
        ("", "", "", False, None),
        ("", "", "", True, BEGINNING),
        (" ", "\t", "  ", True, BEGINNING),
        ("", "4", "3", False, resumed(4)),
        ("", "", "3", False, resumed(3)),
        (" 5 ", None, None, False, resumed(5)),
        (None, " 5\t", None, False, resumed(5)),
        (None, None, "5 ", False, resumed(5)),
    ],
)
def test_what_is_asked_for(
    header: str | None, polyfill: str | None, query: str | None, from_beginning: bool, asked: Asked | None
) -> None:
    """The header wins over the address, a polyfill's parameter over ours, a position over the beginning.

    What is blank isn't there.
    """
    assert parse_asked(header, query, from_beginning, polyfill=polyfill) == asked


@pytest.mark.parametrize("place", range(3))
@pytest.mark.parametrize("text", ["x", "1 2", "-1", "0-1"])
def test_what_is_no_position_is_refused_wherever_it_stands(place: int, text: str) -> None:
    """Nothing that stands elsewhere is taken in its place."""
    texts: list[str | None] = [None, None, None]
    texts[place] = text
    with pytest.raises(InvalidPositionError):
        parse_asked(texts[0], texts[1], True, polyfill=texts[2])


@pytest.mark.parametrize(
    ("state", "asked", "start"),
    [
        (RUNNING, None, Start(Answer.FOLLOW, 5)),
        (RUNNING, BEGINNING, Start(Answer.FOLLOW, 0)),
        (RUNNING, resumed(5), Start(Answer.FOLLOW, 5)),
        (RUNNING, resumed(9), Start(Answer.FOLLOW, 9)),
        (ENDED, None, Start(Answer.COMPLETE, 4)),
        (ENDED, BEGINNING, Start(Answer.FOLLOW, 0)),
        (ENDED, resumed(4), Start(Answer.FOLLOW, 4)),
        (ENDED, resumed(5), Start(Answer.NOTHING, 5)),
        (ENDED, resumed(6), Start(Answer.FOLLOW, 6)),
        (WITH_LATE_OUTPUT, None, Start(Answer.COMPLETE, 4)),
        (WITH_LATE_OUTPUT, resumed(5), Start(Answer.FOLLOW, 5)),
        (WITH_LATE_OUTPUT, resumed(8), Start(Answer.NOTHING, 8)),
        (CREATED_ENDED, None, Start(Answer.COMPLETE, 5)),
        (CREATED_ENDED, BEGINNING, Start(Answer.FOLLOW, 0)),
        (CREATED_ENDED, resumed(4), Start(Answer.FOLLOW, 4)),
        (CREATED_ENDED, resumed(5), Start(Answer.FOLLOW, 5)),
        (CREATED_ENDED, resumed(6), Start(Answer.NOTHING, 6)),
        (CREATED_ENDED, resumed(7), Start(Answer.FOLLOW, 7)),
        (CREATED_ENDED.but(position=8), resumed(6), Start(Answer.FOLLOW, 6)),
        (CREATED_ENDED.but(position=8), resumed(9), Start(Answer.NOTHING, 9)),
        (EMPTY, None, Start(Answer.COMPLETE, 0)),
        (EMPTY, BEGINNING, Start(Answer.FOLLOW, 0)),
        (EMPTY, resumed(0), Start(Answer.FOLLOW, 0)),
        (EMPTY, resumed(1), Start(Answer.NOTHING, 1)),
        (RUNNING, resumed(5, "now"), Start(Answer.FOLLOW, 5)),
        (RUNNING, resumed(5, "before"), Start(Answer.FOLLOW, 5, is_another=True)),
        (ENDED, resumed(5, "now"), Start(Answer.NOTHING, 5)),
        (ENDED, resumed(5, "before"), Start(Answer.FOLLOW, 5, is_another=True)),
        (CREATED_ENDED, resumed(6, "before"), Start(Answer.FOLLOW, 6, is_another=True)),
    ],
)
def test_where_a_stream_begins(state: JobState, asked: Asked | None, start: Start) -> None:
    """By what is asked for and by how far the job is; nothing only to who has everything of a job that has ended."""
    assert decide_start(state, asked, "now") == start


@pytest.mark.parametrize(
    ("state", "position", "begins_again"),
    [(RUNNING, 5, False), (RUNNING, 6, True), (ENDED, 6, True), (CREATED_ENDED, 6, False), (CREATED_ENDED, 7, True)],
)
def test_who_is_ahead_begins_again(state: JobState, position: int, begins_again: bool) -> None:
    """A position that the job, with its end, hasn't reached is another history's."""
    assert decide_start(state, resumed(position)).begins_again(state) == begins_again


@pytest.mark.parametrize("has_end", [False, True])
def test_an_end_that_no_event_is(has_end: bool) -> None:
    """It stands after the events of creation, once, and what comes later is one further."""
    added = AddedEnd.of(CREATED_ENDED.but(success=True))
    assert added == AddedEnd(6, True)
    encode = EndAdding(added, 6 if has_end else 5)
    records: list[Followed] = [Fact(FactType.ENDED, NOW), JobEvent("log", "late", id=6), Notice(NoticeType.GAP, 9)]
    end = b'id: 6\ndata: {"type": "complete", "success": true}\n\n'
    assert [encode(record) for record in records] == [
        b"" if has_end else end,
        b'id: 7\ndata: {"type": "log", "data": "late"}\n\n',
        b'event: gap\nid: 9\ndata: {"type": "gap", "position": 10}\n\n',
    ]
    assert (added.to_store(5), added.to_store(6), added.to_store(7)) == (5, 5, 6)
    assert b"id: 0\n" in encode(Notice(NoticeType.RESET, 0))
    assert encode(JobEvent("log", "a", id=5)).startswith(b"id: 5\n")
    assert encode(Fact(FactType.ENDED, NOW)) == end


def test_only_a_job_that_was_created_ended_has_such_an_end() -> None:
    """One that runs, or whose end is an event, has none."""
    assert AddedEnd.of(RUNNING) is None
    assert AddedEnd.of(ENDED) is None
