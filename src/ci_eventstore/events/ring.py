"""Read the ring of a running job: the end of a log that has outgrown its budget, as far as it stands now.

Nothing of it has a position, and what is read of it may be left out by the time the job ends.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from ci_common.models import JobEvent
from ci_eventstore.connection.nodes import Nodes
from ci_eventstore.errors import ProjectionDamagedError
from ci_eventstore.events.codec import decode_event
from ci_eventstore.keys import JobKeys

#: How many of its events are handed out together.
PAGE_EVENTS = 16


@dataclass(frozen=True, slots=True)
class Ring:
    """What the ring of one job held at one moment."""

    job_id: str
    #: What was left out before it, by then.
    lost_bytes: int
    lost_lines: int
    #: Of its own text: how many lines end in it.
    lines: int
    _payloads: Sequence[bytes]

    @property
    def mark(self) -> str:
        """The line that says that what follows isn't final; like the one of an ended log, it begins a line."""
        lost = f"; {self.lost_bytes} bytes in {self.lost_lines} lines are left out so far" if self.lost_bytes else ""
        return f"\n[provisional from here on, until the job ends{lost}]\n"

    def pages(self) -> Iterator[list[JobEvent]]:
        """Yield the mark and the events, without ids, some at a time. StoreFormatError."""
        for start in range(0, max(len(self._payloads), 1), PAGE_EVENTS):
            payloads = self._payloads[start : start + PAGE_EVENTS]
            page = [replace(decode_event(payload, 0, self.job_id), id=None) for payload in payloads]
            if start == 0:
                page.insert(0, JobEvent("log", self.mark, timestamp=page[0].timestamp if page else None))
            yield page

    def last_text(self) -> str:
        """Return the text of the last event that has any, the mark before the first one included. StoreFormatError."""
        for payload in reversed(self._payloads):
            if text := decode_event(payload, 0, self.job_id).data:
                return text
        return self.mark


async def read_ring(nodes: Nodes, keys: JobKeys) -> Ring | None:
    """Return what a job's ring holds; None if there is none. ProjectionDamagedError."""
    reply: Sequence[bytes] = await nodes.read("HGETALL", keys.ring)
    if not reply:
        return None
    fields = dict(zip(reply[::2], reply[1::2], strict=True))
    try:
        first, last = int(fields[b"first"]), int(fields[b"last"])
        entries = [fields[b"%d" % place].split(b" ", 2) for place in range(first, last + 1)]
        lines = sum(int(newlines) for _, newlines, _ in entries)
        lost_bytes, lost_lines = int(fields[b"lost_bytes"]), int(fields[b"lost_lines"])
    except (KeyError, ValueError) as error:
        raise ProjectionDamagedError(keys.job_id, f"its ring can't be read: {error!r}") from error
    return Ring(keys.job_id, lost_bytes, lost_lines, lines, [payload for _, _, payload in entries])
