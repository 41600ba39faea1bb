"""Encode and decode events, beside JSON."""

import json
from datetime import datetime

from benchmarks.memory import to_json
from benchmarks.results import Row
from benchmarks.rounds import Stopwatch, measured, take_turns
from benchmarks.scale import EVENT_BYTES, Scale
from benchmarks.texts import events
from ci_common.models import JobEvent
from ci_eventstore.events.codec import decode_event, encode_event


async def coding_rows(scale: Scale) -> list[Row]:
    """Measure the codec alone, without a server."""
    given = events(scale.measured_job)
    payloads = [encode_event(event) for event in given]
    texts = [to_json(event) for event in given]

    def rate(stopwatch: Stopwatch) -> float:
        return stopwatch.rate(len(given))

    async def encode() -> float:
        with measured() as stopwatch:
            assert [encode_event(event) for event in given]
        return rate(stopwatch)

    async def encode_json() -> float:
        with measured() as stopwatch:
            assert [to_json(event) for event in given]
        return rate(stopwatch)

    async def decode() -> float:
        with measured() as stopwatch:
            assert [decode_event(payload, place) for place, payload in enumerate(payloads, start=1)]
        return rate(stopwatch)

    async def decode_json() -> float:
        with measured() as stopwatch:
            assert [_from_json(text, place) for place, text in enumerate(texts, start=1)]
        return rate(stopwatch)

    encoding = await take_turns(encode, encode_json, scale.rounds)
    decoding = await take_turns(decode, decode_json, scale.rounds)
    return [
        Row(f"encode an event of {EVENT_BYTES} bytes", "events/s", encoding[0], "json", encoding[1]),
        Row(f"decode an event of {EVENT_BYTES} bytes", "events/s", decoding[0], "json", decoding[1]),
    ]


def _from_json(text: str, position: int) -> JobEvent:
    found = json.loads(text)
    return JobEvent(found["type"], found["data"], timestamp=datetime.fromisoformat(found["timestamp"]), id=position)
