"""Work on a store that stays the same: writers, followers and a controller, of which this process notes nothing.

Arguments: the URL and the prefix. Each line of standard input asks for a measurement, a JSON object: bytes of memory
and what was done so far. After "mark", the next "explain" says which lines of code have more memory than at that time.
The process ends with its input.
"""

import asyncio
import ctypes
import gc
import json
import sys
import threading
import tracemalloc
from collections import Counter
from contextlib import closing, suppress
from pathlib import Path

from ci_common.models import Job, JobEvent
from ci_eventstore.controllers import ClaimedJob, Controller, ControllerSettings
from ci_eventstore.errors import AcknowledgedEventsLostError, OutcomeUnknownError, StoreUnavailableError
from ci_eventstore.following.records import Notice, NoticeType
from ci_eventstore.repository import RedisJobRepository

WRITERS = 3
#: Of these two and of jobs each leaves something in caches that have a limit, so they come seldom.
LINE_SECONDS, JOB_SECONDS = 0.05, 2.0
MOST_SHOWN = 12

#: How much was done.
done = Counter[str]()


def anonymous_bytes() -> int:
    """Return the memory of this process that no file stands for, after all was given back that is free."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("RssAnon:"))


def bytes_of_lines() -> dict[str, int]:
    """Return the memory that each line of code has made and not given back."""
    return {str(one.traceback): one.size for one in tracemalloc.take_snapshot().statistics("lineno")}


async def write(repository: RedisJobRepository, job_id: str) -> None:
    """Write lines."""
    while True:
        with suppress(OutcomeUnknownError, StoreUnavailableError, AcknowledgedEventsLostError):
            await repository.add_event(job_id, JobEvent("log", "a line\n"))
            done["lines"] += 1
        await asyncio.sleep(LINE_SECONDS)


async def follow(repository: RedisJobRepository, job_id: str) -> None:
    """Read what is written."""
    position = 0
    while True:
        with suppress(StoreUnavailableError), closing(await repository.follow(job_id, position)) as follower:
            while True:
                for record in (await follower.read()).records:
                    done["events"] += 1
                    if isinstance(record, JobEvent):
                        position += 1
                    elif isinstance(record, Notice) and record.type is NoticeType.RESET:
                        position = 0
        await asyncio.sleep(LINE_SECONDS)


async def submit(repository: RedisJobRepository) -> None:
    """Give the controller a job now and then."""
    while True:
        with suppress(OutcomeUnknownError, StoreUnavailableError):
            await repository.create_job(Job(id=f"job-{done['submitted']}", status="queued"))
        done["submitted"] += 1
        await asyncio.sleep(JOB_SECONDS)


async def run_job(job: ClaimedJob) -> None:
    """Do almost nothing."""
    await job.write("a line\n")
    done["jobs"] += 1


async def answer(lines: "asyncio.Queue[str]") -> None:
    """Measure whenever that is asked for."""
    marked = dict[str, int]()
    while True:
        line = await lines.get()
        found: dict[str, object] = {
            "anonymous": anonymous_bytes(),
            "traced": tracemalloc.get_traced_memory()[0],
            **done,
        }
        if line == "mark":
            marked = bytes_of_lines()
        elif line == "explain":
            grown = {where: size - marked.get(where, 0) for where, size in bytes_of_lines().items()}
            found["grown"] = sorted(grown.items(), key=lambda one: -one[1])[:MOST_SHOWN]
        sys.stdout.write(json.dumps(found) + "\n")
        sys.stdout.flush()


async def main(url: str, prefix: str) -> None:
    """Work until the input ends."""
    lines, loop = asyncio.Queue[str](), asyncio.get_running_loop()

    def read_input() -> None:
        for line in sys.stdin:
            loop.call_soon_threadsafe(lines.put_nowait, line.strip())
        loop.call_soon_threadsafe(work.cancel)

    async with (
        RedisJobRepository.from_url(url, prefix=prefix) as repository,
        Controller(repository, settings=ControllerSettings(concurrency=2, lease_seconds=4.0)) as controller,
    ):
        for number in range(WRITERS):
            await repository.create_job(Job(id=f"w{number}", status="running"))
        both = [start(repository, f"w{number}") for number in range(WRITERS) for start in (write, follow)]
        work = asyncio.gather(answer(lines), submit(repository), controller.run(run_job), *both)
        threading.Thread(target=read_input, daemon=True).start()
        with suppress(asyncio.CancelledError):
            await work


if __name__ == "__main__":
    tracemalloc.start()
    asyncio.run(main(*sys.argv[1:]))
