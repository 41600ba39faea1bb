"""List jobs in the order of their creation, and find them by the beginning of their id."""

import asyncio
import heapq
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import groupby, islice
from typing import NamedTuple, TypeVar

from ci_common.errors import JobNotFoundError
from ci_common.models import Job, JobStatus
from ci_common.validation import check_whole, optional_id
from ci_eventstore.connection.absence import ask_each, numbers_of
from ci_eventstore.connection.nodes import Nodes
from ci_eventstore.connection.replies import as_texts
from ci_eventstore.connection.way import Command, in_a_hurry
from ci_eventstore.errors import StoreError, StoreFormatError
from ci_eventstore.events.log_source import LogSource
from ci_eventstore.jobs.records import Record, read_record, read_records
from ci_eventstore.jobs.state import to_job
from ci_eventstore.jobs.tombstones import read_tombstone
from ci_eventstore.keys import JobKeys, Keys, ids_key, jobs_key
from ci_eventstore.members import listing_member, member_job_id

T = TypeVar("T")

logger = logging.getLogger("ci_eventstore.jobs")

PAGE_JOBS = 500
#: After a prefix, it sorts after every text with that prefix.
_BEHIND = "\U0010ffff"


@dataclass(frozen=True, slots=True)
class JobPage:
    """Jobs in the order of their creation, the newest first: those of the partitions that answered."""

    jobs: list[Job]
    #: The numbers of the partitions that are away: their jobs are missing from this page, not only from its end.
    unavailable: tuple[int, ...] = ()


def checked_page(
    user_id: str | None, status: str | list[str] | None, limit: int, before: str | None
) -> tuple[str | None, frozenset[JobStatus] | None, int, str | None]:
    """Return what `Listings.page` is asked for, by one status or several; InvalidInputError."""
    statuses = status if isinstance(status, list) else [status]
    wanted = None if status is None else frozenset(JobStatus.parse(each) for each in statuses if each is not None)
    return optional_id("user id", user_id), wanted, check_whole("limit", limit), optional_id("job id", before)


class _Wanted(NamedTuple):
    user_id: str | None
    statuses: frozenset[JobStatus] | None


#: The hash tags of partitions that a page does without, with their errors; None: it needs all of them.
_Away = dict[str, StoreError] | None


class Listings:
    """The jobs of all partitions, the newest first."""

    def __init__(self, nodes: Nodes, keys: Keys, source: LogSource) -> None:
        self._nodes = nodes
        self._keys = keys
        self._source = source

    async def page(
        self,
        user_id: str | None,
        statuses: frozenset[JobStatus] | None,
        limit: int,
        before: str | None,
        *,
        is_partial: bool = False,
    ) -> JobPage:
        """Return at most `limit` jobs, those older than the job `before`; JobNotFoundError if there is no such job.

        One that may be partial does without the partitions that are away, as long as any answers; else, or if that of
        the job `before` is away, StoreUnavailableError.
        """
        away: _Away = {} if is_partial else None
        with in_a_hurry() if is_partial and self._nodes.is_divided else nullcontext():
            cursor = None if before is None else await self._member(before, user_id)
        wanted, jobs = _Wanted(user_id, statuses), list[Job]()
        while len(jobs) < limit:
            count = min(limit - len(jobs), PAGE_JOBS)
            members = await self._members(wanted, count, cursor, away)
            jobs += await self._jobs(members, wanted, away)
            if len(members) < count:
                break
            cursor = members[-1]
        return JobPage(jobs[:limit], numbers_of(away or ()))

    async def all(self, user_id: str | None) -> AsyncIterator[list[Job]]:
        """Yield all jobs, a page at a time."""
        cursor = None
        wanted = _Wanted(user_id, None)
        while members := await self._members(wanted, PAGE_JOBS, cursor, None):
            yield await self._jobs(members, wanted, None)
            cursor = members[-1]

    async def ids_beginning(self, prefix: str, limit: int) -> list[str]:
        """Return at most `limit` ids of jobs that begin with `prefix`, in order.

        The job that has just this id is found whatever other partitions are away; else StoreUnavailableError.
        """

        async def ask(tag: str) -> list[str]:
            command = ("ZRANGEBYLEX", ids_key(tag), f"[{prefix}", f"[{prefix}{_BEHIND}", "LIMIT", 0, limit)
            return as_texts(*await self._nodes.read_many([command]))

        answers = await ask_each(self._nodes, self._keys.tags, ask)
        found = sorted(job_id for ids in answers.given.values() for job_id in ids)
        if answers.away and prefix not in found:
            raise next(iter(answers.away.values()))
        return found[:limit]

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

    async def _members(self, wanted: _Wanted, count: int, cursor: str | None, away: _Away) -> list[str]:
        """Return the members of the next jobs; all jobs are those of each status.

        A job moves between statuses in one step, so what one transaction reads has each job of a partition once.
        """
        range_of = ("+" if cursor is None else f"({cursor}", "-", "LIMIT", 0, count)
        statuses = sorted(JobStatus if wanted.statuses is None else wanted.statuses)

        def commands(tag: str) -> list[Command]:
            return [("ZREVRANGEBYLEX", jobs_key(tag, which, wanted.user_id), *range_of) for which in statuses]

        if len(statuses) != 1:
            pages = await self._ask(self._keys.tags, lambda tag: self._nodes.read_at_once(commands(tag)), away)
        elif away is None:
            pages = [await self._nodes.read_many([command for tag in self._keys.tags for command in commands(tag)])]
        else:
            pages = await self._ask(self._keys.tags, lambda tag: self._nodes.read_many(commands(tag)), away)
        found = [as_texts(reply) for page in pages for reply in page]
        # Damaged listings may have the same job twice.
        return [member for member, _ in islice(groupby(heapq.merge(*found, reverse=True)), count)]

    async def _jobs(self, members: Sequence[str], wanted: _Wanted, away: _Away) -> list[Job]:
        """Return the members' jobs that still match, and log which can't be read."""
        jobs: list[Job] = []
        ids = [member_job_id(member) for member in members]
        for job_id, record in zip(ids, await self._records(ids, away), strict=True):
            if isinstance(record, StoreFormatError):
                outage = self._nodes.outages.of(logger, "left out of a list: %s", kind=job_id)
                outage.failed(record, {"job_id": job_id})
            elif record is not None:
                jobs.append(to_job(job_id, record))
        user_id, statuses = wanted
        return [job for job in jobs if user_id in (None, job.user_id) and (statuses is None or job.status in statuses)]

    async def _records(self, job_ids: Sequence[str], away: _Away) -> list[Record]:
        """Return the records of some jobs, None for those of partitions that have gone away since."""
        keys = [self._keys.job(job_id) for job_id in job_ids]
        if away is None or not self._nodes.is_divided:
            return await read_records(self._nodes, self._source, keys)
        by_tag: dict[str, list[JobKeys]] = {}
        for job in keys:
            by_tag.setdefault(job.tag, []).append(job)

        async def ask(tag: str) -> list[tuple[JobKeys, Record]]:
            return list(zip(by_tag[tag], await read_records(self._nodes, self._source, by_tag[tag]), strict=True))

        found = dict(pair for pairs in await self._ask(list(by_tag), ask, away) for pair in pairs)
        return [found.get(job) for job in keys]

    async def _ask(self, tags: Sequence[str], ask: Callable[[str], Awaitable[T]], away: _Away) -> list[T]:
        """Return the answers of partitions; if some may be away, note which are, and leave them alone from then on."""
        if away is None:
            return await asyncio.gather(*map(ask, tags))
        answers = await ask_each(self._nodes, [tag for tag in tags if tag not in away], ask)
        away.update(answers.away)
        return list(answers.given.values())
