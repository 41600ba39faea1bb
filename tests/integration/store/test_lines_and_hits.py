"""Lines, and what a search finds in them, are the same wherever a log lies, however it is read and however it came."""

import random
import subprocess
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import islice, pairwise
from pathlib import Path

import pytest

from ci_common.models import Job, JobEvent
from ci_eventstore.history.seal import Sealed
from ci_eventstore.lines import passages
from ci_eventstore.lines.line_reader import Log, Wanted
from ci_eventstore.lines.matching import Matcher, matcher_of, utf16_places
from ci_eventstore.lines.passages import PassageReader
from ci_eventstore.lines.plain import plain_line
from ci_eventstore.lines.search import Ended, Hit, Query, search
from ci_eventstore.repository import RedisJobRepository
from tests.examples import slow
from tests.integration.store.sealing import NOW, archive_sealed, seal_job
from tests.servers import RealServer

ROOT = Path(__file__).parents[3]
#: It prints some hundred lines, in colours.
REAL_COMMAND = [sys.executable, "-m", "pytest", "-v", "--color=yes", "-p", "no:cacheprovider"]
REAL_COMMAND += ["--hypothesis-profile=quick", "tests/unit/common", "tests/unit/lines/test_plain.py"]
QUERIES = 12
#: Of more lines, searches in many small steps take too long.
MANY_LINES = 200
#: What is written at once: the sparse index gets an entry after every other of these.
TOGETHER = 700
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

Check = Callable[[RedisJobRepository, str, Sequence[JobEvent], random.Random], Awaitable[None]]


@dataclass(frozen=True)
class Line:
    """A line of a log: its bytes, and what a terminal shows of it."""

    number: int
    data: bytes
    text: str
    time: datetime


def random_log(choose: random.Random, most: int) -> list[JobEvent]:
    """Return events whose texts end anywhere, in a line of many of them or in a few."""
    count, pieces = choose.choice([1, 10, most]), PIECES + ["\n"] * choose.choice([0, 0, 10])
    ends = [0, *sorted(choose.sample(range(count), min(count, 4))), count]
    texts = list[str]()
    for first, last in pairwise(ends):
        # Some of the log is one line.
        some = [piece for piece in pieces if "\n" not in piece] if choose.random() < 0.3 else pieces
        texts += ["".join(choose.choices(some, k=choose.randrange(12))) for _ in range(first, last)]
    return [JobEvent("log", text, timestamp=NOW + timedelta(seconds=place)) for place, text in enumerate(texts)]


@pytest.fixture(scope="session")
def real_log() -> list[JobEvent]:
    """What a real job has printed, in pieces that end anywhere, so many that there is a sparse index."""
    # Debian's Python comes without its own tests; these are there wherever this one is.
    text = subprocess.run(REAL_COMMAND, capture_output=True, check=False, text=True, cwd=ROOT).stdout
    assert text.count("\n") > 100
    choose = random.Random(text)
    ends = [0, *sorted(choose.sample(range(len(text)), 3 * TOGETHER)), len(text)]
    return [
        JobEvent("log", text[first:end], timestamp=NOW + timedelta(seconds=place))
        for place, (first, end) in enumerate(pairwise(ends))
    ]


def lines_of(events: Sequence[JobEvent]) -> list[Line]:
    """Return what the lines of a log are: each has the time of the text that it begins with."""
    whole = "".join(event.data or "" for event in events)
    times = [event.timestamp or NOW for event in events for _ in event.data or ""]
    found, begin = list[Line](), 0
    for number, text in enumerate(whole.split("\n"), 1):
        if begin < len(whole):
            found.append(
                Line(number, text.encode(errors="surrogateescape"), plain_line(text.removesuffix("\r")), times[begin])
            )
        begin += len(text) + 1
    return found


def starts_of(events: Sequence[JobEvent]) -> list[tuple[datetime, int]]:
    """Return when each text came, and in which line it begins."""
    found, line = list[tuple[datetime, int]](), 1
    for event in events:
        if event.data:
            found.append((event.timestamp or NOW, line))
            line += event.data.count("\n")
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
    engine, hits, log = repository.engine, list[Hit](), await log_of(repository, job_id)
    while True:
        ended = None
        async with aclosing(search(PassageReader(engine.reader, engine.lines), log, query)) as messages:
            async for message in messages:
                if isinstance(message, Hit):
                    hits.append(message)
                elif isinstance(message, Ended):
                    ended = message
        assert ended is not None
        if ended.next is None or query.context:
            return hits
        query = replace(query, last=ended.next) if query.is_reverse else replace(query, first=ended.next)


def random_query(choose: random.Random, lines: int) -> Query:
    """Return what somebody may search for."""
    wanted, mode = choose.choice(WANTED)
    matcher = matcher_of(wanted, mode, has_case=choose.random() < 0.5)
    first = choose.choice([1, choose.randrange(1, lines + 2), max(1, lines - 3)])
    last = choose.choice([None, choose.randrange(first, lines + 3)])
    limit = choose.choice([1, 3, 10_000] if lines < MANY_LINES else [MANY_LINES, 10_000])
    is_reverse = choose.random() < 0.4
    context = 0 if is_reverse else choose.choice([0, 0, 1, 3])
    return Query(matcher, first, last, limit, context, is_reverse)


async def log_of(repository: RedisJobRepository, job_id: str) -> Log:
    """Return a job's log as it is now."""
    engine = repository.engine
    keys = engine.keys.job(job_id)
    return Log(keys, await engine.reader.extent(keys), await repository.incarnation(job_id))


async def check_hits(
    repository: RedisJobRepository, job_id: str, events: Sequence[JobEvent], choose: random.Random
) -> None:
    """Compare what searches find, in one or many, in passages of any size."""
    lines = lines_of(events)
    for _ in range(QUERIES):
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(passages, "PART_CHARACTERS", choose.choice([1, 20, 1000]))
            patched.setattr(passages, "READ_EVENTS", choose.choice([1, 7, 2000]) if len(lines) < MANY_LINES else 2000)
            query = random_query(choose, len(lines))
            assert await found(repository, job_id, query) == expected(lines, query.matcher, query)


async def check_lines(
    repository: RedisJobRepository, job_id: str, events: Sequence[JobEvent], choose: random.Random
) -> None:
    """Compare lines from a number on and from the end, lines by their times and their bytes."""
    lines, starts = lines_of(events), starts_of(events)
    reader, log, total = repository.engine.lines, await log_of(repository, job_id), len(lines)
    whole = b"".join(line.data + b"\n" for line in lines)
    for _ in range(QUERIES):
        first, wanted = (
            choose.randrange(1, total + 3),
            Wanted(choose.choice([1, 3, 2000]), choose.choice([0, 7, 10**6])),
        )
        cut = [(line.number, line.time, line.data[: wanted.max_line], len(line.data)) for line in lines]
        found = await reader.from_line(log, first, wanted)
        assert [(one.n, one.time, bytes(one.data), one.size) for one in found] == cut[first - 1 :][: wanted.count]
        found = await reader.last(log, total, wanted)
        assert [(one.n, one.time, bytes(one.data), one.size) for one in found] == cut[-wanted.count :]
        time = NOW + timedelta(seconds=choose.randrange(-1, log.extent.position + 2))
        begun = (line for start, line in starts if start >= time)
        assert await reader.line_at(log, time, total) == next(begun, max(total, 1))
        begin, end = sorted(choose.choices(range(log.extent.bytes + 1), k=2))
        assert await reader.between(log, begin, end) == whole[begin:end]
        before = sum(len(line.data) + 1 for line in lines[: first - 1])
        span = (before, before + len(lines[first - 1].data)) if first <= total else None
        assert await reader.span(log, first) == span


@pytest.mark.usefixtures("small_segments")
@pytest.mark.parametrize("check", [check_hits, check_lines])
@pytest.mark.parametrize(("logs", "most"), [(1, 60), slow(2, 4000)])
async def test_a_log_reads_the_same_wherever_it_lies(
    own: RealServer, tmp_path: Path, seed: int, check: Check, logs: int, most: int
) -> None:
    """Live, ended, sealed and archived."""
    choose = random.Random(seed)
    async with RedisJobRepository.from_url(own.url) as repository:
        for job_id in map("j{}".format, range(logs)):
            await check_wherever_it_lies(repository, tmp_path, job_id, random_log(choose, most), check, choose)


@pytest.mark.slow(reason="runs a program that prints a log")
@pytest.mark.usefixtures("small_segments")
@pytest.mark.parametrize("check", [check_hits, check_lines])
async def test_a_real_log_reads_the_same_wherever_it_lies(
    own: RealServer, tmp_path: Path, seed: int, check: Check, real_log: list[JobEvent]
) -> None:
    """What a test run prints on a terminal."""
    async with RedisJobRepository.from_url(own.url) as repository:
        await check_wherever_it_lies(repository, tmp_path, "j", real_log, check, random.Random(seed))


async def check_wherever_it_lies(
    repository: RedisJobRepository,
    folder: Path,
    job_id: str,
    events: Sequence[JobEvent],
    check: Check,
    choose: random.Random,
) -> None:
    """Check a log that is live, ended, sealed and archived."""
    await repository.create_job(Job(id=job_id, status="running"))
    for start in range(0, len(events), TOGETHER):
        await repository.add_events(job_id, events[start : start + TOGETHER])
    await check(repository, job_id, events, choose)
    await repository.complete_job(job_id, True, NOW + timedelta(hours=1))
    await check(repository, job_id, events, choose)
    assert await seal_job(repository, job_id) is Sealed.SEALED
    await check(repository, job_id, events, choose)
    await archive_sealed(repository, folder, job_id)
    await check(repository, job_id, events, choose)
