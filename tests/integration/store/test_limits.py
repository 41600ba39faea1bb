"""The append script's head and ring beside a model of them, whatever is written in whatever pieces."""

import secrets
from datetime import UTC, datetime
from functools import cache

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ci_common.models import Job, JobEvent
from ci_eventstore.connection.nodes import Nodes
from ci_eventstore.events.append import RING_BYTES, append
from ci_eventstore.events.caller import Call
from ci_eventstore.events.codec import encode_event, encode_logs, encode_records
from ci_eventstore.events.log_source import LogSource
from ci_eventstore.events.reader import EventReader
from ci_eventstore.events.records import text_size
from ci_eventstore.jobs.decide import Complete, decide
from ci_eventstore.jobs.store import plan_change
from ci_eventstore.keys import JobKeys, Keys
from ci_eventstore.projection.jobs import JobProjections
from tests.examples import examples
from tests.integration.store.test_append_script import Twin

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
#: Bytes that can't be compressed, so that few events fill the ring.
NOISE = secrets.token_bytes(200_000).decode("latin-1")
texts = st.sampled_from(["", "a\n", "ü\n", "\udcff", "b" * 500 + "\n", NOISE[:50_000] + "\n", NOISE])
batches = st.lists(st.lists(texts, min_size=1, max_size=5) | texts.map(lambda text: [text] * 20), max_size=8)


class Model:
    """What head and ring hold, by the rules of the design."""

    def __init__(self, head_bytes: int) -> None:
        self.head: list[str] = []
        self.ring: list[str] = []
        self.lost_bytes = self.lost_lines = 0
        self._room, self._is_full = head_bytes, False

    def add(self, text: str) -> None:
        """Take an event: into the head while there is room, into the ring from then on."""
        size, _ = text_size(text)
        if not self._is_full and size <= self._room:
            self._room -= size
            self.head.append(text)
            return
        self._is_full = True
        self.ring.append(text)
        while len(self.ring) > 1 and sum(map(stored_bytes, self.ring)) > RING_BYTES:
            size, lines = text_size(self.ring.pop(0))
            self.lost_bytes, self.lost_lines = self.lost_bytes + size, self.lost_lines + lines

    def texts(self) -> list[str]:
        """Return the log of the ended job."""
        marker = f"\n[{self.lost_bytes} bytes in {self.lost_lines} lines are left out here]\n"
        return [*self.head, *([marker] if self.lost_bytes else []), *self.ring]


def log(text: str) -> JobEvent:
    return JobEvent("log", text, timestamp=NOW)


@cache
def stored_bytes(text: str) -> int:
    return len(encode_event(log(text))) + 64


async def read(server: Nodes, keys: JobKeys) -> list[str]:
    reader = EventReader(server, LogSource(server))
    events = await reader.read(keys, 0, await reader.extent(keys))
    return [event.data or "" for event in events if event.type == "log"]


@settings(max_examples=examples(30), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(given=batches, head_bytes=st.sampled_from([1, 3, 1000, 700_000]))
async def test_head_and_ring_are_the_models(server: Nodes, keys: Keys, given: list[list[str]], head_bytes: int) -> None:
    """While it runs the job shows its head, when it has ended the ring too; a repeated call makes no difference."""
    await server.read("FLUSHALL")
    job, model = keys.job("j"), Model(head_bytes)
    twin = Twin(server, job)
    await twin.create(Job(id="j", status="running", created_at=NOW))
    for batch in given:
        call = Call(secrets.token_hex(8))
        for _ in range(2):
            assert await append(
                server, job, encode_logs([log(text) for text in batch]), call=call, head_bytes=head_bytes
            )
        for text in batch:
            model.add(text)
        assert await read(server, job) == model.head
        assert await JobProjections(server, LogSource(server)).verify(job) == []
    assert twin.state is not None
    records = decide("j", twin.state, Complete(JobEvent("complete", success=True, timestamp=NOW), False), NOW)
    change = plan_change(job, twin.state, records)
    assert await append(server, job, encode_records(records), call=Call("end"), change=change, head_bytes=head_bytes)
    assert await read(server, job) == model.texts()
    assert await JobProjections(server, LogSource(server)).verify(job) == []
    assert not await server.read("EXISTS", job.ring)
