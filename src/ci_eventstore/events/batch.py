"""Records that go to the server together, encoded."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from ci_common.models import JobEvent
from ci_eventstore.events.codec import encode, encode_event
from ci_eventstore.events.records import Record
from ci_eventstore.jobs.evolve import text_size

#: One script call takes at most so many events, and so many bytes unless one event alone has more.
BATCH_EVENTS = 1000
BATCH_BYTES = 1024 * 1024


@dataclass(slots=True, eq=False)
class Batch:
    """Encoded records, and what they add to their job's counters."""

    payloads: list[bytes] = field(default_factory=list)
    #: "bytes lines" of each record's text.
    sizes: list[str] = field(default_factory=list)
    #: Sums of these.
    bytes: int = 0
    lines: int = 0
    payload_bytes: int = 0

    def has_room_for(self, other: "Batch") -> bool:
        """Tell whether both fit into one script call."""
        return (
            len(self.payloads) + len(other.payloads) <= BATCH_EVENTS
            and self.payload_bytes + other.payload_bytes <= BATCH_BYTES
        )

    def extend(self, other: "Batch") -> None:
        """Put another batch's records behind this one's."""
        self.payloads += other.payloads
        self.sizes += other.sizes
        self.bytes += other.bytes
        self.lines += other.lines
        self.payload_bytes += other.payload_bytes


def encode_batch(records: Iterable[Record]) -> Batch:
    """Return records ready to be sent."""
    payloads, sizes = [], []
    total_bytes = total_lines = 0
    for record in records:
        payloads.append(encode_event(record) if type(record) is JobEvent else encode(record))
        size, lines = text_size(record)
        sizes.append(f"{size} {lines}")
        total_bytes += size
        total_lines += lines
    return Batch(payloads, sizes, total_bytes, total_lines, sum(map(len, payloads)))


def encode_batches(events: Sequence[JobEvent]) -> Iterator[Batch]:
    """Yield the events in batches that one script call takes, each encoded when it is asked for."""
    start = size = 0
    for place, event in enumerate(events):
        added = len(event.data or "")
        if place > start and (place - start >= BATCH_EVENTS or size + added > BATCH_BYTES):
            yield encode_batch(events[start:place])
            start, size = place, 0
        size += added
    yield encode_batch(events[start:])
