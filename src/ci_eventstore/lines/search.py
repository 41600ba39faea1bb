"""Searches of a whole log: hits as they are found, and how far it is."""

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime

from ci_eventstore.lines.line_reader import Log
from ci_eventstore.lines.matching import MOST_TEXT, Matcher, utf16_places
from ci_eventstore.lines.passages import Passage, PassageReader
from ci_eventstore.lines.plain import plain_lines

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


@dataclass(frozen=True, slots=True)
class Hit:
    """A line with hits, as a terminal shows it."""

    number: int
    time: datetime
    text: str
    #: In UTF-16 code units.
    places: list[tuple[int, int]]


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
    hits, following = 0, query.first
    async with aclosing(reader.passages(log, query.first)) as passages:
        async for passage in passages:
            if query.last is not None and passage.first > query.last:
                break
            room = query.limit - hits
            for hit in await asyncio.to_thread(_hits, passage, query, room):
                yield hit
                hits += 1
                following = hit.number + 1
            if hits >= query.limit:
                yield Ended(following - query.first, hits, following)
                return
            following = passage.first + passage.line_count
            now = time.monotonic()
            if now - begun > MOST_SECONDS:
                yield Ended(following - query.first, hits, following)
                return
            if now - told > PROGRESS_SECONDS:
                told = now
                yield Progress(following - query.first)
    last = following if query.last is None else min(following, query.last + 1)
    yield Ended(last - query.first, hits, None)


def _hits(passage: Passage, query: Query, room: int) -> list[Hit]:
    """Return the hits of a passage, so many lines of them at most."""
    text = plain_lines(passage.text)
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
        places = [place for place in match.places if place[1] <= MOST_TEXT] or match.places[:1]
        found.append(Hit(number, passage.time_at(begin), line[:MOST_TEXT], utf16_places(line, places)))
        if len(found) >= room:
            break
    return found
