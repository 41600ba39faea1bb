"""A log as the bytes that were printed, or with a time in front of each line. Pure."""

from datetime import datetime

from ci_common.models import JobEvent, as_utc, utc_now


def log_bytes(event: JobEvent) -> bytes:
    """Return what the command printed, of an event of its log; nothing for other events."""
    return (event.data or "").encode("utf-8", "surrogateescape") if event.type == "log" else b""


class TimestampedLines:
    """Puts in front of each line the time of the event that it begins in; never into the middle of a line."""

    def __init__(self, *, is_at_line_start: bool = True) -> None:
        """Say whether the first event begins a line; if not, the rest of the line that it goes on with has no time."""
        self._is_at_line_start = is_at_line_start
        self._is_line_open = False

    def render(self, event: JobEvent) -> bytes:
        """Return the next event's bytes with the times in front."""
        data = log_bytes(event)
        if not data:
            return b""
        mark = rfc3339(event.timestamp or utc_now()).encode() + b" "
        rest = mark.join(_lines(data))
        was_at_start, self._is_at_line_start = self._is_at_line_start, data.endswith(b"\n")
        self._is_line_open = not self._is_at_line_start
        return mark + rest if was_at_start else rest

    def break_off(self) -> bytes:
        """Return what ends the line that was begun, if any: what follows isn't the rest of it."""
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
