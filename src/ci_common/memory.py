"""A job store in plain memory: for unit tests of code that needs a repository, and to compare others with.

It is written for being read, without event sourcing: every call changes what is stored, in one step of the event loop.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime

from ci_common.errors import (
    APIKeyAlreadyExistsError,
    APIKeyNotFoundError,
    EmailAlreadyExistsError,
    InvalidTransitionError,
    JobAlreadyExistsError,
    JobNotFoundError,
    UserAlreadyExistsError,
    UserNotFoundError,
)
from ci_common.models import APIKey, Job, JobEvent, JobStatus, Outcome, User, as_utc, utc_now
from ci_common.repository import JobRepository, cancel_message
from ci_common.transitions import ENDED, check_move, check_result
from ci_common.validation import (
    MAX_EVENT_BYTES,
    accept_event,
    accept_events,
    as_text,
    check_api_key,
    check_flag,
    check_id,
    check_job,
    check_optional_id,
    check_optional_time,
    check_position,
    check_text,
    check_time,
    check_user,
    fold_email,
)


@dataclass
class StoredJob:
    """A job, without its events, beside its events."""

    job: Job
    events: list[JobEvent] = field(default_factory=list)
    #: The end time came from an event, so one that `complete_job` is given replaces it.
    is_end_time_from_event: bool = False

    def append(self, event: JobEvent) -> None:
        """Add an event, with the next number."""
        self.events.append(replace(event, id=len(self.events) + 1))

    def complete(self, event: JobEvent, *, is_end_time_explicit: bool) -> None:
        """End the job with a `complete` event; with one there already, the first result stays."""
        success = bool(event.success)
        check_result(self.job, success)
        if not any(earlier.type == "complete" for earlier in self.events):
            self.append(event)
            status = self.job.status if self.job.status in ENDED else JobStatus.COMPLETED
            outcome = event.outcome or Outcome(self.job.exit_code, self.job.signal)
            self.job = replace(
                self.job, status=status, success=success, exit_code=outcome.exit_code, signal=outcome.signal
            )
        if self.job.end_time is None or (is_end_time_explicit and self.is_end_time_from_event):
            self.job = replace(self.job, end_time=event.timestamp)
            self.is_end_time_from_event = not is_end_time_explicit

    def add(self, event: JobEvent) -> None:
        """Add a log line, or end the job with a `complete` event."""
        if event.type == "complete":
            self.complete(event, is_end_time_explicit=False)
        else:
            self.append(event)

    def move(self, status: JobStatus, now: datetime) -> None:
        """Put the job into another status; a `complete` event goes with `failed` and `cancelled`."""
        check_move(self.job.id, JobStatus(self.job.status), status)
        self.job = replace(self.job, status=status)
        if status in ENDED:
            self.complete(JobEvent("complete", success=False, timestamp=now), is_end_time_explicit=False)


class MemoryJobRepository(JobRepository):
    """Keeps everything in this object, for as long as it lives; `close` forgets nothing."""

    def __init__(self, *, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        self._max_event_bytes = max_event_bytes
        self._users: dict[str, User] = {}
        self._api_keys: dict[str, APIKey] = {}
        self._jobs: dict[str, StoredJob] = {}

    async def initialize(self) -> None:
        """Do nothing: there is nothing to connect to."""

    async def close(self) -> None:
        """Do nothing: there is nothing to let go of."""

    # Users

    async def create_user(self, user: User) -> None:
        """Store a new user."""
        check_user(user)
        if user.id in self._users:
            raise UserAlreadyExistsError(user.id)
        if await self.get_user_by_email(user.email):
            raise EmailAlreadyExistsError(user.email)
        self._users[user.id] = user

    async def get_user(self, user_id: str) -> User | None:
        """Return the user of that id."""
        return self._users.get(check_id("user id", user_id))

    async def get_user_by_email(self, email: str) -> User | None:
        """Return the user with that email, whatever its case."""
        folded = fold_email(as_text("email", email))
        return next((user for user in self._users.values() if fold_email(user.email) == folded), None)

    async def list_users(self) -> list[User]:
        """Return all users, the oldest first."""
        return sorted(self._users.values(), key=lambda user: (as_utc(user.created_at), user.id))

    async def update_user_active(self, user_id: str, is_active: bool) -> None:
        """Let a user authenticate, or not."""
        check_flag("is_active", is_active)
        user = await self.get_user(user_id)
        if user is None:
            raise UserNotFoundError(user_id)
        self._users[user_id] = replace(user, is_active=is_active)

    # API keys

    async def create_api_key(self, api_key: APIKey) -> None:
        """Store a new key of a user."""
        check_api_key(api_key)
        if api_key.user_id not in self._users:
            raise UserNotFoundError(api_key.user_id)
        if api_key.id in self._api_keys or await self.get_api_key_by_hash(api_key.key_hash):
            raise APIKeyAlreadyExistsError(api_key.id)
        self._api_keys[api_key.id] = api_key

    async def get_api_key_by_hash(self, key_hash: str) -> APIKey | None:
        """Return the key with that hash."""
        as_text("API key hash", key_hash)
        return next((key for key in self._api_keys.values() if key.key_hash == key_hash), None)

    async def list_api_keys(self, user_id: str | None = None) -> list[APIKey]:
        """Return all keys, or a user's, the oldest first."""
        check_optional_id("user id", user_id)
        keys = [key for key in self._api_keys.values() if user_id in (None, key.user_id)]
        return sorted(keys, key=lambda key: (as_utc(key.created_at), key.id))

    async def revoke_api_key(self, key_id: str) -> None:
        """Make the key inactive."""
        self._api_keys[key_id] = replace(self._api_key(key_id), is_active=False)

    async def update_api_key_last_used(self, key_id: str, timestamp: datetime) -> None:
        """Note when a key was used."""
        check_time("timestamp", timestamp)
        self._api_keys[key_id] = replace(self._api_key(key_id), last_used_at=timestamp)

    def _api_key(self, key_id: str) -> APIKey:
        api_key = self._api_keys.get(check_id("API key id", key_id))
        if api_key is None:
            raise APIKeyNotFoundError(key_id)
        return api_key

    # Jobs

    async def create_job(self, job: Job) -> None:
        """Store a new job with its events; what an ended one lacks comes from its `complete` event."""
        check_job(job)
        events = accept_events(job.events, utc_now(), self._max_event_bytes)
        if job.id in self._jobs:
            raise JobAlreadyExistsError(job.id)
        stored = StoredJob(replace(job, events=[], log_truncated=False, log_deleted=False, attempts=0))
        for event in events:
            stored.add(event)
        self._jobs[job.id] = stored

    async def get_job(self, job_id: str, user_id: str | None = None) -> Job | None:
        """Return a job with its events."""
        stored = self._find_job(job_id, user_id)
        return replace(stored.job, events=stored.events) if stored else None

    async def list_jobs(self, user_id: str | None = None) -> list[Job]:
        """Return all jobs, or a user's, without events, the newest first."""
        check_optional_id("user id", user_id)
        jobs = [replace(stored.job) for stored in self._jobs.values() if user_id in (None, stored.job.user_id)]
        return sorted(jobs, key=lambda job: (as_utc(job.created_at), job.id), reverse=True)

    async def get_job_summary(self, job_id: str, user_id: str | None = None) -> Job | None:
        """Return a job without its events."""
        stored = self._find_job(job_id, user_id)
        return replace(stored.job) if stored else None

    def _find_job(self, job_id: str, user_id: str | None) -> StoredJob | None:
        check_id("job id", job_id)
        check_optional_id("user id", user_id)
        stored = self._jobs.get(job_id)
        return stored if stored and user_id in (None, stored.job.user_id) else None

    def _job(self, job_id: str, user_id: str | None = None) -> StoredJob:
        stored = self._find_job(job_id, user_id)
        if stored is None:
            raise JobNotFoundError(job_id)
        return stored

    # State

    async def update_job_status(
        self, job_id: str, status: str, start_time: datetime | None = None, container_id: str | None = None
    ) -> None:
        """Move a job to another status, or add to the one it has."""
        wanted = JobStatus.parse(status)
        check_optional_time("start_time", start_time)
        check_text("container_id", container_id)
        stored = self._job(job_id)
        now = utc_now()
        if container_id is None or wanted == JobStatus.QUEUED:
            container_id = stored.job.container_id
        if wanted != stored.job.status:
            if wanted == JobStatus.COMPLETED:
                hint = "call complete_job, which takes the result"
                raise InvalidTransitionError(job_id, str(stored.job.status), wanted, hint)
            stored.move(wanted, now)
            if wanted == JobStatus.RUNNING:
                start_time = start_time or now
            if wanted == JobStatus.QUEUED:
                container_id = None
        stored.job = replace(stored.job, start_time=stored.job.start_time or start_time, container_id=container_id)

    async def complete_job(self, job_id: str, success: bool, end_time: datetime) -> None:
        """End a job with its result."""
        check_time("end_time", end_time)
        event = accept_event(JobEvent("complete", success=success, timestamp=end_time), end_time)
        self._job(job_id).complete(event, is_end_time_explicit=True)

    async def cancel_job(self, job_id: str, reason: str | None = None, user_id: str | None = None) -> None:
        """End a job as cancelled, with a last line that says so."""
        now = utc_now()
        line = accept_event(JobEvent("log", cancel_message(reason)), now, self._max_event_bytes)
        stored = self._job(job_id, user_id)
        if stored.job.status == JobStatus.CANCELLED:
            return
        check_move(job_id, JobStatus(stored.job.status), JobStatus.CANCELLED)
        stored.append(line)
        stored.move(JobStatus.CANCELLED, now)

    # Events

    async def add_event(self, job_id: str, event: JobEvent) -> None:
        """Append a visible event."""
        accepted = accept_event(event, utc_now(), self._max_event_bytes)
        self._job(job_id).add(accepted)

    async def add_events(self, job_id: str, events: Iterable[JobEvent]) -> None:
        """Append several events, or none of them."""
        accepted = accept_events(events, utc_now(), self._max_event_bytes)
        stored = self._job(job_id)
        draft = replace(stored, events=list(stored.events))
        for event in accepted:
            draft.add(event)
        self._jobs[job_id] = draft

    async def get_events_since(self, job_id: str, last_event_id: int, user_id: str | None = None) -> list[JobEvent]:
        """Return all events after the one that the caller saw last."""
        position = check_position(last_event_id)
        return self._job(job_id, user_id).events[position:]
