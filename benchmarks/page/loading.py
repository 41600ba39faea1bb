"""Jobs that have printed a log, in each form in which a store may have it."""

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from benchmarks.page.logs import Log
from ci_common.models import Job, JobEvent, utc_now
from ci_eventstore import RedisJobRepository

PIECE_BYTES = 65_536
BATCH = 1000
#: A log of ten million lines is longer than what is kept of a log by default.
HEAD_BYTES = 2**40


@dataclass(frozen=True, slots=True)
class Loaded:
    """An ended job with a log."""

    job_id: str
    log: Log
    form: str

    @property
    def title(self) -> str:
        """What tables call it."""
        return f"{self.log.lines:,} lines, {self.log.name}, {self.form}"


def load(url: str, log: Log, form: str) -> Loaded:
    """Make a job with this log: `written` by a `LogWriter`, `sealed` after that, or as `events`, one for each line."""
    job_id = f"{log.path.stem}-{form}"
    asyncio.run(_fill(url, job_id, log.path, by_lines=form == "events"))
    if form == "sealed":
        command = [sys.executable, "-m", "ci_eventstore.cli", "seal", "--once", "--after", "0s", "--url", url]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return Loaded(job_id, log, form)


async def _fill(url: str, job_id: str, path: Path, *, by_lines: bool) -> None:
    async with RedisJobRepository.from_url(url, max_head_bytes=HEAD_BYTES) as repository:
        await repository.create_job(Job(id=job_id, status="running", name=path.stem, start_time=utc_now()))
        if by_lines:
            for batch in _batches(path):
                await repository.add_events(job_id, batch)
        else:
            async with repository.log_writer(job_id) as writer:
                with path.open("rb") as file:
                    while piece := file.read(PIECE_BYTES):
                        await writer.write(piece)
        await repository.complete_job(job_id, True, utc_now())


def _batches(path: Path) -> Iterator[list[JobEvent]]:
    with path.open(encoding="utf-8", errors="surrogateescape", newline="\n") as lines:
        while batch := [JobEvent("log", line) for line in islice(lines, BATCH)]:
            yield batch
