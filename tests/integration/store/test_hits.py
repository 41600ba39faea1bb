"""What a search finds is the same wherever a log lies, however it is read, and however its text came."""

import random
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import islice
from pathlib import Path

import pytest

from ci_common.models import Job, JobEvent
from ci_eventstore.history.seal import Sealed
from ci_eventstore.lines import passages
from ci_eventstore.lines.line_reader import Log
from ci_eventstore.lines.matching import Matcher, matcher_of, utf16_places
from ci_eventstore.lines.passages import PassageReader
from ci_eventstore.lines.plain import plain_line
from ci_eventstore.lines.search import Ended, Hit, Query, search
from ci_eventstore.repository import RedisJobRepository
from tests.examples import slow
from tests.integration.store.sealing import NOW, archive_sealed, seal_job
from tests.servers import RealServer

QUERIES = 12
#: What texts are made of: letters of one byte and of more, escapes, what moves the cursor, and ends of lines.
PIECES = [
    "a",
    "b",
    "ab",
    "Ä",
    "😀",
    " ",
    "\t",
    "\x1b[31m",
    "\x1b[0m",
    "\r",
    "\b",
    "\x1b[K",
    "\udcff",
    "\n",
    "\n",
    "\r\n",
    "a" * 50,
]
WANTED = [("a", "text"), ("ab", "text"), ("ä", "text"), ("😀", "text"), ("b a", "text")]
WANTED += [(pattern, "regex") for pattern in ("a+b", "^a", "b$", r"\Aa", r"a\z", "[^b]a", r"\s", "😀|b", ".")]


@dataclass(frozen=True)
class Line:
    """A line of a log, as a terminal shows it."""

    number: int
    text: str
    time: datetime


def random_log(choose: random.Random) -> list[JobEvent]:
    """Return events whose texts end anywhere."""
    count = choose.choice([1, 10, 60])
    texts = ["".join(choose.choices(PIECES, k=choose.randrange(12))) for _ in range(count)]
    return [JobEvent("log", text, timestamp=NOW + timedelta(seconds=place)) for place, text in enumerate(texts)]


def lines_of(events: Sequence[JobEvent]) -> list[Line]:
    """Return what the lines of a log are: each has the time of the text that it begins with."""
    whole = "".join(event.data or "" for event in events)
    times = [event.timestamp for event in events for _ in event.data or ""]
    found, begin = list[Line](), 0
    for number, text in enumerate(whole.split("\n"), 1):
        if begin < len(whole):
            found.append(Line(number, plain_line(text.removesuffix("\r")), times[begin]))
        begin += len(text) + 1
    return found


def expected(lines: Sequence[Line], matcher: Matcher, query: Query) -> list[Hit]:
    """Return what a search finds that looks at line after line; one with lines around hits up to its limit."""
    found = dict[int, Hit]()
    last = len(lines) if query.last is None else query.last
    for line in lines[query.first - 1 : last]:
        for match in matcher.find(line.text):
            found[line.number] = Hit(line.number, line.time, line.text, utf16_places(line.text, match.places))
    if query.is_reverse:
        return list(reversed(found.values()))
    if query.context:
        found = dict(islice(found.items(), query.limit))
    near = {number + step for number in found for step in range(-query.context, query.context + 1)}
    return [
        found.get(line.number, Hit(line.number, line.time, line.text, None))
        for line in lines[query.first - 1 : last]
        if line.number in near or line.number in found
    ]


async def found(repository: RedisJobRepository, job_id: str, query: Query) -> list[Hit]:
    """Return what one search after the other finds, each going on where the last one has ended.

    With lines around hits, only the first: the others would have some of these lines again.
    """
    engine, hits = repository.engine, list[Hit]()
    keys = engine.keys.job(job_id)
    log = Log(keys, await engine.reader.extent(keys), await repository.incarnation(job_id))
    while True:
        async with aclosing(search(PassageReader(engine.reader, engine.lines), log, query)) as messages:
            async for message in messages:
                if isinstance(message, Hit):
                    hits.append(message)
                elif isinstance(message, Ended):
                    ended = message
        if ended.next is None or query.context:
            return hits
        query = replace(query, last=ended.next) if query.is_reverse else replace(query, first=ended.next)


def random_query(choose: random.Random, lines: int) -> Query:
    """Return what somebody may search for."""
    wanted, mode = choose.choice(WANTED)
    matcher = matcher_of(wanted, mode, has_case=choose.random() < 0.5)
    first = choose.choice([1, choose.randrange(1, lines + 2)])
    last = choose.choice([None, choose.randrange(first, lines + 3)])
    limit, is_reverse = choose.choice([1, 3, 10_000]), choose.random() < 0.4
    context = 0 if is_reverse else choose.choice([0, 0, 1, 3])
    return Query(matcher, first, last, limit, context, is_reverse)


@pytest.mark.usefixtures("small_segments")
@pytest.mark.parametrize("logs", [1, slow(10)])
async def test_hits_are_the_same_wherever_a_log_lies(
    own: RealServer, tmp_path: Path, seed: int, logs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Live, ended, sealed and archived; forwards and backwards; in one search or many; in passages of any size."""
    choose = random.Random(seed)
    async with RedisJobRepository.from_url(own.url) as repository:
        for number in range(logs):
            job_id, events = f"j{number}", random_log(choose)
            lines = lines_of(events)
            await repository.create_job(Job(id=job_id, status="running"))
            await repository.add_events(job_id, events)

            async def search_for_all(where: str, job_id: str = job_id, lines: Sequence[Line] = lines) -> None:
                for _ in range(QUERIES):
                    monkeypatch.setattr(passages, "PART_CHARACTERS", choose.choice([1, 20, 1000]))
                    monkeypatch.setattr(passages, "READ_EVENTS", choose.choice([1, 7, 2000]))
                    query = random_query(choose, len(lines))
                    assert await found(repository, job_id, query) == expected(lines, query.matcher, query), where

            await search_for_all("live")
            await repository.complete_job(job_id, True, NOW + timedelta(hours=1))
            await search_for_all("ended")
            assert await seal_job(repository, job_id) is Sealed.SEALED
            await search_for_all("sealed")
            await archive_sealed(repository, tmp_path, job_id)
            await search_for_all("archived")
