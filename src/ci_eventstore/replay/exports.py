"""Write a job's history in formats that other programs read, piece by piece; formats are pure.

A format is fed one record after the other and keeps no more than a batch of them. What it makes depends on nothing but
the job and its records. `pieces_of` feeds it.
"""

import base64
import codecs
import json
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar, Literal

from ci_common.models import Job, JobEvent, Outcome, as_utc
from ci_eventstore.events.records import Fact, FactType, Place, Record, log_bytes
from ci_eventstore.replay.replay import LONGEST_GAP_SECONDS, History, Placed, gap_between, time_of

#: The size of the terminal that a recording is played in; the command's own isn't known.
COLUMNS, ROWS = 120, 30
#: A line of OTLP holds at most this many records, and about this much text.
BATCH_RECORDS = 500
BATCH_BYTES = 1024 * 1024
#: An export is handed out in pieces of about this size.
PIECE_BYTES = 64 * 1024
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
#: OTLP's numbers of severity.
_INFO, _ERROR = (9, "INFO"), (17, "ERROR")


class Format(ABC):
    """Writes one job's history: `begin`, then `record` for each record in order, then `end`."""

    media_type: ClassVar[str] = "application/x-ndjson"

    def __init__(self, job: Job) -> None:
        self._job = job

    def begin(self) -> bytes:
        """Return the text before the first record."""
        return b""

    @abstractmethod
    def record(self, place: Place, record: Record) -> bytes:
        """Return the text that the next record adds."""

    def end(self) -> bytes:
        """Return the text after the last record."""
        return b""


class Text(Format):
    """The bytes that the command printed, and no others."""

    media_type = "text/plain"

    def record(self, place: Place, record: Record) -> bytes:
        return log_bytes(record) if isinstance(record, JobEvent) else b""


class JsonLines(Format):
    """A JSON object on each line, in ASCII, for each event and each fact; `read_json_line` reads it back."""

    def record(self, place: Place, record: Record) -> bytes:
        line: dict[str, Any] = {"job": self._job.id, "position": place.position}
        if isinstance(record, Fact):
            fields = {name: _json_value(value) for name, value in record.fields.items()}
            token = {} if record.token is None else {"token": record.token}
            line |= {"part": place.part, "type": str(record.type), "time": _json_time(record.time), "fields": fields}
            return _line({**line, **token})
        line |= {"type": str(record.type), "time": _json_time(record.timestamp)}
        if record.data is not None:
            line |= _json_text(record.data)
        if record.success is not None:
            line["success"] = record.success
        if record.outcome is not None:
            line |= {"exit_code": record.outcome.exit_code, "signal": record.outcome.signal}
        return _line(line)


def read_json_line(line: str | bytes) -> Placed:
    """Return the place and the record that a line of `JsonLines` stands for; ValueError, KeyError, TypeError."""
    found = json.loads(line)
    place, time = Place(found["position"], found.get("part", 0)), found["time"]
    when = None if time is None else datetime.fromisoformat(time)
    if "fields" in found:
        fields = {name: _python_value(value) for name, value in found["fields"].items()}
        return place, Fact(FactType(found["type"]), datetime.fromisoformat(time), fields, found.get("token"))
    data = found.get("data")
    if "base64" in found:
        data = base64.b64decode(found["base64"]).decode("utf-8", "surrogateescape")
    outcome = Outcome(found["exit_code"], found["signal"]) if "exit_code" in found else None
    return place, JobEvent(found["type"], data, found.get("success"), when, id=place.position, outcome=outcome)


class _Recording(Format):
    """What both versions of asciicast share: text at its times, as a terminal gets it.

    A terminal's text is UTF-8: other bytes become U+FFFD. A character may be cut in two by an event's end, so the bytes
    are decoded one after the other. A line ends with a carriage return, too, which a terminal's driver adds to what a
    command prints.
    """

    media_type = "application/x-asciicast"

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        self._ends_in_return = False
        self._begun = as_utc(job.start_time or job.created_at)
        self._before = self._begun
        #: Microseconds since the recording began, as an integer: sums are exact.
        self._elapsed = 0
        self._result: Outcome | None = None

    def _header(self, terminal: Mapping[str, object]) -> bytes:
        job, seconds = self._job, (self._begun - _EPOCH) // timedelta(seconds=1)
        return _line(
            {**terminal, "timestamp": seconds, "idle_time_limit": LONGEST_GAP_SECONDS, "title": job.name or job.id}
        )

    def record(self, place: Place, record: Record) -> bytes:
        if isinstance(record, Fact):
            return b""
        time = time_of(record)
        self._elapsed += gap_between(self._before, time) // _MICROSECOND
        self._before = time or self._before
        self._result = record.outcome or self._result
        return self._output(self._shown(log_bytes(record)))

    def end(self) -> bytes:
        return self._output(self._shown(b"", is_last=True))

    def _output(self, text: str) -> bytes:
        return self._event("o", text) if text else b""

    def _shown(self, data: bytes, *, is_last: bool = False) -> str:
        text = self._decode(data, is_last)
        if not text:
            return ""
        shown = ("\r" * self._ends_in_return + text).replace("\r\n", "\n").replace("\n", "\r\n")
        shown = shown[self._ends_in_return :]
        self._ends_in_return = text.endswith("\r")
        return shown

    @abstractmethod
    def _event(self, code: str, data: str) -> bytes:
        """Return the line of an event that happens now."""


class Asciicast2(_Recording):
    """A recording of a terminal, version 2: each event has the time since the beginning."""

    def begin(self) -> bytes:
        return self._header({"version": 2, "width": COLUMNS, "height": ROWS})

    def _event(self, code: str, data: str) -> bytes:
        return _timed(self._elapsed, code, data)


class Asciicast3(_Recording):
    """A recording of a terminal, version 3: each event has the time since the one before; the exit code comes last."""

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self._told = 0

    def begin(self) -> bytes:
        return self._header({"version": 3, "term": {"cols": COLUMNS, "rows": ROWS}})

    def end(self) -> bytes:
        code = None if self._result is None else self._result.exit_code
        return super().end() + (b"" if code is None else self._event("x", str(code)))

    def _event(self, code: str, data: str) -> bytes:
        interval, self._told = self._elapsed - self._told, self._elapsed
        return _timed(interval, code, data)


class Otlp(Format):
    """Logs in OTLP/JSON, a request on each line: one log record for each event, and for each fact."""

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self._waiting: list[dict[str, Any]] = []
        self._size = 0

    def record(self, place: Place, record: Record) -> bytes:
        found = _otlp_fact(place, record) if isinstance(record, Fact) else _otlp_event(record)
        number, name = _ERROR if isinstance(record, JobEvent) and record.success is False else _INFO
        time = {"timeUnixNano": _nanoseconds(time_of(record)), "severityNumber": number, "severityText": name}
        attributes = {"ci.event.type": str(record.type), "ci.event.position": place.position, **found.pop("attributes")}
        self._waiting.append({**time, **found, "attributes": _otlp_attributes(attributes)})
        self._size += len(record.data or "") if isinstance(record, JobEvent) else 0
        return self._flush() if len(self._waiting) >= BATCH_RECORDS or self._size >= BATCH_BYTES else b""

    def end(self) -> bytes:
        return self._flush() if self._waiting else b""

    def _flush(self) -> bytes:
        job = self._job
        resource = {"service.name": "ci-eventstore", "cicd.pipeline.run.id": job.id, "cicd.pipeline.name": job.name}
        scope = {"scope": {"name": "ci_eventstore"}, "logRecords": self._waiting}
        logs = {"resource": {"attributes": _otlp_attributes(resource)}, "scopeLogs": [scope]}
        self._waiting, self._size = [], 0
        return _line({"resourceLogs": [logs]})


FormatName = Literal["text", "jsonl", "asciicast2", "asciicast3", "otlp"]
#: By their names in the command line and the web.
FORMATS: Mapping[FormatName, type[Format]] = {
    "text": Text,
    "jsonl": JsonLines,
    "asciicast2": Asciicast2,
    "asciicast3": Asciicast3,
    "otlp": Otlp,
}


async def pieces_of(history: History, form: Format, *, facts: bool) -> AsyncGenerator[bytes, None]:
    """Yield a history in a format, with its facts or without, some of it at a time; what `History.records` raises."""
    waiting = bytearray(form.begin())
    async with aclosing(history.records()) as records:
        async for place, record in records:
            if facts or isinstance(record, JobEvent):
                waiting += form.record(place, record)
            if len(waiting) >= PIECE_BYTES:
                yield bytes(waiting)
                waiting.clear()
    waiting += form.end()
    if waiting:
        yield bytes(waiting)


def _otlp_event(event: JobEvent) -> dict[str, Any]:
    if event.type == "log":
        text = _json_text(event.data or "")
        body = {"stringValue": text["data"]} if "data" in text else {"bytesValue": text["base64"]}
        return {"body": body, "attributes": {}}
    outcome = event.outcome or Outcome()
    result = {"ci.success": event.success, "process.exit.code": outcome.exit_code, "ci.signal": outcome.signal}
    return {"body": {"stringValue": str(event.type)}, "attributes": result}


def _otlp_fact(place: Place, fact: Fact) -> dict[str, Any]:
    """Return the exported fields of a fact: none that gives a right to the job, as a claim does."""
    return {"body": {"stringValue": str(fact.type)}, "attributes": {"ci.event.part": place.part}}


def _otlp_attributes(attributes: Mapping[str, object]) -> list[dict[str, Any]]:
    return [{"key": key, "value": _otlp_value(value)} for key, value in attributes.items() if value is not None]


def _otlp_value(value: object) -> dict[str, Any]:
    if isinstance(value, bool):
        return {"boolValue": value}
    # Protobuf's JSON writes 64-bit numbers as texts.
    return {"intValue": str(value)} if isinstance(value, int) else {"stringValue": str(value)}


def _nanoseconds(time: datetime | None) -> str:
    """Return a time since 1970 in 64 bits without a sign; 0 stands for one that is unknown, or doesn't fit in."""
    nanoseconds = 0 if time is None else (time - _EPOCH) // _MICROSECOND * 1000
    return str(nanoseconds if 0 <= nanoseconds < 2**64 else 0)


def _timed(microseconds: int, code: str, data: str) -> bytes:
    seconds, rest = divmod(microseconds, 1_000_000)
    return f"[{seconds}.{rest:06}, {json.dumps(code)}, {json.dumps(data)}]\n".encode("ascii")


def _line(value: Mapping[str, object]) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode("ascii") + b"\n"


def _json_time(time: datetime | None) -> str | None:
    """Return a time as ISO 8601; a naive one without a zone, so that it stays one."""
    return None if time is None else time.isoformat().replace("+00:00", "Z")


def _json_text(text: str) -> dict[str, str]:
    """Return a text, or the base64 of its bytes where these aren't UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return {"base64": base64.b64encode(text.encode("utf-8", "surrogateescape")).decode()}
    return {"data": text}


def _json_value(value: object) -> object:
    """Return a fact's field in a form that tells a time from a text."""
    return {"time": _json_time(value)} if isinstance(value, datetime) else value


def _python_value(value: object) -> object:
    return datetime.fromisoformat(value["time"]) if isinstance(value, dict) else value
