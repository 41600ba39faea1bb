"""How far a job's log goes. Pure."""

from typing import NamedTuple

from ci_eventstore.events.log_source import PAGE_ENTRIES

#: What a page is about to have at most; events of many mebibytes are read a few at a time.
PAGE_BYTES = 8 * 1024 * 1024


class Extent(NamedTuple):
    """How far a job's log goes, and where its end is, as its hash said at one moment."""

    position: int
    end_position: int | None
    #: Of all events' text: bytes and newlines.
    bytes: int
    lines: int = 0
    #: How many facts stand after the last event.
    part: int = 0
    #: Where the log last outgrew its budget.
    truncated_at: int | None = None
    #: The job's, if it has one.
    incarnation: str | None = None

    @property
    def is_outgrown(self) -> bool:
        """Whether the job runs and what its log has is its beginning only."""
        return self.truncated_at is not None and self.end_position is None

    def page_entries(self, page_bytes: int = PAGE_BYTES, limit: int = PAGE_ENTRIES, least: int = 10) -> int:
        """Return how many entries of this log a page may have, so that it stays near a size."""
        return max(least, min(limit, page_bytes * self.position // max(self.bytes, 1)))
