"""Many jobs and long logs: sealed, verified and copied, at what rates and in how much memory.

Each step is the program itself, in a process of its own, on a tenth of the jobs and on all of them: memory that is the
same for both is constant. `python -m benchmarks.history`; a small form takes `--jobs 100 --lines 20000`.
"""

import argparse
import asyncio
import subprocess
import sys
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager

from benchmarks.progress import show_progress
from benchmarks.servers import running, server_binaries
from benchmarks.table import align
from benchmarks.texts import generated_lines
from ci_common.models import Job, JobEvent
from ci_eventstore import RedisJobRepository

#: In one event of all jobs but the last one, which has an event for each line.
LINES_IN_EVENT = 100
KNOWN_LINES = 10_000
BATCH = 1000
Row = tuple[str, ...]
#: A process begins with its parent's memory as its peak: this small one starts the program, and says what that took.
STARTER = """
import os, sys
_, status, usage = os.wait4(os.spawnv(os.P_NOWAIT, sys.argv[1], sys.argv[1:]), 0)
print("\\n", usage.ru_utime + usage.ru_stime, usage.ru_maxrss)
sys.exit(os.waitstatus_to_exitcode(status))
"""


async def fill(url: str, jobs: int, lines: int, events: int, known_lines: int = KNOWN_LINES) -> None:
    """Create jobs that have ended: so many with all these lines among them, and one with an event for each line.

    The fewer lines differ, the sooner logs are sealed.
    """
    known = [f"{line}\n" for line in generated_lines(known_lines)]
    pieces = [JobEvent("log", "".join(known[at : at + LINES_IN_EVENT])) for at in range(0, known_lines, LINES_IN_EVENT)]
    async with RedisJobRepository.from_url(url, max_head_bytes=2**40) as repository:
        count = lines // jobs // LINES_IN_EVENT
        for number in range(jobs):
            first = number % len(pieces)
            log = [pieces[(first + place) % len(pieces)] for place in range(count)]
            await _ended(repository, f"job-{number}", log)
        singles = [JobEvent("log", line) for line in known]
        if events:
            await _ended(repository, "long", [singles[place % known_lines] for place in range(events)])


async def _ended(repository: RedisJobRepository, job_id: str, log: list[JobEvent]) -> None:
    await repository.create_job(Job(id=job_id, status="running", user_id="ada"))
    for start in range(0, len(log), BATCH):
        await repository.add_events(job_id, log[start : start + BATCH])
    await repository.add_event(job_id, JobEvent("complete", success=True))


def step(name: str, lines: int, *arguments: str) -> Row:
    """Run the program, and return a row: lines in a second, lines in a second of its CPU, its peak of memory."""
    show_progress(f"{name}: {lines:,} lines")
    begun = time.perf_counter()
    command = [sys.executable, "-S", "-c", STARTER, sys.executable, "-m", "ci_eventstore.cli", *arguments]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    if process.returncode:
        raise SystemExit(f"{' '.join(arguments)} exited with {process.returncode}: {process.stderr}")
    seconds, (cpu, peak) = time.perf_counter() - begun, map(float, process.stdout.splitlines()[-1].split())
    return name, f"{lines:,}", f"{lines / seconds:,.0f}", f"{lines / cpu:,.0f}", f"{peak / 1024:.0f}"


@contextmanager
def two_servers() -> Iterator[tuple[str, str]]:
    """Run two new servers, and yield their URLs."""
    binary = server_binaries()[0]
    with (
        running(binary, "append-only file off", tcp=False) as source,
        running(binary, "append-only file off", tcp=False) as target,
    ):
        yield source, target


#: What is done with a store, in this order: the arguments of the program, in which {source} and {target} are URLs.
STEPS = {
    "seal": "seal --once --after 0s --url {source}",
    "verify": "verify --url {source}",
    "verify --deep": "verify --deep --url {source}",
    "copy": "copy --from {source} --to {target} --partitions 4",
    "copy again": "copy --from {source} --to {target}",
}


def steps(
    jobs: int, lines: int, events: int, taken: Collection[str] = tuple(STEPS), known_lines: int = KNOWN_LINES
) -> list[Row]:
    """Fill a store, and return the rows of what is done with it."""
    with two_servers() as (source, target):
        show_progress(f"filling a store with {jobs:,} jobs and {lines:,} lines")
        asyncio.run(fill(source, jobs, lines, events, known_lines))
        return [
            step(name, lines + events, *arguments.format(source=source, target=target).split())
            for name, arguments in STEPS.items()
            if name in taken
        ]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.history", description=__doc__)
    parser.add_argument("--jobs", type=int, default=10_000, metavar="N", help="jobs")
    parser.add_argument("--lines", type=int, default=10_000_000, metavar="N", help="lines of all of them together")
    parser.add_argument("--events", type=int, default=1_000_000, metavar="N", help="lines of one more, an event each")
    options = parser.parse_args(arguments)
    rows: list[Row] = [("step", "lines", "lines/s", "lines/s of CPU", "peak, MB")]
    for part in (10, 1):
        rows += steps(options.jobs // part, options.lines // part, options.events // part)
    for line in align(rows, right=(1, 2, 3, 4)):
        print(line)


if __name__ == "__main__":
    main()
