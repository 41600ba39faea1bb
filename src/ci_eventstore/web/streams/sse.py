r"""The wire format of a job's stream: server-sent events. Pure.

    event: state
    id: 17
    data: {"type": "state", "job_id": "…", "status": "running", …, "position": 17, "incarnation": "…"}

    event: truncating
    data: {"type": "truncating", "time": "…"}

    id: 18
    data: {"type": "log", "data": "line\n"}

    id: 19
    data: {"type": "complete", "success": true}

Visible events have an id, their position, and no name. Everything else has a name; if it moves a client to another
position, it has an id as well. So a client that comes back with the newest id misses nothing. All data is one line of
JSON with its name as `type`, without any character at which some client would end the line.
"""

import json
import re
from json.encoder import encode_basestring
from typing import Any

from ci_common.errors import InvalidPositionError
from ci_common.models import Job, JobEvent, to_rfc3339
from ci_eventstore.events.records import Fact, FactType
from ci_eventstore.following.records import Followed, Notice, NoticeType

#: A client that lost its connection tries again after this many milliseconds. This begins the first event, since
#: httpx-sse makes an empty event of a block without data.
RETRY = b"retry: 2000\n"
#: Sent when there is nothing else, so that proxies keep the connection and clients see that it is alive. No blank line
#: ends it, for the same reason.
HEARTBEAT = b": \n"

#: JavaScript may change any greater number.
MAX_NUMBER = 2**53 - 1
_DIGITS = re.compile(r"[0-9]{1,16}")
#: Where `str.splitlines` ends a line, of what JSON leaves as it is: next line, line and paragraph separator.
_LINE_ENDS = tuple((character, f"\\u{ord(character):04x}") for character in "\x85\u2028\u2029")

#: The facts that clients get, with the fields that are of use to them.
TOLD: dict[FactType, tuple[str, ...]] = {
    FactType.STARTED: ("start_time", "container_id"),
    FactType.CLAIMED: ("controller", "attempts"),
    FactType.REQUEUED: (),
    FactType.CANCEL_REQUESTED: (),
    FactType.FAILED: (),
    FactType.CANCELLED: (),
    FactType.TRUNCATING: (),
}


def parse_position(text: str) -> int:
    """Read an event's id as a client sends it; InvalidPositionError."""
    if _DIGITS.fullmatch(text) and int(text) <= MAX_NUMBER:
        return int(text)
    raise InvalidPositionError(text)


def encode(record: Followed) -> bytes:
    """Return the frame of a record, empty for a fact that clients don't get."""
    if isinstance(record, JobEvent):
        return encode_event(record)
    if isinstance(record, Notice):
        fields = {"position": record.position, "incarnation": record.incarnation}
        known = {name: value for name, value in fields.items() if value is not None}
        return named(record.type, known, max(record.position - 1, 0))
    names = TOLD.get(record.type)
    return b"" if names is None else named(record.type, {"time": to_rfc3339(record.time), **_known(record, names)})


def encode_event(event: JobEvent) -> bytes:
    """Return the frame of a visible event."""
    if event.type == "log" and event.success is None and event.data is not None:
        # Fast path for almost every event; `json.dumps` of a dict takes three times as long.
        body = f'{{"type": "log", "data": {_text(event.data)}}}'
        return f"id: {event.id}\ndata: {body}\n\n".encode()
    shown = event.to_dict()
    if event.data is not None:
        shown["data"] = readable(event.data)
    return f"id: {event.id}\ndata: {_json(shown)}\n\n".encode()


class Detail:
    """Encodes the records of one stream with the events' times, and the lines on which log events begin."""

    def __init__(self, lines: int | None) -> None:
        """Begin after that many newlines of the log; None: after a gap, so that nobody knows how many."""
        self.lines = lines

    def __call__(self, record: Followed) -> bytes:
        """Return a record's frame."""
        if isinstance(record, Notice):
            self.lines = 0 if record.type is NoticeType.RESET else None
        if not isinstance(record, JobEvent):
            return encode(record)
        shown = record.to_dict()
        if record.data is not None:
            shown["data"] = readable(record.data)
        if record.timestamp is not None:
            shown["time"] = to_rfc3339(record.timestamp)
        if record.type == "log" and self.lines is not None:
            shown["line"] = self.lines + 1
            self.lines += (record.data or "").count("\n")
        return f"id: {record.id}\ndata: {_json(shown)}\n\n".encode()


def encode_completion(success: bool | None, position: int) -> bytes:
    """Return the frame of a job's end for a stream that has no event for it."""
    return f"id: {position}\ndata: {_json({'type': 'complete', 'success': success})}\n\n".encode()


def encode_state(job: Job, position: int, incarnation: str) -> bytes:
    """Return the first frame of a stream: the job as it stands, and the position after which its events follow."""
    fields = {**job.to_summary_dict(), "position": position, "incarnation": incarnation}
    return named("state", {**fields, "log_truncated": True} if job.log_truncated else fields, position)


def named(name: str, fields: dict[str, Any], position: int | str | None = None) -> bytes:
    """Return the frame of a record with a name, and with the client's position if the record changes that."""
    place = "" if position is None else f"id: {position}\n"
    return f"event: {name}\n{place}data: {_json({'type': str(name), **fields})}\n\n".encode()


def readable(text: str) -> str:
    """Return a text with U+FFFD for bytes that aren't UTF-8."""
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return text


def _known(fact: Fact, names: tuple[str, ...]) -> dict[str, Any]:
    """Return the fields that a fact has, times as text."""
    known = {name: fact.fields[name] for name in names if fact.fields.get(name) is not None}
    return {name: to_rfc3339(value) if hasattr(value, "tzinfo") else value for name, value in known.items()}


def _text(text: str) -> str:
    """Return a text as JSON on one line."""
    if text.isascii():
        return encode_basestring(text)
    return _one_line(encode_basestring(readable(text)))


def _json(value: object) -> str:
    return _one_line(readable(json.dumps(value, ensure_ascii=False)))


def _one_line(encoded: str) -> str:
    """Return JSON with escapes for the line ends that JSON leaves as they are."""
    for character, escape in _LINE_ENDS:
        encoded = encoded.replace(character, escape)
    return encoded
