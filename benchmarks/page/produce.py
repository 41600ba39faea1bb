"""A job that prints lines at a pace, each with the time of its printing: `python -m benchmarks.page.produce`."""

import argparse
import asyncio
import sys
import time
from collections.abc import Sequence

from benchmarks.texts import generated_lines
from ci_common.models import Job, utc_now
from ci_eventstore import RedisJobRepository

KNOWN_LINES = 10_000
#: How often in a second some lines are printed.
BEATS = 50


async def produce(url: str, job_id: str, lines_per_second: int, seconds: int) -> None:
    """Create a job with a first line; when told to, print as many lines as that makes, and end it."""
    known, step = generated_lines(KNOWN_LINES), lines_per_second // BEATS
    async with RedisJobRepository.from_url(url) as repository:
        await repository.create_job(Job(id=job_id, status="running", name="live", start_time=utc_now()))
        async with repository.log_writer(job_id) as writer:
            await writer.write("the first line\n")
            print("created", flush=True)
            await asyncio.to_thread(sys.stdin.readline)
            begun = time.monotonic()
            for beat in range(BEATS * seconds):
                await asyncio.sleep(max(0.0, begun + beat / BEATS - time.monotonic()))
                now = f"{time.time() * 1000:.0f}"
                lines = (f"{now} {known[(beat * step + place) % KNOWN_LINES]}\n" for place in range(step))
                await writer.write("".join(lines))
        await repository.complete_job(job_id, True, utc_now())


def main(arguments: Sequence[str] | None = None) -> None:
    """Print lines until the time is over."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.page.produce", description=__doc__)
    parser.add_argument("url", help="of the store")
    parser.add_argument("job", help="its id")
    parser.add_argument("rate", type=int, help="lines in a second")
    parser.add_argument("seconds", type=int)
    options = parser.parse_args(arguments)
    asyncio.run(produce(options.url, options.job, options.rate, options.seconds))


if __name__ == "__main__":
    main()
