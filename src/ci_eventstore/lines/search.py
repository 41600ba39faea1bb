"""Searches of a whole log: hits as they are found, and how far it is."""

import time
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime
from functools import partial

from ci_eventstore.lines.line_reader import Log
from ci_eventstore.lines.matching import MOST_TEXT, Matcher, utf16_places
from ci_eventstore.lines.passages import Passage, PassageReader
from ci_eventstore.lines.plain import plain_lines
from ci_eventstore.lines.threads import in_thread

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
    #: How many characters of a line come.
    most_text: int = MOST_TEXT
    most_seconds: float = MOST_SECONDS


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
    """How many lines were searched so far."""

    scanned: int


@dataclass(frozen=True, slots=True)
class Ended:
    """The end of a search, or of one request's part of it."""

    scanned: int
    hits: int
    #: The line to go on with; None if all was searched.
    next: int | None


async def search(reader: PassageReader, log: Log, query: Query) -> AsyncGenerator[Hit | Progress | Ended]:
    """Search a log; end after the last line, at the limit, or when the time of a request is over."""
    begun = told = time.monotonic()
    hits, following, around = 0, query.first, Surroundings(query)
    async with aclosing(reader.passages(log, query.first)) as passages:
        async for passage in passages:
            if query.last is not None and passage.first > query.last:
                break
            room = query.limit - hits
            for hit in await in_thread(partial(around.hits, passage, room)):
                yield hit
                if hit.places is not None:
                    hits += 1
                    following = hit.number + 1
            if hits >= query.limit:
                yield Ended(following - query.first, hits, following)
                return
            following = passage.first + passage.line_count
            now = time.monotonic()
            if now - begun > query.most_seconds:
                yield Ended(following - query.first, hits, following)
                return
            if now - told > PROGRESS_SECONDS:
                told = now
                yield Progress(following - query.first)
    last = following if query.last is None else min(following, query.last + 1)
    yield Ended(last - query.first, hits, None)


class Surroundings:
    """Finds hits in passages that follow each other, with the lines around them."""

    def __init__(self, query: Query) -> None:
        self._query = query
        self._before = deque[Hit](maxlen=query.context)
        #: How many lines after the last hit are still to come.
        self._owed = 0

    def hits(self, passage: Passage, room: int) -> list[Hit]:
        """Return the hits of the next passage, so many lines of them at most."""
        text = plain_lines(passage.text)
        hits = _hits(passage, text, self._query, room)
        return self._with_context(passage, text, hits, room) if self._query.context else hits

    def _with_context(self, passage: Passage, text: str, hits: list[Hit], room: int) -> list[Hit]:
        by_number, shown, begin = {hit.number: hit for hit in hits}, list[Hit](), 0
        last = hits[-1].number if len(hits) >= room else self._query.last
        lines = text.removesuffix("\n").split("\n")
        # The lines before are none's.
        skipped = (hits[0].number - passage.first if hits else len(lines)) - self._query.context
        skipped = 0 if self._owed else max(skipped, 0)
        for _ in range(skipped):
            begin = passage.text.index("\n", begin) + 1
        for number, line in enumerate(lines[skipped:], passage.first + skipped):
            hit = by_number.get(number)
            if hit is not None:
                shown += [*self._before, hit]
                self._before.clear()
                self._owed = self._query.context
            elif last is not None and number > last and not self._owed:
                break
            else:
                other = Hit(number, passage.time_at(begin), line[: self._query.most_text], None)
                if self._owed:
                    shown.append(other)
                    self._owed -= 1
                else:
                    self._before.append(other)
            begin = passage.text.find("\n", begin) + 1
        return shown


def _hits(passage: Passage, text: str, query: Query, room: int) -> list[Hit]:
    """Return the hits of a passage in its plain text, so many lines of them at most."""
    is_same = text == passage.text
    found, number, counted, begin = list[Hit](), passage.first, 0, 0
    for match in query.matcher.find(text):
        lines = text.count("\n", counted, match.start)
        number, counted = number + lines, match.start
        if query.last is not None and number > query.last:
            break
        if is_same:
            begin = match.start
        else:
            for _ in range(lines):
                begin = passage.text.index("\n", begin) + 1
        line = text[match.start : match.end]
        places = [place for place in match.places if place[1] <= query.most_text] or match.places[:1]
        found.append(Hit(number, passage.time_at(begin), line[: query.most_text], utf16_places(line, places)))
        if len(found) >= room:
            break
    return found
