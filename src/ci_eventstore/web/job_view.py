"""A job as clients see it: in a list, or alone with its log's totals and its place in the queue."""

import asyncio
from typing import Any

from ci_common.errors import RepositoryError
from ci_common.models import Job, JobStatus
from ci_eventstore.errors import StoreUnavailableError
from ci_eventstore.events.reader import Extent
from ci_eventstore.events.sealed_log import lies_in_archive
from ci_eventstore.job_fields import job_json
from ci_eventstore.jobs.state import JobState, to_job
from ci_eventstore.queues.places import QueuePlaces
from ci_eventstore.web.context import Web
from ci_eventstore.web.streams.resume import last_position

#: Whether a log's last line is open counts as unknown if reading that takes longer, as from an archive that is away.
PATIENCE_SECONDS = 2.0
#: The ends of so many logs are known.
ENDS_KEPT = 10_000


def summary(job: Job, incarnation: str) -> dict[str, Any]:
    """Return a job as clients see it in a list. Pure."""
    return {**job_json(job, is_public=True), "incarnation": incarnation}


class JobViews:
    """Shows single jobs, each with what takes another read."""

    def __init__(self, web: Web) -> None:
        self._web = web
        self._places = QueuePlaces()
        #: Whether logs that end at a position end with an open line.
        self._open_ends: dict[tuple[str, str | None, int], bool] = {}

    async def show(self, job_id: str, state: JobState) -> dict[str, Any]:
        """Return a job with all that `GET` shows of it; StoreUnavailableError."""
        shown = await self.with_totals(job_id, state, await self._web.incarnation(state))
        if state.status is JobStatus.QUEUED:
            shown["place"] = await self._place(job_id, state)
        return shown

    async def read_with_totals(self, job_id: str, user_id: str | None) -> tuple[JobState, dict[str, Any]]:
        """Return what a job is now, and how it is shown; the errors of `Web.state`."""
        state = await self._web.state(job_id, user_id)
        return state, await self.with_totals(job_id, state, await self._web.incarnation(state))

    async def with_totals(self, job_id: str, state: JobState, incarnation: str) -> dict[str, Any]:
        """Return a job with the totals of its log, and the position up to which they count; StoreUnavailableError."""
        is_open, position = await self._has_open_end(job_id, state.extent), last_position(state)
        totals = {"lines": state.lines + bool(is_open), "bytes": state.bytes, "is_open": is_open, "position": position}
        shown = summary(to_job(job_id, state), incarnation)
        return {**shown, "log_archived": lies_in_archive(state.log), "totals": totals, "position": position}

    async def _place(self, job_id: str, state: JobState) -> int | None:
        """Return how many jobs wait before one; None if that isn't known."""
        engine = self._web.engine
        try:
            return await self._places.before(engine.nodes, engine.keys, state.queue, job_id)
        except StoreUnavailableError:
            if not engine.nodes.is_divided:
                raise
            # Other partitions have parts of the queue.
            return None

    async def _has_open_end(self, job_id: str, extent: Extent) -> bool | None:
        """Return whether the last line of a log has no newline; None if that can't be read, or not soon."""
        known_as = job_id, extent.incarnation, extent.position
        if known_as not in self._open_ends:
            reader, keys = self._web.log(job_id)
            try:
                async with asyncio.timeout(PATIENCE_SECONDS):
                    is_open = await reader.has_open_end(keys, extent)
            except StoreUnavailableError:
                raise
            except (TimeoutError, RepositoryError):
                # The log is damaged, deleted, or in an archive that is away: the job can be shown all the same.
                return None
            if len(self._open_ends) >= ENDS_KEPT:
                self._open_ends.clear()
            self._open_ends[known_as] = is_open
        return self._open_ends[known_as]
