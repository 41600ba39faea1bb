"""Find the spellings of many secrets in a text, in a time that grows with the text alone. Pure."""

import re
from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Iterable, Sequence

from ci_eventstore.writer.known_words import KnownWords, ordinary

#: Longer spellings are looked for in parts of this many bytes, each of which overlaps the next one.
PART_BYTES = 4096
#: A spelling's words are among its first bytes, this many where they are those with a capital letter.
_CAPITAL_BYTES = 31
#: Parts of a spelling begin with lines if these are at most this long.
_LINE_BYTES = 80
#: So many spellings of any length may be found by words of 4 bytes, since a text is looked through for these anyway.
_MOST_BY_SHORT_WORDS = 256
#: Where a text repeats itself within this many bytes, whole runs of it are looked at, not each place.
_LONGEST_PERIOD = 512
_SHORTEST_RUN = 64
#: This many bytes that come again are taken for the beginning of a run.
_ALIKE_BYTES = 16

#: Capital letters become A, all else a blank.
_CAPITALS = bytes(ord("A" if ord("A") <= byte <= ord("Z") else " ") for byte in range(256))

Span = tuple[int, int]
Starts = Callable[[int], int | None]


class SecretIndex:
    """Spellings to be found: by aligned words of the text, which a set knows, and then by comparison."""

    def __init__(self) -> None:
        self._capitals, self._words, self._short_words, self._short = _Capitals(), _Words(8), _Words(4), _Short()
        #: Which bytes are among those by which spellings are found; most chunks end with a line, and few of these do.
        self._first_bytes = set[int]()
        self._tiers = (self._capitals, self._words, self._short_words, self._short)

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to be found."""
        return not any(self._tiers)

    def add(self, spelling: bytes) -> None:
        """Let a spelling be found, of one byte or more."""
        same = ordinary(spelling)
        last = max(0, len(same) - PART_BYTES)
        for first in (*range(0, last, PART_BYTES - 1 - _LINE_BYTES), last):
            # A part begins with a line, as most chunks end with one: then no end of a chunk is taken for a beginning.
            start = same.find(b"\n", first, first + _LINE_BYTES) + 1 if first else 0
            start = start or first
            part = same[start : start + PART_BYTES]
            self._tier_of(part).add(part)
            self._first_bytes.update(part[:_CAPITAL_BYTES])

    def _tier_of(self, part: bytes) -> "_Tier":
        if self._capitals.takes(part):
            return self._capitals
        if self._words.takes(part) and len(self._short_words) >= _MOST_BY_SHORT_WORDS:
            return self._words
        return self._short_words if self._short_words.takes(part) else self._short

    def find(self, text: bytes, *, goes_on: bool) -> tuple[list[Span], int]:
        """Return where spellings are, in any order, and where one may begin that ends after the text, if that goes on.

        Spans that begin there or later may be missing.
        """
        hits = [(tier, tier.hits_in(text)) for tier in self._tiers if tier]
        first = 0
        if not any(places for _, places in hits):
            # No spelling is whole, but the end may be the beginning of one.
            first = max(0, len(text) - _CAPITAL_BYTES)
            if self._first_bytes.isdisjoint(ordinary(text[-1:])):
                return [], len(text)
        same, spans = ordinary(text[first:]), list[Span]()
        pending = [first + tier.find(same, places, spans, goes_on=goes_on) for tier, places in hits]
        return spans, min(pending, default=len(text)) if goes_on else len(text)


class _Tier:
    """Spellings of certain lengths, by the bytes they begin with."""

    #: Returns places in a text by which all whole spellings in it are found: none if there are none.
    hits_in: Callable[[bytes], list[int]]

    def __init__(self, width: int) -> None:
        self._width = width
        #: Sorted. The garbage collector looks at a tuple of bytes once, but at a list each time: 10 ms for 50,000.
        self._spellings: dict[bytes, tuple[bytes, ...]] = {}
        self._beginnings: list[bytes] | None = None

    def __len__(self) -> int:
        return len(self._spellings)

    def add(self, spelling: bytes) -> bool:
        """Let a spelling be found; return whether it is a new one."""
        head = spelling[: self._width]
        known = self._spellings.get(head, ())
        place = bisect_left(known, spelling)
        if known[place : place + 1] == (spelling,):
            return False
        self._spellings[head] = (*known[:place], spelling, *known[place:])
        if self._beginnings is not None and not known:
            # To sort all of them anew would keep a text waiting: 50 ms for 100,000.
            insort(self._beginnings, head)
        return True

    def find(self, text: bytes, hits: list[int], spans: list[Span], *, goes_on: bool) -> int:
        """Add where spellings are; return where one may begin that ends after the text, or the text's end."""
        starts, no_run_before = self._starts(text, hits), 0
        start = starts(0)
        while start is not None:
            following = starts(start + 1)
            if following is not None and following - start <= _LONGEST_PERIOD and start >= no_run_before:
                length, period = _run_at(text, start)
                if length >= _SHORTEST_RUN + 2 * period:
                    done = start + length - max(self._width, period) + 1
                    pending = self._find_in_run(text, start, (start + length, period), spans)
                    if goes_on and pending < done:
                        return pending
                    start = starts(done)
                    continue
                no_run_before = start + length - period
            matched, may_go_on = self._compare(text, start)
            if matched:
                spans.append((start, start + matched))
            if goes_on and may_go_on:
                return start
            start = following
        return self._short_tail(text)

    def _starts(self, text: bytes, hits: list[int]) -> Starts:
        """Return what finds the next head of a spelling at a place or after it, be it complete or at the text's end."""
        raise NotImplementedError

    def _next_in_tail(self, text: bytes, place: int, longest: int) -> int | None:
        """Return where among the last bytes of a text, and not before a place, the head of a spelling stands."""
        for start in range(max(place, len(text) - longest), len(text) - self._width + 1):
            if text[start : start + self._width] in self._spellings:
                return start
        return None

    def _short_tail(self, text: bytes) -> int:
        """Return where the text ends with less than the head of a spelling, or its end."""
        if self._beginnings is None:
            self._beginnings = sorted(self._spellings)
        for length in range(min(self._width - 1, len(text)), 0, -1):
            tail = text[len(text) - length :]
            place = bisect_left(self._beginnings, tail)
            if place < len(self._beginnings) and self._beginnings[place].startswith(tail):
                return len(text) - length
        return len(text)

    def _compare(self, text: bytes, start: int) -> tuple[int, bool]:
        """Return how long the longest spelling is that stands at a place, and whether a longer one may."""
        known = self._spellings[text[start : start + self._width]]
        rest = text[start : start + PART_BYTES + 1]
        place = bisect_right(known, rest)
        may_go_on = place < len(known) and known[place].startswith(rest)
        place -= 1
        while place >= 0:
            if rest.startswith(known[place]):
                return len(known[place]), may_go_on
            # Whatever else the text begins with, it begins with what both have in common.
            place = bisect_right(known, known[place][: _common(known[place], rest)], 0, place) - 1
        return 0, may_go_on

    def _find_in_run(self, text: bytes, start: int, run: tuple[int, int], spans: list[Span]) -> int:
        """Do as `find` for all places in a run, which is at least two periods and `_SHORTEST_RUN` bytes long."""
        (end, period), pending = run, len(text)
        for first in range(start, start + period):
            for spelling in self._spellings.get(text[first : first + self._width], ()):
                length, left = _run_length(spelling, period), end - first
                if not spelling.startswith(text[first : first + min(length, left)]):
                    continue
                if length == len(spelling):
                    fits = left - length
                    if fits >= 0:
                        spans += _occurrences(first, fits, length, period)
                    goes_on = first + (0 if fits < 0 else fits // period + 1) * period
                else:
                    # It leaves the run where the text does, or not at all.
                    exact = end - length
                    if exact >= first and (exact - first) % period == 0 and text.startswith(spelling, exact):
                        spans.append((exact, exact + len(spelling)))
                    elif exact >= first and (exact - first) % period == 0 and spelling.startswith(text[exact:]):
                        pending = min(pending, exact)
                    goes_on = first + max(0, -(-(left - length) // period)) * period
                if end == len(text) and goes_on < end:
                    pending = min(pending, goes_on)
        return pending


class _Words(_Tier):
    """Spellings that have a whole aligned word of a text in their first bytes, wherever they begin in it."""

    def __init__(self, width: int, *, have_capitals: bool = False) -> None:
        super().__init__(width)
        self._known = KnownWords(width, have_capitals=have_capitals)
        self.hits_in = self._known.places_in
        #: Within how many of a spelling's bytes its words are.
        self._longest = _CAPITAL_BYTES if have_capitals else 2 * width - 1

    def takes(self, spelling: bytes) -> bool:
        """Whether it has such a word wherever it begins."""
        return len(spelling) >= 2 * self._width - 1

    def add(self, spelling: bytes) -> bool:
        is_new = super().add(spelling)
        if is_new:
            width = self._width
            self._known.add(b"".join([spelling[offset : offset + width] for offset in self._offsets(spelling)]))
        return is_new

    def _offsets(self, _: bytes) -> Iterable[int]:
        """Return where in a spelling its words are, of which an aligned one is known wherever it begins."""
        return range(self._width)

    def _starts(self, text: bytes, hits: list[int]) -> Starts:
        width, spellings, before = self._width, self._spellings, self._longest - self._width

        def next_start(place: int) -> int | None:
            for number in range(bisect_left(hits, place), len(hits)):
                for start in range(max(place, hits[number] - before), hits[number] + 1):
                    if text[start : start + width] in spellings:
                        return start
                place = hits[number] + 1
            return self._next_in_tail(text, place, self._longest - 1)

        return next_start


class _Capitals(_Words):
    """Spellings that have, wherever they begin, an aligned word with a capital letter in their first bytes.

    Most have: base64 is a third capital letters. In most logs these are rare, so few words of a log are looked up.
    """

    def __init__(self) -> None:
        super().__init__(8, have_capitals=True)

    def takes(self, spelling: bytes) -> bool:
        return len(self._offsets(spelling)) == self._width

    def _offsets(self, spelling: bytes) -> list[int]:
        width, offsets = self._width, list[int]()
        capitals = spelling[:_CAPITAL_BYTES].translate(_CAPITALS)
        for alignment in range(width):
            place = capitals.find(b"A", alignment)
            offset = place - (place - alignment) % width
            if place < 0 or offset + width > len(capitals):
                break
            offsets.append(offset)
        return offsets


class _Short(_Tier):
    """Spellings that are too short for that."""

    def __init__(self) -> None:
        super().__init__(1)
        self._expression: re.Pattern[bytes] | None = None
        self._longest = 0

    def add(self, spelling: bytes) -> bool:
        self._expression = None
        self._longest = max(self._longest, len(spelling))
        return super().add(spelling)

    def hits_in(self, text: bytes) -> list[int]:
        """Return where the first spelling is, if there is one."""
        found = self._search(ordinary(text), 0)
        return [] if found is None else [found.start()]

    @property
    def _search(self) -> Callable[[bytes, int], re.Match[bytes] | None]:
        if self._expression is None:
            self._expression = _expression(self._spellings)
        return self._expression.search

    def _starts(self, text: bytes, _: list[int]) -> Starts:
        search = self._search

        def next_start(place: int) -> int | None:
            found = search(text, place)
            tail = self._next_in_tail(text, place, self._longest - 1)
            if found is None:
                return tail
            return found.start() if tail is None else min(found.start(), tail)

        return next_start


def _expression(spellings: dict[bytes, tuple[bytes, ...]]) -> re.Pattern[bytes]:
    """Return what matches the first byte wherever a spelling begins."""
    alternatives = (
        re.escape(head) + b"(?=" + b"|".join(re.escape(spelling[len(head) :]) for spelling in known) + b")"
        for head, known in spellings.items()
    )
    return re.compile(b"|".join(alternatives), re.DOTALL)


def _run_at(text: bytes, start: int) -> tuple[int, int]:
    """Return for how many bytes the text repeats itself from a place on, and after how many bytes it does."""
    alike = text[start : start + _ALIKE_BYTES]
    period = text.find(alike, start + 1, start + _LONGEST_PERIOD + _ALIKE_BYTES) - start
    return (_run_length(text, period, start), period) if period > 0 else (0, 0)


def _run_length(text: bytes, period: int, start: int = 0) -> int:
    """Return for how many bytes the text repeats itself after every so many."""
    place, size, last = start, _SHORTEST_RUN, len(text) - period
    while place + size <= last and text[place : place + size] == text[place + period : place + period + size]:
        place += size
        size *= 2
    while size:
        if place + size <= last and text[place : place + size] == text[place + period : place + period + size]:
            place += size
        else:
            size //= 2
    return min(place + period, len(text)) - start


def _common(one: bytes, other: bytes) -> int:
    """Return how many bytes two texts begin with alike."""
    length, size = 0, min(len(one), len(other))
    while size:
        if one[length : length + size] == other[length : length + size] and length + size <= min(len(one), len(other)):
            length += size
        else:
            size //= 2
    return length


def _occurrences(first: int, fits: int, length: int, period: int) -> Sequence[Span]:
    """Return the places of what repeats itself in a run: one that joins them where they overlap."""
    if length > period:
        return [(first, first + fits // period * period + length)]
    return [(start, start + length) for start in range(first, first + fits + 1, period)]
