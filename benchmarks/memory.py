"""Memory of a job at the server, beside other ways to store the same events."""

import json
from collections.abc import Awaitable, Callable
from typing import Any

from benchmarks.results import Row, Target
from benchmarks.scale import BATCH_EVENTS, EVENT_BYTES
from benchmarks.sides import Sides, new_key, stream_of
from benchmarks.texts import events
from ci_common.models import JobEvent
from ci_eventstore.events.codec import encode_event

UNIT = "bytes/event"

#: Writes events, and returns the name of the stream that they are in.
Write = Callable[[list[JobEvent]], Awaitable[str]]


async def memory_rows(sides: Sides) -> list[Row]:
    """Write the same events in each way and see what the server's memory grows by."""
    given = events(sides.scale.measured_job)
    payload = sum(len(encode_event(event)) for event in given) / len(given)
    # What a first write leaves behind, such as the script, is no part of a job.
    job_id = await sides.new_job()
    await sides.repository.add_events(job_id, given[:BATCH_EVENTS])

    async def three_fields(events: list[JobEvent]) -> str:
        return await _add(sides, [_fields(event) for event in events])

    async def one_json(events: list[JobEvent]) -> str:
        return await _add(sides, [{"e": to_json(event)} for event in events])

    async def ours(events: list[JobEvent]) -> str:
        job_id = await sides.new_job()
        for start in range(0, len(events), BATCH_EVENTS):
            await sides.repository.add_events(job_id, events[start : start + BATCH_EVENTS])
        return stream_of(job_id)

    used, of_stream = await _grown_by(sides, ours, given)
    fields, _ = await _grown_by(sides, three_fields, given)
    json_, _ = await _grown_by(sides, one_json, given)
    name = f"memory, {EVENT_BYTES} bytes of text"
    return [
        Row(f"{name}, beyond the payload", UNIT, [used - payload], target=Target(40, is_most=True)),
        Row(f"{name}, MEMORY USAGE beyond it", UNIT, [of_stream - payload]),
        Row(f"{name}, all", UNIT, [used], "XADD type, data, timestamp", [fields]),
        Row(f"{name}, all", UNIT, [used], "XADD of JSON", [json_]),
    ]


def to_json(event: JobEvent) -> str:
    """Return an event as the JSON that one would write without a codec of one's own."""
    assert event.timestamp is not None
    return json.dumps({"type": event.type, "data": event.data, "timestamp": event.timestamp.isoformat()})


def _fields(event: JobEvent) -> dict[Any, Any]:
    assert event.timestamp is not None
    return {"type": event.type, "data": event.data or "", "timestamp": event.timestamp.isoformat()}


async def _add(sides: Sides, entries: list[dict[Any, Any]]) -> str:
    key = new_key()
    for start in range(0, len(entries), BATCH_EVENTS):
        pipeline = sides.client.pipeline(transaction=False)
        for entry in entries[start : start + BATCH_EVENTS]:
            pipeline.xadd(key, entry)
        await pipeline.execute()
    return key


async def _grown_by(sides: Sides, write: Write, given: list[JobEvent]) -> tuple[float, float]:
    """Return bytes per event: of the server's memory, and of the stream alone as `MEMORY USAGE` says."""
    before = await used_memory(sides)
    key = await write(given)
    used = await used_memory(sides) - before
    of_stream: int = await sides.client.memory_usage(key, samples=0) or 0
    return used / len(given), of_stream / len(given)


async def used_memory(sides: Sides) -> int:
    """Return how many bytes the server has allocated."""
    return int((await sides.info("memory"))["used_memory"])
