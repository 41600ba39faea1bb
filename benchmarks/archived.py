"""Reading an archived log beside the same log live: `python -m benchmarks.archived`.

Any line and the last thousand, cold, as the first reader of a process finds them, and warm; the fetches of a hundred
readers at once beside those of one; and the memory of a server that sends a large log to one client.
"""

import argparse
import asyncio
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Awaitable, Sequence
from pathlib import Path

from benchmarks.progress import show_progress
from benchmarks.servers import running, server_binaries
from benchmarks.table import align
from benchmarks.texts import generated_lines
from ci_common.models import Job, JobEvent
from ci_eventstore import RedisJobRepository
from ci_eventstore.archive import Archive
from ci_eventstore.history.archiving import Moved, archive_job
from ci_eventstore.history.seal import seal

KNOWN_LINES = 10_000
LINES_IN_EVENT = 20
BATCH = 500
LAST_LINES = 1000
READERS = 100
READ_EVENTS = 5000
PLACES = 40
MEBIBYTE = 1024 * 1024
Row = tuple[str, ...]


async def fill(repository: RedisJobRepository, job_id: str, lines: int, known_lines: int = KNOWN_LINES) -> int:
    """Create a job that has ended, with so many lines, of which so many differ; return how many bytes they are."""
    known = [f"{line}\n" for line in generated_lines(known_lines)]
    pieces = ["".join(known[at : at + LINES_IN_EVENT]) for at in range(0, known_lines, LINES_IN_EVENT)]
    await repository.create_job(Job(id=job_id, status="running"))
    size, batch = 0, list[JobEvent]()
    for number in range(lines // LINES_IN_EVENT):
        text = pieces[number % len(pieces)]
        size += len(text)
        batch.append(JobEvent("log", text))
        if len(batch) == BATCH:
            await repository.add_events(job_id, batch)
            batch = []
    await repository.add_events(job_id, [*batch, JobEvent("complete", success=True)])
    return size


async def archive(repository: RedisJobRepository, folder: Path, job_id: str) -> None:
    """Seal a job and move it to the archive in a folder, which the store remembers."""
    engine, store = repository.engine, Archive(folder.as_uri())
    await store.prepare()
    await engine.nodes.read("HSET", engine.keys.store, "archive", store.url)
    await seal(engine.nodes, engine.reader.source, engine.keys, job_id)
    moved = await archive_job(engine.nodes, engine.reader.source, store, engine.keys.job(job_id))
    assert moved is Moved.MOVED, moved


async def read_lines(repository: RedisJobRepository, job_id: str, first: int, count: int) -> None:
    """Read so many lines, from one on, as a page of a log does."""
    after, end = max(0, await repository.position_of_line(job_id, first) - 1), -(-(first + count - 1) // LINES_IN_EVENT)
    while after < end:
        events = await repository.read_events(job_id, after, min(100, end - after))
        after = events[-1].id or 0


async def reading_rows(url: str, folder: Path, lines: int) -> list[Row]:
    """Return rows of how long lines take to be read, live and archived, in turn."""
    choose = random.Random(7)
    numbers = [choose.randrange(1, lines - LAST_LINES) for _ in range(PLACES)]
    ends = [lines - LAST_LINES + 1] * PLACES
    async with RedisJobRepository.from_url(url, max_head_bytes=2**40) as repository:
        await fill(repository, "live", lines)
        await fill(repository, "archived", lines)
        await archive(repository, folder, "archived")
        rows = list[Row]()
        for what, firsts, count in (("any line", numbers, 1), (f"the last {LAST_LINES:,} lines", ends, LAST_LINES)):
            live, cold, warm = list[float](), list[float](), list[float]()
            for first in firsts:
                live.append(await time_of(read_lines(repository, "live", first, count)))
                repository.engine.reader.source.sealed.forget()
                cold.append(await time_of(read_lines(repository, "archived", first, count)))
                warm.append(await time_of(read_lines(repository, "archived", first, count)))
            rows += [
                (what, "live, ms", f"{statistics.median(live):.2f}"),
                (what, "archived, cold, ms", f"{statistics.median(cold):.2f}"),
                (what, "archived, cold, by live (3)", f"{median_ratio(cold, live):.2f}"),
                (what, "archived, warm, by live (3)", f"{median_ratio(warm, live):.2f}"),
            ]
        rows.append(("fetches", f"of one reader, of {READERS} at once", await fetches(repository)))
    return rows


async def time_of(work: Awaitable[None]) -> float:
    """Return how many milliseconds some work takes."""
    begun = time.perf_counter()
    await work
    return 1000 * (time.perf_counter() - begun)


def median_ratio(times: Sequence[float], beside: Sequence[float]) -> float:
    """Return the median of the ratios of times that were taken in turn."""
    return statistics.median(one / other for one, other in zip(times, beside, strict=True))


async def fetches(repository: RedisJobRepository) -> str:
    """Return how often the archive is asked by one reader of a whole log, and by a hundred at once."""
    source, counts = repository.engine.reader.source, []
    asked = source.sealed.archived.fetch
    for readers in (1, READERS):
        wanted = list[object]()

        async def fetch(*arguments: object, wanted: list[object] = wanted) -> bytes:
            wanted.append(arguments)
            return await asked(*arguments)  # type: ignore[arg-type]

        source.sealed.forget()
        source.sealed.archived.fetch = fetch  # type: ignore[method-assign, assignment]
        await asyncio.gather(*(repository.read_events("archived", 0, READ_EVENTS) for _ in range(readers)))
        counts.append(len(wanted))
    return ", ".join(map(str, counts))


async def prepare_large(url: str, folder: Path, mebibytes: int, known_lines: int = KNOWN_LINES) -> None:
    """Make an archived job with a log of so many MiB; the fewer lines of it differ, the sooner it is sealed."""
    async with RedisJobRepository.from_url(url, max_head_bytes=2**40) as repository:
        size = await fill(repository, "sample", known_lines, known_lines)
        await fill(repository, "large", mebibytes * MEBIBYTE * known_lines // size, known_lines)
        await archive(repository, folder, "large")


def serving_rows(url: str) -> list[Row]:
    """Return rows of a server that sends a large archived log: how much, at what rate, with how much memory."""
    command = [sys.executable, "-m", "ci_eventstore.cli", "serve", "--no-auth", "--port", "0", "--url", url]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            assert process.stdout is not None
            line = next(line for line in process.stdout if "http://" in line)
            address = line[line.index("http://") :].split()[0].rstrip("/.,;")
            before, begun, size = peak_of(process.pid), time.perf_counter(), 0
            with urllib.request.urlopen(f"{address}/jobs/large/log") as response:
                while part := response.read(MEBIBYTE):
                    size += len(part)
            seconds, peak = time.perf_counter() - begun, peak_of(process.pid)
        finally:
            process.terminate()
    return [
        ("GET /log", "MiB", f"{size / MEBIBYTE:,.0f}"),
        ("GET /log", "MiB/s", f"{size / MEBIBYTE / seconds:,.1f}"),
        ("GET /log", "the server's peak, MiB (200)", f"{peak:.0f}"),
        ("GET /log", "which it grew by, MiB", f"{peak - before:.0f}"),
    ]


def peak_of(process_id: int) -> float:
    """Return how many MiB of memory a process had at most."""
    status = Path(f"/proc/{process_id}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.archived", description=__doc__)
    parser.add_argument("--lines", type=int, default=1_000_000, metavar="N", help="lines of the log that is read")
    parser.add_argument("--mebibytes", type=int, default=1024, metavar="N", help="of the log that is served")
    options = parser.parse_args(arguments)
    os.environ.pop("CI_EVENTSTORE_URL", None)
    rows: list[Row] = [("what", "measured", "")]
    with running(server_binaries()[0], "append-only file off", tcp=False) as url, tempfile.TemporaryDirectory() as name:
        show_progress(f"reading a log of {options.lines:,} lines, live and archived")
        rows += asyncio.run(reading_rows(url, Path(name), options.lines))
        show_progress(f"serving an archived log of {options.mebibytes:,} MiB")
        asyncio.run(prepare_large(url, Path(name), options.mebibytes))
        rows += serving_rows(url)
    for line in align(rows, right=(2,)):
        print(line)


if __name__ == "__main__":
    main()
