"""What a small sealed job takes at the server, and how fast logs are sealed: `python -m benchmarks.sealed`."""

import argparse
import asyncio
import random
import re
import resource
import secrets
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.progress import show_progress
from benchmarks.servers import running, server_binaries
from benchmarks.table import align
from benchmarks.texts import generated_lines, real_lines
from ci_common.models import Job, JobEvent
from ci_eventstore import RedisJobRepository
from ci_eventstore.connection.replies import as_info
from ci_eventstore.events.sealed_log import references_in
from ci_eventstore.history.archiving import archive_job
from ci_eventstore.history.seal import seal
from ci_eventstore.history.sealer import Sealer
from tests import claims

LINES = 30
TEXT_BYTES = 1200
TOGETHER = 50
Row = tuple[str, str, str]
#: By what their keys' names begin with.
KINDS = ("segment", "job:", "ids", "jobs:", "owned:", "ended", "calls", "events", "unsealed")


def known_lines(count: int) -> Sequence[str]:
    """Return up to so many lines of a run of Python's own tests, or generated ones."""
    return real_lines(count) or generated_lines(count)


def small_logs(count: int, known: Sequence[str]) -> Iterator[list[JobEvent]]:
    """Yield logs of thirty of these lines, each in three events."""
    choose = random.Random(7)
    for _ in range(count):
        start = choose.randrange(len(known) - LINES)
        lines = [f"{line[: TEXT_BYTES // LINES - 1]}\n" for line in known[start : start + LINES]]
        yield [JobEvent("log", "".join(lines[place : place + 10])) for place in range(0, LINES, 10)]


async def fill(repository: RedisJobRepository, count: int, known: Sequence[str]) -> int:
    """Have controllers run that many jobs of one user, and return how much text they printed."""
    logs, text = small_logs(count, known), 0
    for _ in range(0, count, TOGETHER):
        for _ in range(TOGETHER):
            job = Job(id=secrets.token_hex(8), status="queued", user_id="ada", name="build", command=["make", "test"])
            await repository.create_job(job)
        taken = await claims.claim(repository, "default", "runner-1", TOGETHER, 30)
        for claimed in taken:
            log = next(logs)
            text += sum(len(event.data or "") for event in log)
            writer = repository.writer(claimed.job.id, claimed.claim)
            for event in log:
                await writer.append([event])
            await writer.append([JobEvent("complete", success=True)])
    return text


async def memory(repository: RedisJobRepository) -> int:
    """Return what the server's data takes: its memory, without what it keeps for connections, which comes and goes."""
    nodes = repository.engine.nodes
    used = int(as_info(await nodes.read("INFO", "memory"))["used_memory"])
    return used - sum(map(int, re.findall(rb"tot-mem=(\d+)", await nodes.read("CLIENT", "LIST"))))


async def parts(repository: RedisJobRepository, count: int) -> list[tuple[str, float]]:
    """Return what each kind of key takes of one job: what the server's memory shrinks by when they are deleted."""
    nodes, found = repository.engine.nodes, []
    for kind in KINDS:
        before = await memory(repository)
        pages = [page async for page in nodes.scan(f"{{{repository.engine.keys.prefix}:0}}:{kind}*")]
        for page in pages:
            if page:
                await nodes.read("DEL", *page)
        found.append((kind, (before - await memory(repository)) / count))
    return found


async def record_size(repository: RedisJobRepository) -> float:
    """Return what `MEMORY USAGE` says of a record with its key, on average."""
    engine = repository.engine
    records = [engine.keys.job(job.id).hash for job in await repository.list_jobs()]
    return statistics.mean([int(await engine.nodes.read("MEMORY", "USAGE", record)) for record in records])


async def small_jobs(binary: Path, count: int, known: Sequence[str], archive: str = "") -> list[Row]:
    """Fill a store with small jobs, seal them, perhaps archive them, and return rows of what that takes."""
    show_progress(f"{binary.name}: {count:,} small jobs, {'archived' if archive else 'sealed'}")
    with running(binary, "append-only file off", tcp=False) as url:
        async with RedisJobRepository.from_url(url) as repository:
            nodes = repository.engine.nodes
            # Its histogram of a command's times, some 25 KB, would count where the command is sent for the first time.
            await nodes.read("CONFIG", "SET", "lazyfree-lazy-user-del", "no", "latency-tracking", "no")
            text = await fill(repository, count, known)
            live = await memory(repository)
            engine, begun = repository.engine, time.process_time()
            sweep = await Sealer(engine.nodes, engine.reader.source, engine.keys).sweep(0)
            assert sweep.done == count, sweep
            seconds = time.process_time() - begun
            if archive:
                await archive_all(repository, archive)
            sealed, record = await memory(repository), await record_size(repository)
            rows = await parts(repository, count)
            await nodes.read("FLUSHALL", "SYNC")
            empty = await memory(repository)
    server, how = binary.name, "archived" if archive else "sealed"
    found: list[Row] = [
        (server, f"{how}, with calls", f"{(sealed - empty) / count:.0f}"),
        *((server, f"{how}: {kind}", f"{size:.0f}") for kind, size in rows if size >= 1),
        (server, f"{how}, calls aside", f"{sum(size for kind, size in rows if kind != 'calls'):.0f}"),
        (server, f"{how}: record, MEMORY USAGE", f"{record:.0f}"),
    ]
    if archive:
        return found
    return [
        (server, "text", f"{text / count:.0f}"),
        (server, "live, with calls", f"{(live - empty) / count:.0f}"),
        *found,
        (server, "CPU of the sealer, µs a job", f"{1e6 * seconds / count:.0f}"),
    ]


async def archive_all(repository: RedisJobRepository, folder: str) -> None:
    """Move the segments of all jobs to an archive in a folder."""
    engine = repository.engine
    source = engine.reader.source
    archive = await source.sealed.archived.remember(engine.keys, Path(folder).as_uri())
    for job in await repository.list_jobs():
        await archive_job(engine.nodes, source, archive, engine.keys.job(job.id))


async def segment_bytes(repository: RedisJobRepository, job_id: str) -> int:
    """Return how many bytes the segments of a sealed job have."""
    engine = repository.engine
    log = await engine.nodes.read("HGET", engine.keys.job(job_id).hash, "log")
    return sum(reference.size for reference in references_in(job_id, log.decode()))


async def long_job(binary: Path, lines: int) -> list[Row]:
    """Seal one job of many one-line events, and return rows of what that takes."""
    show_progress(f"a job of {lines:,} lines")
    with running(binary, "append-only file off", tcp=False) as url:
        async with RedisJobRepository.from_url(url, max_head_bytes=2**40) as repository:
            await repository.create_job(Job(id="long", status="running"))
            text, some = 0, [f"{line}\n" for line in generated_lines(10_000)]
            for start in range(0, lines, 1000):
                part = some[start % 10_000 : start % 10_000 + 1000]
                text += sum(map(len, part))
                await repository.add_events("long", [JobEvent("log", line) for line in part])
            await repository.add_event("long", JobEvent("complete", success=True))
            live, engine = await memory(repository), repository.engine
            before, begun = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
            await seal(engine.nodes, engine.reader.source, engine.keys, "long")
            seconds = time.process_time() - begun
            grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
            size = await segment_bytes(repository, "long")
            begun = time.process_time()
            assert await repository.verify("long", deep=True) == []
            deep = time.process_time() - begun
    server = binary.name
    return [
        (server, f"{lines:,} lines: text, MB", f"{text / 1e6:.1f}"),
        (server, "live, MB", f"{live / 1e6:.1f}"),
        (server, "segments, MB", f"{size / 1e6:.1f}"),
        (server, "segments by text", f"{size / text:.3f}"),
        (server, "sealed, lines in a second of CPU", f"{lines / seconds:,.0f}"),
        (server, "verified deep, lines in a second of CPU", f"{lines / deep:,.0f}"),
        (server, "the sealer's memory grew by, MB", f"{grown / 1024:.0f}"),
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sealed", description=__doc__)
    parser.add_argument("--jobs", type=int, default=10_000, metavar="N", help="small jobs")
    parser.add_argument("--lines", type=int, default=1_000_000, metavar="N", help="lines of the long job; 0 for none")
    options = parser.parse_args(arguments)
    rows: list[Row] = [("server", "", "bytes, unless it says otherwise")]
    known = known_lines(20_000)
    for binary in server_binaries():
        rows += asyncio.run(small_jobs(binary, options.jobs, known))
        with tempfile.TemporaryDirectory() as folder:
            rows += asyncio.run(small_jobs(binary, options.jobs, known, folder))
    if options.lines:
        rows += asyncio.run(long_job(server_binaries()[0], options.lines))
    for line in align(rows, right=(2,)):
        print(line)


if __name__ == "__main__":
    main()
