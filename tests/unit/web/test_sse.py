"""The wire format of a job's stream, byte for byte."""

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ci_common.errors import InvalidPositionError
from ci_common.models import Job, JobEvent
from ci_eventstore.events.records import Fact, FactType
from ci_eventstore.following.records import Followed, Notice, NoticeType
from ci_eventstore.web.streams import sse
from tests.separators import SEPARATORS, text_with

TIME = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)
SHOWN = '"time": "2030-01-02T03:04:05Z"'


@pytest.mark.parametrize(
    ("record", "frame"),
    [
        (JobEvent("log", "a\n", id=1), 'id: 1\ndata: {"type": "log", "data": "a\\n"}\n\n'),
        (
            JobEvent("log", 'a\r\n\r"\\\x00\x85\u2028\u2029€', id=2),
            'id: 2\ndata: {"type": "log", "data": "a\\r\\n\\r\\"\\\\\\u0000\\u0085\\u2028\\u2029€"}\n\n',
        ),
        (JobEvent("log", "€\udcff", id=3), 'id: 3\ndata: {"type": "log", "data": "€\ufffd"}\n\n'),
        (JobEvent("log", "", id=4), 'id: 4\ndata: {"type": "log", "data": ""}\n\n'),
        (JobEvent("log", id=5), 'id: 5\ndata: {"type": "log"}\n\n'),
        (
            JobEvent("log", "a\udcff", True, id=6),
            'id: 6\ndata: {"type": "log", "data": "a\ufffd", "success": true}\n\n',
        ),
        (JobEvent("complete", success=False, id=7), 'id: 7\ndata: {"type": "complete", "success": false}\n\n'),
        (
            Fact(FactType.STARTED, TIME, {"start_time": TIME, "container_id": None}),
            f'event: started\ndata: {{"type": "started", {SHOWN}, "start_time": "2030-01-02T03:04:05Z"}}\n\n',
        ),
        (
            Fact(FactType.CLAIMED, TIME, {"controller": "c", "attempts": 2, "claim": "1 secret", "ticket": "9"}),
            f'event: claimed\ndata: {{"type": "claimed", {SHOWN}, "controller": "c", "attempts": 2}}\n\n',
        ),
        (Fact(FactType.TRUNCATING, TIME), f'event: truncating\ndata: {{"type": "truncating", {SHOWN}}}\n\n'),
        (Fact(FactType.CREATED, TIME, {"command": ["a"]}), ""),
        (Fact(FactType.END_TIME_SET, TIME), ""),
        (Notice(NoticeType.GAP, 12), 'event: gap\nid: 11\ndata: {"type": "gap", "position": 12}\n\n'),
        (Notice(NoticeType.RESET, 0), 'event: reset\nid: 0\ndata: {"type": "reset", "position": 0}\n\n'),
    ],
)
def test_frames(record: Followed, frame: str) -> None:
    """Events have an id and no name, all else a name; what moves a client has an id as well; data is a line of JSON."""
    assert sse.encode(record).decode() == frame


def test_the_first_frame() -> None:
    """It is the job's summary, and the position after which it is followed, which is its id too."""
    frame = sse.encode_state(Job(id="j", status="running", start_time=TIME), 17, "a-b").decode()
    name, head, data = frame.removesuffix("\n\n").split("\n")
    assert (head, name, data[:6]) == ("id: 17", "event: state", "data: ")
    assert json.loads(data[6:]) == {
        "type": "state",
        "job_id": "j",
        "status": "running",
        "success": None,
        "start_time": "2030-01-02T03:04:05Z",
        "end_time": None,
        "position": 17,
        "incarnation": "a-b",
    }


def test_the_end_of_a_job_that_has_no_event_for_it() -> None:
    """It looks as any other end, with what is known of the result."""
    assert sse.encode_completion(None, 3) == b'id: 3\ndata: {"type": "complete", "success": null}\n\n'


@pytest.mark.parametrize("separator", SEPARATORS, ids=ascii)
def test_no_client_ends_a_line_within_a_frame(separator: str) -> None:
    """Wherever text of others stands: whoever splits lines, by whichever rules, sees each frame's lines whole."""
    text = text_with(separator)
    frames = [
        sse.encode(JobEvent("log", text, id=1)),
        sse.encode(JobEvent("log", text, True, id=1)),
        sse.encode(Fact(FactType.CLAIMED, TIME, {"controller": text, "attempts": 1})),
        sse.encode(Fact(FactType.STARTED, TIME, {"container_id": text})),
        sse.encode(Notice(NoticeType.RESET, 0, text)),
        sse.encode_state(Job(id="j", status="running"), 1, text),
    ]
    for frame in frames:
        lines = frame.decode().split("\n")
        assert frame.decode().splitlines() == lines[:-1]
        assert frame.splitlines() == [line.encode() for line in lines[:-1]]
        data = json.loads(lines[-3].removeprefix("data: "))
        assert any(value == sse.readable(text) for value in data.values())


@given(
    st.text(st.characters(codec=None)).map(
        lambda text: text.encode("utf-8", "surrogatepass").decode("utf-8", "surrogateescape")
    )
)
def test_any_text_is_one_line_of_valid_json(text: str) -> None:
    """Whatever a command prints: a frame has two lines, and its data is what can be read of the text."""
    lines = sse.encode(JobEvent("log", text, id=1)).decode().splitlines()
    assert (lines[0], lines[2:]) == ("id: 1", [""])
    assert json.loads(lines[1].removeprefix("data: "))["data"] == sse.readable(text)


@pytest.mark.parametrize("text", ["0", "1", "007", "9007199254740991"])
def test_positions(text: str) -> None:
    """They are digits, up to what JavaScript can hold."""
    assert sse.parse_position(text) == int(text)


@pytest.mark.parametrize(
    "text", ["", " 1", "-1", "+1", "1.0", "1e3", "0x1", "٣", "1\n", "9007199254740992", "1" * 5000]
)
def test_what_is_no_position(text: str) -> None:
    """It is refused."""
    with pytest.raises(InvalidPositionError):
        sse.parse_position(text)
