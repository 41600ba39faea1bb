"""What exports write: tables of small histories, and properties of any, read back by others' readers."""

import base64
import json
import string
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from asciinema_scene.scenelib.scene_content import SceneContent
from google.protobuf.json_format import Parse
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.logs.v1.logs_pb2 import LogsData

from ci_common.models import Job, JobEvent, Outcome
from ci_eventstore.events.records import Fact, FactType, Place, Record, log_bytes
from ci_eventstore.replay.exports import BATCH_RECORDS, FORMATS, FormatName, read_json_line
from ci_eventstore.replay.replay import Placed

NOON = datetime(2026, 11, 26, 12, tzinfo=UTC)
JOB = Job(id="j", status="completed", created_at=NOON, start_time=NOON, name="build")
RECORDING = {"timestamp": int(NOON.timestamp()), "idle_time_limit": 60.0, "title": "build"}


def placed(records: Sequence[Record]) -> list[Placed]:
    """Return records at the places that a store gives them."""
    places, position, part = [], 0, 0
    for record in records:
        position, part = (position, part + 1) if isinstance(record, Fact) else (position + 1, 0)
        places.append((Place(position, part), record))
    return places


def written(name: FormatName, records: Sequence[Record]) -> bytes:
    """Return a history in a format."""
    form = FORMATS[name](JOB)
    return b"".join([form.begin(), *(form.record(*found) for found in placed(records)), form.end()])


def log(data: bytes, seconds: float = 0) -> JobEvent:
    """Return a log event."""
    return JobEvent("log", data.decode("utf-8", "surrogateescape"), timestamp=NOON + timedelta(seconds=seconds))


#: A colour, a line that is written over, bytes that aren't UTF-8, a character in two halves, and one that stays half.
REAL: Sequence[Record] = [
    Fact(FactType.CREATED, NOON, {"created_at": NOON, "command": ["make"], "queue": "default"}, "token"),
    log(b"\x1b[32mok\x1b[0m\n", 0.25),
    log(b"10%\r", 1.5),
    log(b"\n\xff \xc3", 1),
    Fact(FactType.CANCEL_REQUESTED, NOON),
    log(b"\xbc\r\n", 2),
    log(b"\xe2\x82", 62),
    JobEvent("complete", success=False, timestamp=NOON + timedelta(seconds=63), outcome=Outcome(3)),
]
SHOWN = ["\x1b[32mok\x1b[0m\r\n", "10%\r", "\n\ufffd ", "ü\r\n", "\ufffd"]
#: The third one's clock had jumped back: it comes at once, and the next one a second later.
TIMES = [0.25, 1.5, 1.5, 2.5, 63.5]


def test_text_is_what_was_printed() -> None:
    """Byte for byte, whatever the bytes are."""
    assert written("text", REAL) == b"\x1b[32mok\x1b[0m\n10%\r\n\xff \xc3\xbc\r\n\xe2\x82"


def test_a_recording_of_version_2_has_times_since_its_beginning() -> None:
    """As its specification has it: a header, then an array on each line, in the order of time."""
    header, *lines = map(json.loads, written("asciicast2", REAL).splitlines())
    assert header == {"version": 2, "width": 120, "height": 30, **RECORDING}
    assert lines == [[time, "o", text] for time, text in zip(TIMES, SHOWN, strict=True)]


def test_a_recording_of_version_3_has_times_since_the_last_event() -> None:
    """Its header is another one, and its end has the exit code."""
    header, *lines = map(json.loads, written("asciicast3", REAL).splitlines())
    assert header == {"version": 3, "term": {"cols": 120, "rows": 30}, **RECORDING}
    intervals = [0.25, 1.25, 0, 1, 61]
    expected = [[time, "o", text] for time, text in zip(intervals, SHOWN, strict=True)]
    assert lines == [*expected, [0, "x", "3"]]


@pytest.mark.parametrize("name", ["asciicast2", "asciicast3"])
def test_another_program_reads_recordings(name: FormatName) -> None:
    """An editor of recordings finds the same text at the same times in both."""
    scene = SceneContent()
    scene.parse_content(written(name, REAL).decode())
    # It counts microseconds, from the first frame on, and ends a line that has no end.
    *frames, end = [(frame.timecode, frame.text) for frame in scene.frames if frame.tpe == "o"]
    assert end[1] == "\r\n"
    first = frames[0][0]
    assert [(time - first) / 1_000_000 for time, _ in frames] == [time - TIMES[0] for time in TIMES]
    assert [text for _, text in frames] == SHOWN


def test_log_records_are_read_by_protobuf() -> None:
    """By the published messages, which refuse unknown fields and wrong types."""
    [line] = written("otlp", REAL).splitlines()
    [logs] = Parse(line, LogsData()).resource_logs
    resource = {pair.key: pair.value.string_value for pair in logs.resource.attributes}
    assert resource == {"service.name": "ci-eventstore", "cicd.pipeline.run.id": "j", "cicd.pipeline.name": "build"}
    records = logs.scope_logs[0].log_records
    start = int(NOON.timestamp()) * 10**9
    assert [record.time_unix_nano - start for record in records[:3]] == [0, 250_000_000, 1_500_000_000]
    assert [record.body.string_value for record in records[:3]] == ["created", "\x1b[32mok\x1b[0m\n", "10%\r"]
    assert records[3].body.bytes_value == b"\n\xff \xc3"
    last = {pair.key: pair.value for pair in records[-1].attributes}
    assert (records[-1].severity_text, last["process.exit.code"].int_value) == ("ERROR", 3)
    assert last["ci.event.position"].int_value == 6


def test_many_log_records_come_in_several_requests() -> None:
    """So that whoever reads or writes them needs no more memory for more of them."""
    lines = written("otlp", [log(b"x\n")] * (2 * BATCH_RECORDS + 1)).splitlines()
    sizes = [len(Parse(line, LogsData()).resource_logs[0].scope_logs[0].log_records) for line in lines]
    assert sizes == [BATCH_RECORDS, BATCH_RECORDS, 1]


@pytest.mark.parametrize("name", FORMATS)
def test_an_empty_history_is_written(name: FormatName) -> None:
    """As nothing, or as a header alone."""
    assert written(name, []).count(b"\n") == (name in ("asciicast2", "asciicast3"))


def test_a_time_before_1970_is_unknown() -> None:
    """OTLP has none."""
    found = json.loads(written("otlp", [JobEvent("log", "x", timestamp=datetime(1969, 1, 1))]))
    assert found["resourceLogs"][0]["scopeLogs"][0]["logRecords"][0]["timeUnixNano"] == "0"


times = st.datetimes(timezones=st.sampled_from([None, UTC]))
texts = st.binary(max_size=20).map(lambda data: data.decode("utf-8", "surrogateescape"))
outcomes = st.none() | st.builds(Outcome, st.integers(0, 255)) | st.builds(Outcome, st.none(), st.just("SIGKILL"))
values = st.none() | st.booleans() | st.integers(0, 2**53) | st.text(max_size=5) | times | st.lists(st.text(max_size=5))
facts = st.builds(
    Fact,
    st.sampled_from(FactType),
    times,
    st.dictionaries(st.text(string.ascii_lowercase, min_size=1, max_size=5), values, max_size=4),
    st.none() | st.text(max_size=5),
)
events = st.builds(
    JobEvent,
    st.sampled_from(["log", "complete"]),
    st.none() | texts,
    st.none() | st.booleans(),
    times,
    outcome=outcomes,
)
histories = st.lists(events | facts, max_size=8)


@settings(max_examples=40)
@given(histories)
def test_lines_of_json_lose_nothing(records: list[Record]) -> None:
    """What is read back is what was written, places and naive times included."""
    lines = written("jsonl", records).split(b"\n")
    assert lines.pop() == b""
    assert [read_json_line(line) for line in lines] == placed(records)


@given(st.lists(st.tuples(st.binary(max_size=6), times), max_size=8))
def test_recordings_have_the_text_at_rising_times(pieces: list[tuple[bytes, datetime]]) -> None:
    """Any cut gives the text that a terminal would have been given, and both versions the same times."""
    records = [JobEvent("log", data.decode("utf-8", "surrogateescape"), timestamp=time) for data, time in pieces]
    raw = b"".join(data for data, _ in pieces).decode("utf-8", "replace")
    found: dict[str, list[Any]] = {}
    versions: tuple[FormatName, ...] = ("asciicast2", "asciicast3")
    for name in versions:
        _, *found[name] = [json.loads(line) for line in written(name, records).splitlines()]
        assert "".join(text for _, _, text in found[name]) == raw.replace("\r\n", "\n").replace("\n", "\r\n")
    absolute = [round(time * 10**6) for time, _, _ in found["asciicast2"]]
    assert absolute == sorted(absolute)
    elapsed = 0
    for time, (interval, _, _) in zip(absolute, found["asciicast3"], strict=True):
        elapsed += round(interval * 10**6)
        assert abs(elapsed - time) <= time // 10**12


@settings(max_examples=40)
@given(histories)
def test_log_records_have_every_byte(records: list[Record]) -> None:
    """In their order, as text or as bytes."""
    found = b""
    for line in written("otlp", records).splitlines():
        Parse(line, LogsData())
        for record in json.loads(line)["resourceLogs"][0]["scopeLogs"][0]["logRecords"]:
            if record["attributes"][0]["value"]["stringValue"] == "log":
                body = record["body"]
                found += body["stringValue"].encode() if "stringValue" in body else base64.b64decode(body["bytesValue"])
    assert found == b"".join(log_bytes(record) for record in records if isinstance(record, JobEvent))
