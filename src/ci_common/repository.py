"""The contract of a job store: what every implementation promises, and callers rely on.

`ci_common.testing` holds the same promises as tests; whoever writes another implementation subclasses both.

Promised by every method:

- A call that raises has changed nothing, unless its error says that the outcome is unknown.
- Arguments are checked first: a call that is wrong in itself raises InvalidInputError, whatever is stored.
- An id that can't be one (empty, too long, control characters, braces) raises InvalidIdError.
- What is missing reads as None or an empty list; writes to it, and reads of its events, raise NotFoundError.
- With `user_id`, another user's job is as a missing one.
- Times come back as given: an aware one equal and aware, a naive one naive. Naive counts as UTC where times are
  compared.
"""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Iterable
from dataclasses import replace
from datetime import datetime
from types import TracebackType
from typing import Self

from ci_common.errors import EventsLostError, JobNotFoundError
from ci_common.models import APIKey, Job, JobEvent, JobStatus, User, utc_now
from ci_common.transitions import ENDED, check_result
from ci_common.validation import accept_events, as_text, check_id, check_position, check_whole

#: How often the default `follow_events` looks for new events.
POLL_SECONDS = 0.1


def cancel_message(reason: str | None) -> str:
    """Return the line that a cancelled job's log ends with; InvalidTextError for a reason that is no text."""
    return f"[cancelled: {reason}]\n" if as_text("reason", reason or "") else "[cancelled]\n"


class UserRepository(ABC):
    """Accounts."""

    @abstractmethod
    async def create_user(self, user: User) -> None:
        """Store a new user; UserAlreadyExistsError, EmailAlreadyExistsError (emails differ by more than case)."""

    @abstractmethod
    async def get_user(self, user_id: str) -> User | None:
        """Return the user of that id."""

    @abstractmethod
    async def get_user_by_email(self, email: str) -> User | None:
        """Return the user with that email, whatever its case."""

    @abstractmethod
    async def list_users(self) -> list[User]:
        """Return all users, the oldest `created_at` first, then by id."""

    @abstractmethod
    async def update_user_active(self, user_id: str, is_active: bool) -> None:
        """Let a user authenticate, or not; UserNotFoundError."""


class APIKeyRepository(ABC):
    """Keys that authenticate users."""

    @abstractmethod
    async def create_api_key(self, api_key: APIKey) -> None:
        """Store a new key of a user; UserNotFoundError, APIKeyAlreadyExistsError (its id or its hash is taken)."""

    @abstractmethod
    async def get_api_key_by_hash(self, key_hash: str) -> APIKey | None:
        """Return the key with that hash, a revoked one too: check `is_active`."""

    @abstractmethod
    async def list_api_keys(self, user_id: str | None = None) -> list[APIKey]:
        """Return all keys, or a user's, the oldest `created_at` first, then by id."""

    @abstractmethod
    async def revoke_api_key(self, key_id: str) -> None:
        """Make the key inactive, for good; APIKeyNotFoundError."""

    @abstractmethod
    async def update_api_key_last_used(self, key_id: str, timestamp: datetime) -> None:
        """Note when a key was used; APIKeyNotFoundError."""


class JobRepository(UserRepository, APIKeyRepository):
    """Jobs, their state and their events, beside users and keys.

    An async context manager: entering initializes it, leaving closes it.
    """

    # Life

    @abstractmethod
    async def initialize(self) -> None:
        """Connect, check and prepare the store; calling it again does nothing."""

    @abstractmethod
    async def close(self) -> None:
        """Send what is waiting to be sent, then let go of all connections; calling it again does nothing."""

    async def __aenter__(self) -> Self:
        """Initialize."""
        await self.initialize()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close."""
        await self.close()

    # Jobs

    @abstractmethod
    async def create_job(self, job: Job) -> None:
        """Store a new job, in any status, with its `events` as 1 … k, in one step.

        JobAlreadyExistsError: ids are never used again. InvalidJobError: a job that hasn't ended can't have a result,
        an end time or a `complete` event, an ended one at most one `complete`, of the same result. The `success` and
        `end_time` that an ended job lacks are taken from its `complete` event.
        """

    @abstractmethod
    async def get_job(self, job_id: str, user_id: str | None = None) -> Job | None:
        """Return a job with its events, those up to the moment that its state belongs to.

        A store may give a running job's log a budget: with `log_truncated`, the events are the log's beginning only.
        """

    @abstractmethod
    async def list_jobs(self, user_id: str | None = None) -> list[Job]:
        """Return all jobs, or a user's, without events, the newest `created_at` first, then by id, downwards."""

    async def get_job_summary(self, job_id: str, user_id: str | None = None) -> Job | None:
        """Return a job without its events: what rights are checked with."""
        job = await self.get_job(job_id, user_id)
        return job and replace(job, events=[])

    async def page_jobs(
        self, user_id: str | None = None, status: str | None = None, limit: int = 100, before: str | None = None
    ) -> list[Job]:
        """Return up to `limit` jobs in the order of `list_jobs`: those that come after the job whose id is `before`.

        JobNotFoundError: there is no job `before`, or it isn't the given user's. UnknownStatusError.
        """
        check_whole("limit", limit)
        if before is not None:
            check_id("job id", before)
        wanted = None if status is None else JobStatus.parse(status)
        jobs = await self.list_jobs(user_id)
        if before is not None:
            places = [place for place, job in enumerate(jobs) if job.id == before]
            if not places:
                raise JobNotFoundError(before)
            jobs = jobs[places[0] + 1 :]
        return [job for job in jobs if wanted in (None, job.status)][: max(limit, 0)]

    # State

    @abstractmethod
    async def update_job_status(
        self, job_id: str, status: str, start_time: datetime | None = None, container_id: str | None = None
    ) -> None:
        """Move a job: queued → running, failed, cancelled; running → failed, cancelled, and back to queued.

        - The first `start_time` stays; a job that moves to running without one starts now. Moving back into the queue,
          a job loses its `container_id`; one that is queued takes none.
        - The status that the job has already is no error; what `start_time` and `container_id` add is stored.
        - `failed` and `cancelled` end the job: result False, end time now, and a `complete` event in the same step.
        - `completed` is refused: `complete_job` is meant.

        JobNotFoundError, UnknownStatusError, InvalidTransitionError (it names both statuses).
        """

    @abstractmethod
    async def complete_job(self, job_id: str, success: bool, end_time: datetime) -> None:
        """End a job: append `complete`, set the status `completed`, result and end time, all in one step.

        The first result wins: once there is a `complete` event, the same result changes nothing, except that this
        `end_time` replaces one that came from an event; another result raises ResultConflictError. A job that `failed`
        or was `cancelled` keeps that status. JobNotFoundError.
        """

    async def cancel_job(self, job_id: str, reason: str | None = None, user_id: str | None = None) -> None:
        """End a job as `cancelled`; the last line of its log says so, with the reason.

        A cancelled job stays as it is. JobNotFoundError, InvalidTransitionError (it ended otherwise).
        """
        line = JobEvent("log", cancel_message(reason))
        job = await self.get_job_summary(job_id, user_id)
        if job is None:
            raise JobNotFoundError(job_id)
        if job.status not in ENDED:
            await self.add_event(job_id, line)
        await self.update_job_status(job_id, JobStatus.CANCELLED)

    # Events

    @abstractmethod
    async def add_event(self, job_id: str, event: JobEvent) -> None:
        """Append a visible event; it is acknowledged when the call returns.

        Visible events are numbered 1, 2, 3 … without holes, in the order in which they were appended. Log events are
        accepted on an ended job too. A `complete` event ends the job as `complete_job` does, with its timestamp as the
        end time. InvalidEventError, EventTooLargeError, JobNotFoundError, ResultConflictError.
        """

    async def add_events(self, job_id: str, events: Iterable[JobEvent]) -> None:
        """Append several events, in their order; an event that is refused keeps all of them out.

        The errors of `add_event`; JobNotFoundError for no events too. This default looks at all of them first, then
        appends one by one, so another writer's events may stand between them.
        """
        accepted = accept_events(events, utc_now())
        job = await self.get_job_summary(job_id)
        if job is None:
            raise JobNotFoundError(job_id)
        for event in accepted:
            if event.success is not None and event.type == "complete":
                check_result(job, event.success)
                job = replace(job, success=event.success)
        for event in accepted:
            await self.add_event(job_id, event)

    @abstractmethod
    async def get_events_since(self, job_id: str, last_event_id: int, user_id: str | None = None) -> list[JobEvent]:
        """Return all events after the one that the caller saw last, each with its `id`; 0 for none seen.

        Since ids have no holes, a caller that counts what it received is right too. An id past the end gives an empty
        list. A running job whose log has outgrown the store's budget has only the log's beginning here, as its
        `log_truncated` says; the rest has no ids before the job ends. JobNotFoundError, InvalidPositionError.
        """

    async def read_events(
        self, job_id: str, after: int = 0, limit: int = 1000, user_id: str | None = None
    ) -> list[JobEvent]:
        """Return up to `limit` events after the given id: a page of `get_events_since`."""
        check_whole("limit", limit)
        return (await self.get_events_since(job_id, after, user_id))[: max(limit, 0)]

    async def follow_events(
        self, job_id: str, last_event_id: int = 0, user_id: str | None = None
    ) -> AsyncGenerator[JobEvent, None]:
        """Yield the events after the given id as they come; end with the job.

        It ends after the `complete` event; started at or after it, or at a job that was created ended and has none,
        it yields what is there and ends. Whoever stops earlier closes it (`contextlib.aclosing`).

        At the first step: JobNotFoundError, InvalidPositionError, and EventsLostError where the log doesn't have the
        event of that id: whoever has seen it would miss what takes its place.
        """
        cursor = check_position(last_event_id)
        if cursor and not await self.get_events_since(job_id, cursor - 1, user_id):
            raise EventsLostError(job_id, cursor)
        while True:
            job = await self.get_job_summary(job_id, user_id)
            events = await self.get_events_since(job_id, cursor, user_id)
            for event in events:
                yield event
                if event.type == "complete":
                    return
            cursor += len(events)
            if job is None or job.status in ENDED:
                return
            await asyncio.sleep(POLL_SECONDS)
