"""Fold a job's stream, a page at a time, into all that is derived from it."""

from collections.abc import Sequence

from ci_common.models import JobStatus
from ci_eventstore.errors import StoreFormatError
from ci_eventstore.events.codec import decode, mark_of
from ci_eventstore.events.log_index import LogIndex
from ci_eventstore.events.log_source import LogSource
from ci_eventstore.events.records import Place, Record
from ci_eventstore.jobs.evolve import evolve_all
from ci_eventstore.jobs.state import JobState
from ci_eventstore.keys import JobKeys, jobs_key
from ci_eventstore.members import backlog_member, listing_member


class Fold:
    """What a job's stream says up to a place: its state, and the sparse index of its log.

    `index` is made as entries are due; to check one, put a `LogIndex` with its entries there before the first event.
    """

    def __init__(self, keys: JobKeys) -> None:
        self.keys = keys
        self.state: JobState | None = None
        self.index = LogIndex()

    @property
    def place(self) -> Place:
        """Where the last record stands that was folded."""
        return Place(self.state.position, self.state.part) if self.state else Place(0)

    async def advance(self, source: LogSource, until: Place) -> None:
        """Fold the records after the last one, up to a place; StoreFormatError."""
        async for page in source.pages(self.keys, self.place, until):
            self.take(page)

    def take(self, page: Sequence[tuple[Place, bytes]]) -> Sequence[Record]:
        """Fold the entries that come next, of which there is at least one, and return them; StoreFormatError."""
        records = [decode(payload, place.position, self.keys.job_id) for place, payload in page]
        for record in records:
            self.index.add(record)
        try:
            state = evolve_all(self.state, records).but(mark=mark_of(page[-1][1]))
        except (ValueError, TypeError, KeyError) as error:
            where = f"the entries from {page[0][0]} to {page[-1][0]}"
            raise StoreFormatError(f"job {self.keys.job_id!r}: {where} make no sense: {error}") from error
        if (state.position, state.part) != page[-1][0]:
            where = f"an entry before {page[-1][0]} is missing"
            raise StoreFormatError(f"job {self.keys.job_id!r}: {where}")
        self.state = state
        return records

    @property
    def has_ring(self) -> bool:
        """Whether the end of the log is in a ring."""
        return self.state is not None and self.state.truncated_at is not None and self.state.end_position is None

    def listings(self) -> dict[str, bool]:
        """Return every listing that the job could stand in, and whether it belongs there."""
        if self.state is None:
            return {}
        user_id = self.state.user_id
        scopes = [None] if user_id is None else [None, user_id]
        possible = [jobs_key(self.keys.tag, status, scope) for scope in scopes for status in JobStatus]
        member_of = set(self.keys.listings(user_id, self.state.status))
        return {key: key in member_of for key in possible}

    def queue_places(self) -> dict[str, tuple[str, ...]]:
        """Return the commands that find what the job may have in its queue; a ticket is its user's."""
        if self.state is None:
            return {}
        keys, user_id = self.keys.queue(self.state.lease_queue), self.state.user_id or ""
        return {
            "backlog": ("ZSCORE", keys.backlog, backlog_member(user_id, self.state.created_at, self.keys.job_id)),
            "lease": ("ZSCORE", keys.leases, self.keys.job_id),
            "ticket": ("HGET", keys.tickets, user_id),
            "dispatch": ("XLEN", keys.dispatch),
        }

    def belongs_in_queue(self) -> dict[str, bool]:
        """Return which of these there have to be, and which there must not be."""
        if self.state is None:
            return {}
        is_queued = self.state.status == JobStatus.QUEUED
        places = {"backlog": is_queued, "lease": self.state.claim is not None}
        return {**places, "ticket": True, "dispatch": True} if is_queued else places

    def ended_member(self) -> str:
        """Return the job's member of the ended; "" if it hasn't ended."""
        return self.state.ended_member(self.keys.job_id) if self.state else ""

    def member(self) -> str:
        """Return the job's member in the listings; nothing if there is no stream."""
        if self.state is None:
            return ""
        return listing_member(self.state.created_at, self.keys.job_id)
