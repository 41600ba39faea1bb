"""What a job's stream holds: visible events (`JobEvent`) and facts, each at its place; and its log's text. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, NamedTuple

from ci_common.models import JobEvent, as_utc, utc_now


class FactType(StrEnum):
    """What may happen to a job besides its visible events."""

    #: All fields of a new job.
    CREATED = "created"
    #: It began to run, without a claim.
    STARTED = "started"
    #: Its start time or container became known, its status stays.
    UPDATED = "updated"
    #: A controller claimed it, perhaps after another one had lost it.
    CLAIMED = "claimed"
    #: A controller gave it up.
    REQUEUED = "requeued"
    #: Somebody asked the controller that has it to stop it.
    CANCEL_REQUESTED = "cancel_requested"
    #: Its run broke; `complete` follows.
    FAILED = "failed"
    #: Someone stopped it; `complete` follows.
    CANCELLED = "cancelled"
    #: It had ended when it was created, without a `complete` event.
    ENDED = "ended"
    #: The log outgrew its budget: later lines get their places when the job ends; an ended job takes none.
    TRUNCATING = "truncating"
    #: An explicit end time replaced one that came from an event.
    END_TIME_SET = "end_time_set"
    #: Its log was deleted: the log begins with this, which has the whole state instead of what came before.
    LOG_DELETED = "log_deleted"


@dataclass(frozen=True, slots=True)
class Fact:
    """Something that happened to a job and isn't a visible event."""

    type: FactType
    time: datetime
    #: By field name of the job's state.
    fields: Mapping[str, Any] = field(default_factory=dict)
    #: Of `created`: the token of the call that created the job, which no other job has. None in older stores.
    token: str | None = None


Record = JobEvent | Fact

#: The highest part that a stream id may have.
MAX_PART = 2**64 - 1


class Place(NamedTuple):
    """Where a record stands in its stream; the stream id is `<position>-<part>`.

    Visible events have part 0 and dense positions; facts have parts 1, 2 … after the event that they follow.
    """

    position: int
    part: int = 0

    def __str__(self) -> str:
        """Return the stream id."""
        return f"{self.position}-{self.part}"

    @property
    def next(self) -> "Place":
        """The first place after this one."""
        return Place(self.position, self.part + 1)

    @classmethod
    def last_at(cls, position: int) -> "Place":
        """Return the last place that a record may have at a position."""
        return cls(position, MAX_PART)

    @classmethod
    def parse(cls, stream_id: bytes) -> "Place":
        """Read a stream id."""
        position, part = stream_id.split(b"-")
        return cls(int(position), int(part))


def log_text(record: Record) -> str:
    """Return the text that a record adds to the job's log."""
    return (record.data or "") if isinstance(record, JobEvent) and record.type == "log" else ""


def text_size(text: str) -> tuple[int, int]:
    """Return how many UTF-8 bytes and how many lines a text has."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogateescape")), text.count("\n")


def log_bytes(event: JobEvent) -> bytes:
    """Return the bytes that the command printed in an event of its log; none for other events."""
    return (event.data or "").encode("utf-8", "surrogateescape") if event.type == "log" else b""


class TimestampedLines:
    """Puts in front of each line the time of the event that it begins in; never into the middle of a line."""

    def __init__(self, *, is_at_line_start: bool = True) -> None:
        """If the first event doesn't begin a line, the rest of its line gets no time."""
        self._is_at_line_start = is_at_line_start
        self._is_line_open = False

    def render(self, event: JobEvent) -> bytes:
        """Return the next event's bytes with the times in front."""
        return self.stamp(event.timestamp or utc_now(), log_bytes(event))

    def stamp(self, time: datetime, data: bytes) -> bytes:
        """Return the text that was written next, at a time, with the times in front."""
        if not data:
            return b""
        mark = rfc3339(time).encode() + b" "
        rest = mark.join(_lines(data))
        was_at_start, self._is_at_line_start = self._is_at_line_start, data.endswith(b"\n")
        self._is_line_open = not self._is_at_line_start
        return mark + rest if was_at_start else rest

    def break_off(self) -> bytes:
        """Return the newline that ends an open line, if there is one: what follows isn't the rest of it."""
        was_open, self._is_line_open, self._is_at_line_start = self._is_line_open, False, True
        return b"\n" if was_open else b""


def _lines(data: bytes) -> list[bytes]:
    """Split after each newline; a carriage return alone ends no line."""
    lines = [line + b"\n" for line in data.split(b"\n")]
    lines[-1] = lines[-1][:-1]
    return lines if lines[-1] else lines[:-1]


def rfc3339(time: datetime) -> str:
    """Write a time in RFC 3339, UTC, to the millisecond, so that all have one width."""
    return as_utc(time).isoformat(timespec="milliseconds").replace("+00:00", "Z")
