"""Followers over `follow_records`, one blocking read each, until there is a hub."""

import asyncio

from ci_common.models import JobEvent
from ci_eventstore.events.records import Place, Record
from ci_eventstore.following.page import Page
from ci_eventstore.repository import RedisJobRepository


class Follower:
    """Hands out a job's records in pages."""

    def __init__(self, repository: RedisJobRepository, job_id: str, after: int, user_id: str | None) -> None:
        self._records: list[Record] = []
        self._wake = asyncio.Event()
        self._ended = False
        self._failure: Exception | None = None
        self._task = asyncio.create_task(self._pump(repository, job_id, after, user_id))

    async def _pump(self, repository: RedisJobRepository, job_id: str, after: int, user_id: str | None) -> None:
        try:
            async for record in repository.follow_records(job_id, after, user_id):
                self._records.append(record)
                self._wake.set()
            self._ended = True
        except Exception as error:  # noqa: BLE001 - handed on
            self._failure = error
        self._wake.set()

    async def read(self, timeout: float | None = None) -> Page:
        """Return what there is."""
        try:
            async with asyncio.timeout(timeout):
                await self._wake.wait()
        except TimeoutError:
            return Page((), Place(0))
        self._wake.clear()
        if self._failure is not None:
            raise self._failure
        records, self._records = self._records, []
        last = self._ended or any(isinstance(record, JobEvent) and record.type == "complete" for record in records)
        return Page(records, Place(0), is_last=last)

    def close(self) -> None:
        """End."""
        self._task.cancel()


async def follow(repository: RedisJobRepository, job_id: str, last_event_id: int, user_id: str | None) -> Follower:
    """Follow."""
    return Follower(repository, job_id, last_event_id, user_id)
