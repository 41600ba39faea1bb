"""Encode and decode events, beside JSON."""

import json
from collections.abc import Sequence
from datetime import datetime

from benchmarks.memory import to_json
from benchmarks.results import Row
from benchmarks.rounds import Lap, lap_of, take_turns
from benchmarks.scale import EVENT_BYTES, LARGE_EVENT_BYTES, Scale
from benchmarks.texts import events, large_events
from ci_common.models import JobEvent
from ci_eventstore.events.codec import decode_event, encode_event


async def coding_rows(scale: Scale) -> list[Row]:
    """Measure the codec alone, without a server: on short events, and on such as it compresses."""
    large = large_events(scale.measured_job // 20, LARGE_EVENT_BYTES)
    return [
        *await _rows(f"an event of {EVENT_BYTES} bytes", events(scale.measured_job), scale.rounds),
        *await _rows(f"an event of {LARGE_EVENT_BYTES} bytes", large, scale.rounds),
    ]


async def _rows(what: str, given: Sequence[JobEvent], rounds: int) -> list[Row]:
    payloads = [encode_event(event) for event in given]
    texts = [to_json(event) for event in given]

    async def encode() -> Lap:
        with lap_of(len(given)) as lap:
            assert [encode_event(event) for event in given]
        return lap

    async def encode_json() -> Lap:
        with lap_of(len(given)) as lap:
            assert [to_json(event) for event in given]
        return lap

    async def decode() -> Lap:
        with lap_of(len(given)) as lap:
            assert [decode_event(payload, place) for place, payload in enumerate(payloads, start=1)]
        return lap

    async def decode_json() -> Lap:
        with lap_of(len(given)) as lap:
            assert [_from_json(text, place) for place, text in enumerate(texts, start=1)]
        return lap

    encoding = await take_turns(encode, encode_json, rounds)
    decoding = await take_turns(decode, decode_json, rounds)
    return [
        Row(f"encode {what}", "events/s", encoding[0], "json", encoding[1]),
        Row(f"decode {what}", "events/s", decoding[0], "json", decoding[1]),
    ]


def _from_json(text: str, position: int) -> JobEvent:
    found = json.loads(text)
    return JobEvent(found["type"], found["data"], timestamp=datetime.fromisoformat(found["timestamp"]), id=position)
