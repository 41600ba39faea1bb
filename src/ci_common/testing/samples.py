"""What the contract suite creates, asks for and compares."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

from ci_common.models import APIKey, Job, JobEvent, User, utc_now
from ci_common.repository import JobRepository

#: A guard only: no test that passes takes as long.
PATIENCE_SECONDS = 60
#: A time with all its parts, that no clock of today shows.
NOON = datetime(2021, 2, 3, 12, 34, 56, 789_012, tzinfo=UTC)
#: How far the clocks of a store and of its caller may be apart.
CLOCK_TOLERANCE = timedelta(minutes=5)


def at(seconds: float) -> datetime:
    """Return a fixed time, some seconds after `NOON`."""
    return NOON + timedelta(seconds=seconds)


def is_now(time: datetime | None) -> bool:
    """Return whether an aware time was taken from a clock a moment ago."""
    return time is not None and time.tzinfo is not None and abs(time - utc_now()) < CLOCK_TOLERANCE


def new_user(**fields: Any) -> User:
    """Make a user whose id and email nobody else has."""
    user_id = uuid4().hex
    default: dict[str, Any] = {"id": user_id, "name": "Ada", "email": f"{user_id}@example.org", "created_at": NOON}
    return User(**(default | fields))


def new_key(user: User, **fields: Any) -> APIKey:
    """Make a key of a user whose id and hash no other key has."""
    key_id = uuid4().hex
    default: dict[str, Any] = {"id": key_id, "user_id": user.id, "key_hash": key_id * 2, "created_at": NOON}
    return APIKey(**(default | fields))


def new_job(**fields: Any) -> Job:
    """Make a running job whose id no other job has."""
    default: dict[str, Any] = {"id": uuid4().hex, "status": "running", "created_at": NOON}
    return Job(**(default | fields))


def log(text: str | None = "a line\n", **fields: Any) -> JobEvent:
    """Make a log event."""
    return JobEvent("log", text, **fields)


def lines(count: int, name: str = "line") -> list[JobEvent]:
    """Make numbered log events with a timestamp of their own each."""
    return [log(f"{name} {number}\n", timestamp=at(number)) for number in range(1, count + 1)]


def complete(success: bool, **fields: Any) -> JobEvent:
    """Make a complete event."""
    return JobEvent("complete", success=success, **fields)


async def create(repository: JobRepository, *events: JobEvent, **fields: Any) -> str:
    """Create a job, running unless told otherwise, and return its id."""
    job = new_job(events=events, **fields)
    await repository.create_job(job)
    return job.id


async def fetch(repository: JobRepository, job_id: str) -> Job:
    """Return a job that must be there."""
    job = await repository.get_job(job_id)
    assert job is not None
    return job


async def texts(repository: JobRepository, job_id: str) -> list[str | None]:
    """Return what a job's log events say; None for a complete event."""
    return [event.data for event in await repository.get_events_since(job_id, 0)]


def ids(events: Sequence[JobEvent]) -> list[int | None]:
    """Return the events' ids."""
    return [event.id for event in events]


def completions(events: Sequence[JobEvent]) -> list[JobEvent]:
    """Return the complete events among some."""
    return [event for event in events if event.type == "complete"]
