"""Searches of a whole log: hits as they are found, and how far it is."""

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, Iterable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from operator import itemgetter

from ci_eventstore.lines.line_reader import Log
from ci_eventstore.lines.matching import MOST_TEXT, Match, Matcher, utf16_places
from ci_eventstore.lines.passages import Passage, PassageReader
from ci_eventstore.lines.plain import plain_lines
from ci_eventstore.tasks import finish

#: One request searches for so long at most, then says where to go on.
MOST_SECONDS = 20.0
PROGRESS_SECONDS = 0.3


@dataclass(frozen=True, slots=True)
class Query:
    """What is searched for, and where: from one line to another, both included."""

    matcher: Matcher
    first: int
    #: None: the last line.
    last: int | None
    #: Of lines with hits.
    limit: int
    #: How many lines around each come as well.
    context: int = 0
    #: Whether it goes from the last line to the first; without lines around hits.
    is_reverse: bool = False
    #: How many characters of a line come.
    most_text: int = MOST_TEXT
    most_seconds: float = MOST_SECONDS

    def has(self, line: int) -> bool:
        """Return whether a line is one of those that are searched, if there is one of that number."""
        return self.first <= line and (self.last is None or line <= self.last)

    def parts(self, passage: Passage, last: int) -> Iterable[Passage]:
        """Return what of a passage is searched at a time, up to a line, in the search's order."""
        parts = (part for part in passage.parts(self.matcher.most_of_line) if part.first <= last)
        return reversed(list(parts)) if self.is_reverse else parts


@dataclass(frozen=True, slots=True)
class Hit:
    """A line with hits, as a terminal shows it."""

    number: int
    time: datetime
    text: str
    #: In UTF-16 code units; None for a line around one with hits.
    places: list[tuple[int, int]] | None


@dataclass(frozen=True, slots=True)
class Progress:
    """How many lines were searched so far, of how many characters."""

    scanned: int
    read: int


@dataclass(frozen=True, slots=True)
class Ended:
    """The end of a search, or of one request's part of it."""

    scanned: int
    read: int
    hits: int
    #: The line to go on with; None if all was searched.
    next: int | None


async def search(reader: PassageReader, log: Log, query: Query) -> AsyncGenerator[Hit | Progress | Ended]:
    """Search a log; end after the last line, at the limit, or when the time of a request is over."""
    begun = told = time.monotonic()
    surroundings, hits, read, step = Surroundings(query), 0, 0, -1 if query.is_reverse else 1
    begin = _last_line(log, query) if query.is_reverse else query.first
    following = begin
    async with aclosing(_parts(reader, log, query)) as passages:
        async for passage, last in passages:
            for hit in await finish(asyncio.to_thread(surroundings.hits, passage, last, query.limit - hits)):
                yield hit
                if hit.places is not None:
                    hits += 1
                    following = hit.number + step
            now = time.monotonic()
            if hits < query.limit:
                following = max(passage.first, query.first) - 1 if query.is_reverse else _after(passage, last, log)
            read += len(passage.text)
            if (hits >= query.limit and not surroundings.owed) or now - begun > query.most_seconds:
                yield Ended(abs(following - begin), read, hits, following if query.has(following) else None)
                return
            if now - told > PROGRESS_SECONDS:
                told = now
                yield Progress(abs(following - begin), read)
    yield Ended(abs(following - begin), read, hits, None)


def _after(passage: Passage, last: int, log: Log) -> int:
    """Return the line after what was searched; one that still grows will be searched again."""
    is_growing = log.extent.end_position is None
    return min(last + 1, passage.first + passage.line_count - passage.has_open_end) if is_growing else last + 1


def _last_line(log: Log, query: Query) -> int:
    """Return the last line that may be there and is searched."""
    last = log.extent.lines + 1
    return last if query.last is None else min(query.last, last)


async def _parts(reader: PassageReader, log: Log, query: Query) -> AsyncGenerator[tuple[Passage, int]]:
    """Yield what is searched at a time, each with the last line that is."""
    async with aclosing(_passages(reader, log, query)) as passages:
        async for passage, last in passages:
            for part in query.parts(passage, last):
                yield part, min(last, part.first + part.line_count - 1)


async def _passages(reader: PassageReader, log: Log, query: Query) -> AsyncGenerator[tuple[Passage, int]]:
    """Yield what is searched, each with the last line that is."""
    if query.is_reverse:
        async with aclosing(reader.passages_from_end(log, query.first, _last_line(log, query))) as backward:
            async for passage, last in backward:
                yield passage, last
        return
    async with aclosing(reader.passages(log, query.first)) as forward:
        async for passage in forward:
            last = passage.first + passage.line_count - 1
            yield passage, last if query.last is None else min(last, query.last)
            if query.last is not None and last >= query.last:
                return


class Surroundings:
    """Finds hits in passages that follow each other, with the lines around them."""

    def __init__(self, query: Query) -> None:
        self._query = query
        self._before = deque[Hit](maxlen=query.context)
        #: How many lines after the last hit are still to come, if there are as many.
        self.owed = 0

    def hits(self, passage: Passage, last: int, room: int) -> list[Hit]:
        """Return the hits of the next passage up to a line, so many lines of them at most."""
        text, query = plain_lines(passage.text), self._query
        matches = _matches(query.matcher, passage.first, text, last)
        wanted = reversed(deque(matches, room)) if query.is_reverse else islice(matches, room)
        hits = _hits(passage, text, list(wanted), query.most_text)
        if not query.context or query.is_reverse:
            return hits
        return self._with_context(passage, text, hits, last, is_full=len(hits) >= room)

    def _with_context(self, passage: Passage, text: str, hits: list[Hit], last: int, *, is_full: bool) -> list[Hit]:
        by_number, shown, begin = {hit.number: hit for hit in hits}, list[Hit](), 0
        lines = text.removesuffix("\n").split("\n")
        # The lines before are none's.
        skipped = (hits[0].number - passage.first if hits else len(lines)) - self._query.context
        skipped = 0 if self.owed else max(skipped, 0)
        for _ in range(skipped):
            begin = passage.text.index("\n", begin) + 1
        end = last
        if is_full:
            end = hits[-1].number if hits else passage.first - 1
        for number, line in enumerate(lines[skipped : last - passage.first + 1], passage.first + skipped):
            hit = by_number.get(number)
            if hit is not None:
                shown += [*self._before, hit]
                self._before.clear()
                self.owed = self._query.context
            elif number > end and not self.owed:
                break
            else:
                other = Hit(number, passage.time_at(begin), line[: self._query.most_text], None)
                if self.owed:
                    shown.append(other)
                    self.owed -= 1
                else:
                    self._before.append(other)
            begin = passage.text.find("\n", begin) + 1
        return shown


def _matches(matcher: Matcher, first: int, text: str, last: int) -> Iterator[tuple[int, Match]]:
    """Yield what matches in lines up to one, with the lines' numbers."""
    number, counted = first, 0
    for match in matcher.find(text):
        number, counted = number + text.count("\n", counted, match.start), match.start
        if number > last:
            return
        yield number, match


def _hits(passage: Passage, text: str, matches: Sequence[tuple[int, Match]], most_text: int) -> list[Hit]:
    """Return hits of a passage in its plain text."""
    found, number, begin = dict[int, Hit](), passage.first, 0
    for line, match in sorted(matches, key=itemgetter(0)):
        if text is passage.text:
            begin = match.start
        else:
            for _ in range(line - number):
                begin = passage.text.index("\n", begin) + 1
        number = line
        shown = text[match.start : match.end]
        places = [place for place in match.places if place[1] <= most_text] or match.places[:1]
        found[line] = Hit(line, passage.time_at(begin), shown[:most_text], utf16_places(shown, places))
    return [found[line] for line, _ in matches]
