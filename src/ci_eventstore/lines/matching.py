"""What a search finds in lines: a text, or a pattern of RE2, in linear time whatever it is. Pure."""

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

#: A longer text or pattern is refused, and so is one whose automaton takes more memory.
MOST_CHARACTERS = 1000
_MOST_MEMORY = 8 * 1024 * 1024
#: Of a line's places, so many are returned, and so much of its text.
MOST_PLACES = 100
MOST_TEXT = 2000


class Match(NamedTuple):
    """A line with hits."""

    #: Where it begins in the text that was searched, and where it ends.
    start: int
    end: int
    #: Of the hits within the line, in characters.
    places: list[tuple[int, int]]


class TextMatcher:
    """Finds a text; upper and lower case are the same unless they are told apart."""

    def __init__(self, wanted: str, *, has_case: bool) -> None:
        self._has_case = has_case
        self._wanted = wanted if has_case else wanted.lower()
        self._pattern = None if has_case else re.compile(re.escape(wanted), re.IGNORECASE)

    def find(self, text: str) -> Iterator[Match]:
        """Yield the lines of a text that have hits, in their order."""
        haystack = text if self._has_case else text.lower()
        if len(haystack) != len(text):
            # A letter has become two: places would be wrong.
            yield from self._find_by_line(text)
            return
        place = haystack.find(self._wanted)
        while place >= 0:
            start, end = _line_around(text, place)
            places = list[tuple[int, int]]()
            while 0 <= place < end and len(places) < MOST_PLACES:
                places.append((place - start, place - start + len(self._wanted)))
                place = haystack.find(self._wanted, place + len(self._wanted), end)
            yield Match(start, end, places)
            place = haystack.find(self._wanted, end)

    def _find_by_line(self, text: str) -> Iterator[Match]:
        assert self._pattern is not None
        start = 0
        for line in text.split("\n"):
            if places := [found.span() for found in self._pattern.finditer(line)][:MOST_PLACES]:
                yield Match(start, start + len(line), places)
            start += len(line) + 1


class PatternMatcher:
    """Finds what a pattern of RE2 matches within lines; ValueError for one that can't be read."""

    def __init__(self, pattern: str, *, has_case: bool) -> None:
        import re2

        options: Any = re2.Options()
        options.case_sensitive = has_case
        options.max_mem = _MOST_MEMORY
        options.log_errors = False
        options.encoding = re2.Options.Encoding.UTF8
        try:
            # Over all lines together, to find candidates fast; `\\s` may reach into the next line.
            self._all: Any = re2.compile(f"(?m:{pattern})".encode(), options)
            self._one: Any = re2.compile(pattern.encode(), options)
        except re2.error as error:
            said = error.args[0] if error.args else error
            raise ValueError(said.decode() if isinstance(said, bytes) else str(said)) from None

    def find(self, text: str) -> Iterator[Match]:
        """Yield the lines of a text that have hits, in their order."""
        raw, place, seen, characters = text.encode("utf-8", "replace"), 0, 0, 0
        while place < len(raw) and (candidate := self._all.search(raw, place)):
            start = raw.rfind(b"\n", 0, candidate.start()) + 1
            end = raw.find(b"\n", start)
            end = len(raw) if end < 0 else end
            line = raw[start:end]
            if places := self._places(line):
                characters += len(raw[seen:start].decode())
                seen = start
                yield Match(characters, characters + len(line.decode()), places)
            place = end + 1

    def _places(self, line: bytes) -> list[tuple[int, int]]:
        places = list[tuple[int, int]]()
        for found in self._one.finditer(line):
            start, end = found.span()
            if start < end:
                places.append((len(line[:start].decode()), len(line[:end].decode())))
            if len(places) >= MOST_PLACES:
                break
        return places


Matcher = TextMatcher | PatternMatcher


def matcher_of(wanted: str, mode: str, *, has_case: bool) -> Matcher:
    """Return what finds a text or a pattern; ValueError says why that can't be searched for."""
    if not wanted or "\n" in wanted or len(wanted) > MOST_CHARACTERS:
        raise ValueError(f"what is searched for has 1 to {MOST_CHARACTERS} characters, and no newline")
    return PatternMatcher(wanted, has_case=has_case) if mode == "regex" else TextMatcher(wanted, has_case=has_case)


def utf16_places(line: str, places: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return places of characters as places of UTF-16 code units, which JavaScript counts."""
    if line.isascii():
        return places
    units = [0]
    for character in line[: max(end for _, end in places)]:
        units.append(units[-1] + (2 if ord(character) > 0xFFFF else 1))
    return [(units[start], units[end]) for start, end in places]


def _line_around(text: str, place: int) -> tuple[int, int]:
    start, end = text.rfind("\n", 0, place) + 1, text.find("\n", place)
    return start, len(text) if end < 0 else end
