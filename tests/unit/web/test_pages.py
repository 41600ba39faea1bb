"""Events and the lines that they begin in; the settings of the web server."""

from pathlib import Path
from typing import Any

import pytest

from ci_common.models import JobEvent
from ci_eventstore.errors import ConfigurationError
from ci_eventstore.events.reader import START, Milestone
from ci_eventstore.web import WebSettings
from ci_eventstore.web.jobs.events import number, to_page


@pytest.mark.parametrize(
    ("texts", "start", "lines"),
    [
        ([], START, []),
        (["a\n", "b\n"], START, [(1, 1), (2, 2)]),
        (["a", "b\n", "c"], START, [(1, 1), (1, 1), (2, 2)]),
        (["a\nb\nc"], START, [(1, 3)]),
        (["\n\n", "", "x"], START, [(1, 2), (3, 2), (3, 3)]),
        (["x\n"], Milestone(10, 7, 100), [(8, 8)]),
    ],
)
def test_lines_of_events(texts: list[str], start: Milestone, lines: list[tuple[int, int]]) -> None:
    """The line that an event's text begins in, and the last one that it has something of."""
    events = [JobEvent("log", text, id=place) for place, text in enumerate(texts, start.position + 1)]
    assert [(entry.line, entry.last_line) for entry in number(events, start)] == lines


def test_a_page_says_where_the_next_one_begins() -> None:
    """Behind its last event; where it was, if there is none."""
    events = number([JobEvent("log", "a", id=4), JobEvent("complete", success=True, id=5)], Milestone(3, 0, 0))
    assert to_page(events, 3)["next"] == 5
    assert to_page([], 3) == {"events": [], "next": 3}


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_project_bytes": 0},
        {"max_streams_per_user": 0},
        {"heartbeat_seconds": 0},
        {"project_folder": Path("relative")},
    ],
)
def test_settings_that_can_not_be(wrong: dict[str, Any]) -> None:
    """They are refused when they are made."""
    with pytest.raises(ConfigurationError):
        WebSettings(**wrong)
