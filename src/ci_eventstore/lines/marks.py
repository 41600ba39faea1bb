"""Lines that mark groups, errors and warnings, as several CI systems print them. Pure.

Only marks count, not words: nothing is guessed. Titles are plain text.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Literal, NamedTuple

from ci_eventstore.lines.plain import plain_line

#: Each mark has one of these: where its line begins, or, as GitLab's, after an escape that erases the line.
_AT_BEGINNING = re.compile(r"\n(?:::|##\[|##teamcity\[|--- |\+\+\+ |~~~ |\^\^\^ \+\+\+)")
_ANYWHERE = ("section_start:", "section_end:", "travis_fold:")
MOST_TITLE = 200

Kind = Literal["error", "warning", "notice"]


class Opening(NamedTuple):
    """The beginning of a group."""

    title: str
    #: By which its end names it; "" for one that the next end ends.
    name: str
    #: Ends by itself when the next one of its kind begins.
    is_section: bool = False
    #: What the line begins with: a diff's lines begin so as well.
    sign: str = ""


class Closing(NamedTuple):
    """The end of the last group of a name."""

    name: str


class Remark(NamedTuple):
    """An error, a warning or a notice."""

    kind: Kind
    text: str


Mark = Opening | Closing | Remark

_KINDS: Mapping[str, Kind] = {"error": "error", "warning": "warning", "notice": "notice"}
_REMARK = re.compile(r"(?:::(error|warning|notice)(?: (.*?))?::|##\[(error|warning|notice)\])(.*)")
#: Each has a word that says whether a group begins, its name, and its title.
_GROUPS = (
    (re.compile(r"(?:::|##\[)(group|endgroup)()(?:::|\])(.*)"), ("group",)),
    (re.compile(r"section_(start|end):\d+:([\w.-]+)(?:\[[^\]]*\])?\r?(?:\x1b\[0K)?([^\r]*)"), ("start",)),
    (re.compile(r"travis_fold:(start|end):([\w.-]+)(.*)"), ("start",)),
    (re.compile(r"##teamcity\[(blockOpened|blockClosed) .*?name='([^']*)'()"), ("blockOpened",)),
)
_BUILDKITE = re.compile(r"(---|\+\+\+|~~~) (\S.*)")
#: At most this much of a line is looked at.
_LOOK = 8 * MOST_TITLE


def marked_lines(text: str) -> Iterator[tuple[int, int, Mark]]:
    """Yield for each mark in a text of lines: where its line begins, how many newlines are before it, and the mark."""
    places = {found.start() for found in _AT_BEGINNING.finditer("\n" + text)}
    places.update(begin for sign in _ANYWHERE for begin in _lines_with(text, sign))
    counted = lines = 0
    for begin in sorted(places):
        lines, counted = lines + text.count("\n", counted, begin), begin
        end = text.find("\n", begin, begin + _LOOK)
        if mark := mark_of(text[begin : begin + _LOOK if end < 0 else end]):
            yield begin, lines, mark


def _lines_with(text: str, sign: str) -> Iterator[int]:
    """Yield where the lines that have a sign begin."""
    place = text.find(sign)
    while place >= 0:
        yield text.rfind("\n", 0, place) + 1
        newline = text.find("\n", place)
        place = text.find(sign, newline) if newline >= 0 else -1


def mark_of(line: str) -> Mark | None:
    """Return the mark that a line is; None for any other line."""
    begin = line.removeprefix("\x1b[0K")
    if found := _REMARK.match(begin):
        return Remark(_KINDS[found[1] or found[3]], _title(_told(found[2] or "", found[4])))
    if found := _BUILDKITE.match(begin):
        return Opening(_title(found[2]), "buildkite", is_section=True, sign=found[1])
    for pattern, openings in _GROUPS:
        if found := pattern.match(begin):
            word, name, title = found.groups()
            return Opening(_title(title or "") or name, name) if word in openings else Closing(name)
    return None


def _told(parameters: str, text: str) -> str:
    """Return what a remark says: where, a title, and its text."""
    given = dict(parameter.strip().partition("=")[::2] for parameter in parameters.split(","))
    place = ":".join(given[name] for name in ("file", "line") if given.get(name))
    told = ": ".join(part for part in (place, given.get("title"), text.strip()) if part)
    for escape, character in (("%0D", " "), ("%0A", " "), ("%3A", ":"), ("%2C", ","), ("%25", "%")):
        told = told.replace(escape, character)
    return told


def _title(text: str) -> str:
    return plain_line(text[:_LOOK]).strip()[:MOST_TITLE]
