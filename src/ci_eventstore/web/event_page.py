"""A page of a job's events as JSON. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ci_common.models import JobEvent, to_rfc3339
from ci_eventstore.events.reader import Milestone
from ci_eventstore.events.records import log_text, text_size
from ci_eventstore.web.sse import readable


@dataclass(frozen=True, slots=True)
class Numbered:
    """An event, and the line of the log that its text begins in, counted from 1."""

    event: JobEvent
    line: int
    #: The line that it gets as far as: that of its last character.
    last_line: int


def number(events: Sequence[JobEvent], start: Milestone) -> list[Numbered]:
    """Return events with their lines; they follow what the milestone stands for."""
    lines, numbered = start.lines, []
    for event in events:
        text = event.data or "" if event.type == "log" else ""
        before, lines = lines, lines + text.count("\n")
        numbered.append(Numbered(event, before + 1, lines if text.endswith("\n") else lines + bool(text)))
    return numbered


def milestone_after(events: Sequence[Numbered], start: Milestone) -> Milestone:
    """Return how many lines and bytes there are up to the last of these events, which follow a milestone."""
    sizes = [text_size(log_text(numbered.event)) for numbered in events]
    return Milestone(
        events[-1].event.id or start.position,
        start.lines + sum(lines for _, lines in sizes),
        start.bytes + sum(size for size, _ in sizes),
    )


def to_page(events: Sequence[Numbered], after: int) -> dict[str, Any]:
    """Return the page, and the position after which the next one begins."""
    shown = [_to_dict(numbered) for numbered in events]
    return {"events": shown, "next": (events[-1].event.id or after) if events else after}


def _to_dict(numbered: Numbered) -> dict[str, Any]:
    event = numbered.event
    shown = {"id": event.id, **event.to_dict(), "time": to_rfc3339(event.timestamp)}
    if event.data is not None:
        shown["data"] = readable(event.data)
    if event.type == "log":
        shown["line"] = numbered.line
    return shown
