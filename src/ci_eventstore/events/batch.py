"""Records that go to the server together, encoded."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from ci_common.models import JobEvent
from ci_eventstore.events.codec import encode, encode_event
from ci_eventstore.events.records import Record, log_text, text_size

#: One script call takes at most this many log events, and this much text unless one event alone has more bytes.
BATCH_EVENTS = 1000
BATCH_BYTES = 1024 * 1024


@dataclass(slots=True, eq=False)
class Batch:
    """Encoded records, and what their text adds to their job's counters."""

    payloads: list[bytes] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    bytes: int = 0
    lines: int = 0

    def extend(self, other: "Batch") -> None:
        """Put another batch's log events after this one's."""
        self.payloads += other.payloads
        self.texts += other.texts
        self.bytes += other.bytes
        self.lines += other.lines

    def sizes(self) -> list[str]:
        """Return "bytes lines" of each record's text."""
        return ["{} {}".format(*text_size(text)) for text in self.texts]


def encode_logs(events: Sequence[JobEvent]) -> Batch:
    """Return log events ready to be sent."""
    return _batch([encode_event(event) for event in events], [event.data or "" for event in events])


def encode_records(records: Sequence[Record]) -> Batch:
    """Return records of all kinds ready to be sent."""
    return _batch([encode(record) for record in records], [log_text(record) for record in records])


def _batch(payloads: list[bytes], texts: list[str]) -> Batch:
    all_text = "".join(texts)
    return Batch(payloads, texts, *text_size(all_text))


def encode_batches(events: Sequence[JobEvent]) -> Iterator[Batch]:
    """Yield log events in batches that one script call takes, each encoded when it is asked for."""
    start = size = 0
    for place, event in enumerate(events):
        added = len(event.data or "")
        if place > start and (place - start >= BATCH_EVENTS or size + added > BATCH_BYTES):
            yield encode_logs(events[start:place])
            start, size = place, 0
        size += added
    yield encode_logs(events[start:])
