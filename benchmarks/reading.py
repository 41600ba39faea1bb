"""Read a long job into events, beside redis-py's `xrange` over the same stream, which leaves its entries encoded."""

from typing import Any

from benchmarks.results import Row, Target
from benchmarks.rounds import Lap, Side, lap_of, take_turns
from benchmarks.scale import BATCH_EVENTS
from benchmarks.sides import Sides, stream_of
from benchmarks.texts import events

PAGE = 1000


async def reading_rows(sides: Sides) -> list[Row]:
    """Fill a job, then read it from the beginning."""
    job_id, size = await fill(sides), sides.scale.long_job

    async def theirs() -> Lap:
        with lap_of(size) as lap:
            found = await _read_entries(sides, stream_of(job_id))
        assert len(found) >= size
        return lap

    rates = await take_turns(reading(sides, job_id), theirs, sides.scale.rounds)
    return [Row(f"read {size:,} events", "events/s", rates[0], f"xrange, COUNT {PAGE}", rates[1], Target(0.4))]


async def fill(sides: Sides) -> str:
    """Return the id of a long job."""
    job_id = await sides.new_job()
    for _ in range(sides.scale.long_job // BATCH_EVENTS):
        await sides.repository.add_events(job_id, events(BATCH_EVENTS))
    return job_id


def reading(sides: Sides, job_id: str) -> Side:
    """Return a side that reads a long job at once."""

    async def side() -> Lap:
        size = sides.scale.long_job
        with lap_of(size) as lap:
            found = await sides.repository.get_events_since(job_id, 0)
        assert len(found) == size
        return lap

    return side


async def _read_entries(sides: Sides, key: str) -> list[Any]:
    found: list[Any] = []
    first = "-"
    while True:
        page: Any = await sides.client.xrange(key, first, "+", count=PAGE)
        found.extend(page)
        if len(page) < PAGE:
            return found
        first = f"({page[-1][0].decode()}"
