"""What a search finds in lines: a text, or a pattern of RE2, in linear time whatever it is. Pure."""

import re
from collections.abc import Iterator
from itertools import islice
from typing import Any, NamedTuple, TypeVar

#: A longer text or pattern is refused, and so is one whose automaton takes more memory.
MOST_CHARACTERS = 1000
_MOST_MEMORY = 8 * 1024 * 1024
#: So are patterns with more instructions: each of them may have to be tried at each place of a text.
MOST_INSTRUCTIONS = 2000
#: Of a line, so many characters are searched; fewer for a pattern with many instructions, each of which takes 50 ns at
#: each place at the worst: a line takes two seconds then.
MOST_OF_LINE = 1024 * 1024
_MOST_STEPS = 40_000_000
#: Of a line's places, so many are returned, and so much of its text.
MOST_PLACES = 100
#: A pattern that matches nothing, too, does so at each place; of a line, so many are looked at, in 0.3 s.
MOST_LOOKS = 100_000
MOST_TEXT = 2000
#: Lower case of the Kelvin sign is k, and of I with a dot i, with another one after it.
_ASCII_IN_LOWER_CASE = ("\u212a".encode(), "\u0130".encode())
#: What is about the ends of a text, or may make `^` and `$` be: all lines together have others than each by itself.
_ENDS_OF_TEXT = re.compile(r"\\[Az]|\(\?[A-Za-z]*-")
#: `\C`, which is a byte: half of a character, or a newline.
_ANY_BYTE = re.compile(r"(?<!\\)(?:\\\\)*\\C")

Text = TypeVar("Text", str, bytes)


class Match(NamedTuple):
    """A line with hits."""

    #: Where it begins in the text that was searched, and where it ends.
    start: int
    end: int
    #: Of the hits within the line, in characters.
    places: list[tuple[int, int]]


class TextMatcher:
    """Finds a text; upper and lower case are the same unless they are told apart."""

    most_of_line = MOST_OF_LINE

    def __init__(self, wanted: str, *, has_case: bool) -> None:
        self._has_case = has_case
        self._wanted = wanted if has_case else _lower(wanted)

    def find(self, text: str) -> Iterator[Match]:
        """Yield the lines of a text that have hits, in their order."""
        if self._has_case or text.isascii():
            return _find(text if self._has_case else text.lower(), self._wanted, "\n")
        if self._wanted.isascii():
            raw = text.encode("utf-8", "surrogatepass")
            if not any(letter in raw for letter in _ASCII_IN_LOWER_CASE):
                # Lower case of other letters takes ten times as long.
                return _in_characters(raw, _find(raw.lower(), self._wanted.encode(), b"\n"))
        return _find(_lower(text), self._wanted, "\n")


def _lower(text: str) -> str:
    """Return a text in lower case, letter by letter: places stay right."""
    # Of this one alone Python makes two.
    return "\u0130".join([part.lower() for part in text.split("\u0130")])


class PatternMatcher:
    """Finds what a pattern of RE2 matches within lines; ValueError for one that can't be read."""

    def __init__(self, pattern: str, *, has_case: bool) -> None:
        import re2

        if _ANY_BYTE.search(pattern):
            raise ValueError("\\C would match parts of characters: use a dot")
        options: Any = re2.Options()
        options.case_sensitive = has_case
        options.max_mem = _MOST_MEMORY
        options.log_errors = False
        options.encoding = re2.Options.Encoding.UTF8
        try:
            # This one first: its errors name nothing but the pattern itself.
            self._one: Any = re2.compile(pattern.encode(), options)
            # Over all lines together, to find candidates fast. Without newlines in `[^x]` and `\\s`: a candidate that
            # reached over lines would be looked for from each of them.
            options.never_nl = True
            self._all: Any = re2.compile(f"(?m:{pattern})".encode(), options)
        except re2.error as error:
            said = error.args[0] if error.args else error
            raise ValueError(said.decode() if isinstance(said, bytes) else str(said)) from None
        size = self._all.programsize
        self._sees_ends_of_text = _ENDS_OF_TEXT.search(pattern) is not None
        if size > MOST_INSTRUCTIONS:
            raise ValueError(f"the pattern has {size} instructions, {MOST_INSTRUCTIONS} are allowed: repeat less")
        #: `find` is to get no more at once, so that it has an end soon.
        self.most_of_line = min(MOST_OF_LINE, _MOST_STEPS // size)

    def find(self, text: str) -> Iterator[Match]:
        """Yield the lines of a text that have hits, in their order."""
        raw = text.encode("utf-8", "replace")
        return _in_characters(raw, self._lines(raw))

    def _lines(self, raw: bytes) -> Iterator[Match]:
        place = 0
        while place < len(raw) and (start := self._candidate(raw, place)) is not None:
            end = raw.find(b"\n", start)
            end = len(raw) if end < 0 else end
            spans = (found.span() for found in islice(self._one.finditer(raw[start:end]), MOST_LOOKS))
            if places := list(islice((span for span in spans if span[0] < span[1]), MOST_PLACES)):
                yield Match(start, end, places)
            place = end + 1

    def _candidate(self, raw: bytes, place: int) -> int | None:
        """Return where the next line that may match begins; the place is a line's beginning."""
        if self._sees_ends_of_text:
            return place
        candidate = self._all.search(raw, place)
        return None if candidate is None else raw.rfind(b"\n", 0, candidate.start()) + 1


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


def _find(text: Text, wanted: Text, newline: Text) -> Iterator[Match]:
    """Yield the lines of a text, or of its bytes, that have what is wanted."""
    place = text.find(wanted)
    while place >= 0:
        start, end = text.rfind(newline, 0, place) + 1, text.find(newline, place)
        end = len(text) if end < 0 else end
        places = list[tuple[int, int]]()
        while 0 <= place < end and len(places) < MOST_PLACES:
            places.append((place - start, place - start + len(wanted)))
            place = text.find(wanted, place + len(wanted), end)
        yield Match(start, end, places)
        place = text.find(wanted, end)


def _in_characters(raw: bytes, matches: Iterator[Match]) -> Iterator[Match]:
    """Yield matches in the bytes of a text as matches in the text."""
    seen = characters = 0
    for start, end, places in matches:
        characters += _length(raw[seen:start])
        line, seen = raw[start:end], start
        if not line.isascii():
            places = [(_length(line[:first]), _length(line[:last])) for first, last in places]  # noqa: PLW2901
        yield Match(characters, characters + _length(line), places)


def _length(raw: bytes) -> int:
    return len(raw.decode("utf-8", "surrogatepass"))
