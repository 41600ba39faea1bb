"""List jobs in the order of their creation, and find them by the beginning of their id."""

import asyncio
import heapq
import logging
from collections.abc import AsyncIterator, Sequence
from itertools import groupby, islice

from ci_common.errors import JobNotFoundError
from ci_common.models import Job, JobStatus
from ci_eventstore.connection.nodes import Nodes
from ci_eventstore.connection.replies import as_texts
from ci_eventstore.errors import StoreFormatError
from ci_eventstore.events.log_source import LogSource
from ci_eventstore.jobs.records import read_record, read_records
from ci_eventstore.jobs.state import to_job
from ci_eventstore.jobs.tombstones import read_tombstone
from ci_eventstore.keys import Keys, ids_key, jobs_key, listing_member, member_job_id

logger = logging.getLogger("ci_eventstore.jobs")

PAGE_JOBS = 500
#: After a prefix, it sorts after every text with that prefix.
_BEHIND = "\U0010ffff"


class Listings:
    """The jobs of all partitions, the newest first."""

    def __init__(self, nodes: Nodes, keys: Keys, source: LogSource) -> None:
        self._nodes = nodes
        self._keys = keys
        self._source = source

    async def page(self, user_id: str | None, status: JobStatus | None, limit: int, before: str | None) -> list[Job]:
        """Return at most `limit` jobs, those older than the job `before`; JobNotFoundError if there is no such job."""
        cursor = None if before is None else await self._member(before, user_id)
        jobs: list[Job] = []
        while len(jobs) < limit:
            count = min(limit - len(jobs), PAGE_JOBS)
            members = await self._members(user_id, status, count, cursor)
            jobs += await self._jobs(members, user_id, status)
            if len(members) < count:
                break
            cursor = members[-1]
        return jobs[:limit]

    async def all(self, user_id: str | None) -> AsyncIterator[list[Job]]:
        """Yield all jobs, a page at a time."""
        cursor = None
        while members := await self._members(user_id, None, PAGE_JOBS, cursor):
            yield await self._jobs(members, user_id, None)
            cursor = members[-1]

    async def ids_beginning(self, prefix: str, limit: int) -> list[str]:
        """Return at most `limit` ids of jobs that begin with `prefix`, in order."""
        commands = [
            ("ZRANGEBYLEX", ids_key(tag), f"[{prefix}", f"[{prefix}{_BEHIND}", "LIMIT", 0, limit)
            for tag in self._keys.tags
        ]
        found = [as_texts(reply) for reply in await self._nodes.read_many(commands)]
        return sorted(job_id for ids in found for job_id in ids)[:limit]

    async def _member(self, job_id: str, user_id: str | None) -> str:
        state = await read_record(self._nodes, self._source, self._keys.job(job_id))
        if state is None:
            # A job that is deleted while its user pages through a list is no less a place in it.
            tombstone = await read_tombstone(self._nodes, self._keys.job(job_id))
            if tombstone is not None:
                return f"{tombstone.created}:{job_id}"
        if state is None or user_id not in (None, state.user_id):
            raise JobNotFoundError(job_id)
        return listing_member(state.created_at, job_id)

    async def _members(
        self, user_id: str | None, status: JobStatus | None, count: int, cursor: str | None
    ) -> list[str]:
        """Return the members of the next jobs; all jobs are those of each status.

        A job moves between statuses in one step, so what one transaction reads has each job of a partition once.
        """
        range_of = ("+" if cursor is None else f"({cursor}", "-", "LIMIT", 0, count)
        statuses = JobStatus if status is None else (status,)
        commands = [
            [("ZREVRANGEBYLEX", jobs_key(tag, which, user_id), *range_of) for which in statuses]
            for tag in self._keys.tags
        ]
        if status is None:
            pages = await asyncio.gather(*map(self._nodes.read_at_once, commands))
        else:
            pages = [await self._nodes.read_many([command for [command] in commands])]
        found = [as_texts(reply) for page in pages for reply in page]
        # Damaged listings may have the same job twice.
        return [member for member, _ in islice(groupby(heapq.merge(*found, reverse=True)), count)]

    async def _jobs(self, members: Sequence[str], user_id: str | None, status: JobStatus | None) -> list[Job]:
        """Return the members' jobs that still match, and log which can't be read."""
        ids = [member_job_id(member) for member in members]
        records = await read_records(self._nodes, self._source, [self._keys.job(job_id) for job_id in ids])
        jobs: list[Job] = []
        for job_id, record in zip(ids, records, strict=True):
            if isinstance(record, StoreFormatError):
                outage = self._nodes.outages.of(logger, "left out of a list: %s", kind=job_id)
                outage.failed(record, {"job_id": job_id})
            elif record is not None:
                jobs.append(to_job(job_id, record))
        return [job for job in jobs if user_id in (None, job.user_id) and status in (None, job.status)]
