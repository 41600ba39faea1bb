"""The domain's objects: users, API keys, jobs and their events. Plain, frozen, standard library only."""

import hashlib
import secrets
import signal
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Self, TypeVar

from ci_common.errors import InvalidArgumentError, UnknownStatusError

Value = TypeVar("Value")


class JobStatus(StrEnum):
    """Where a job stands in its life; equal to its own name as text."""

    QUEUED = "queued"
    RUNNING = "running"
    #: The command ran to its end; `Job.success` says with what result.
    COMPLETED = "completed"
    #: The run itself broke: an exception, a lost controller, a missing file.
    FAILED = "failed"
    #: Someone stopped it.
    CANCELLED = "cancelled"

    @classmethod
    def parse(cls, value: str) -> "JobStatus":
        """Return the status of that name; UnknownStatusError names the five there are."""
        try:
            return _STATUSES[value]
        except (KeyError, TypeError):
            raise UnknownStatusError(value) from None


#: The enum itself takes ten times as long to find one.
_STATUSES = {status.value: status for status in JobStatus}


class EventType(StrEnum):
    """The types of a job's visible events."""

    LOG = "log"
    COMPLETE = "complete"


def utc_now() -> datetime:
    """Return the current time, aware, in UTC."""
    return datetime.now(UTC)


def as_utc(time: datetime) -> datetime:
    """Return the time aware and in UTC; a naive one counts as UTC."""
    if time.tzinfo is UTC:
        return time
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)


def to_rfc3339(time: datetime | None) -> str | None:
    """Write a time as RFC 3339 in UTC, ending in `Z`; None stays None."""
    return None if time is None else as_utc(time).isoformat().replace("+00:00", "Z")


def from_rfc3339(text: str | None) -> datetime | None:
    """Read what `to_rfc3339` wrote; None stays None."""
    return None if text is None else datetime.fromisoformat(text)


def as_list(what: str, values: Iterable[Value], needed: str) -> list[Value]:
    """Return several values as a list; InvalidArgumentError for anything else, a single text included."""
    try:
        if not isinstance(values, str | bytes | bytearray | Mapping):
            return list(values)
    except TypeError:
        pass
    raise InvalidArgumentError(what, values, needed)


@dataclass(frozen=True, kw_only=True)
class User:
    """An account."""

    id: str
    name: str
    #: Unique among users, whatever its case.
    email: str
    created_at: datetime
    is_active: bool = True

    def to_dict(self) -> dict[str, Any]:
        """Return all five fields, ready for JSON."""
        return {
            "id": self.id,
            "name": self.name,
            "email": self.email,
            "created_at": to_rfc3339(self.created_at),
            "is_active": self.is_active,
        }


@dataclass(frozen=True, kw_only=True)
class APIKey:
    """A key that authenticates a user; the key itself is never stored, only its hash."""

    id: str
    user_id: str
    name: str | None = None
    #: SHA-256 of the key in hex; kept out of `repr` and `to_dict`.
    key_hash: str = field(repr=False)
    created_at: datetime = field(default_factory=utc_now)
    last_used_at: datetime | None = None
    is_active: bool = True

    def to_dict(self) -> dict[str, Any]:
        """Return all fields but the hash, ready for JSON."""
        return {
            "id": self.id,
            "user_id": self.user_id,
            "name": self.name,
            "created_at": to_rfc3339(self.created_at),
            "last_used_at": to_rfc3339(self.last_used_at),
            "is_active": self.is_active,
        }


#: The random bytes of a key; they make 40 URL-safe characters.
API_KEY_BYTES = 30
API_KEY_PREFIX = "ci_"


def generate_api_key() -> str:
    """Return a new key: `ci_` and 40 URL-safe characters; it is shown once, and only its hash is stored."""
    return API_KEY_PREFIX + secrets.token_urlsafe(API_KEY_BYTES)


def hash_api_key(api_key: str) -> str:
    """Return the SHA-256 of a key in hex: what `APIKey.key_hash` holds and is looked up by."""
    return hashlib.sha256(api_key.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a job's command ended: one of the two is known."""

    exit_code: int | None = None
    #: The name of the signal that killed it, as `SIGKILL`; `SIG40` for one without a name of its own.
    signal: str | None = None

    @classmethod
    def of(cls, returncode: int) -> Self:
        """Return what Python's return code of a process says: -N if signal N killed it."""
        if returncode >= 0:
            return cls(exit_code=returncode)
        number = -returncode
        return cls(signal=signal.Signals(number).name if number in set(signal.Signals) else f"SIG{number}")

    @property
    def is_success(self) -> bool:
        """Whether the command succeeded."""
        return self.exit_code == 0

    def __str__(self) -> str:
        """Say how it ended, as a job's log does."""
        return f"killed by {self.signal}" if self.signal else f"exit code {self.exit_code}"


@dataclass(frozen=True, slots=True)
class JobEvent:
    """One visible event of a job: a piece of its log, or its completion.

    `data` is text; bytes that aren't UTF-8 stand in it as Python's `surrogateescape` decodes them.
    """

    type: str
    data: str | None = None
    success: bool | None = None
    #: None is filled with the current time when the event is accepted.
    timestamp: datetime | None = None
    #: Position in the job's log, 1, 2, 3 …; given by the store, no part of equality.
    id: int | None = field(default=None, compare=False, kw_only=True)
    #: Of a `complete` event: how the command ended, where that is known.
    outcome: Outcome | None = field(default=None, kw_only=True)

    def to_dict(self) -> dict[str, Any]:
        """Return `type`, and `data` and `success` where they aren't None."""
        result: dict[str, Any] = {"type": str(self.type)}
        if self.data is not None:
            result["data"] = self.data
        if self.success is not None:
            result["success"] = self.success
        return result

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], timestamp: datetime | None = None) -> "JobEvent":
        """Build an event from what `to_dict` returned, and its time."""
        return cls(data["type"], data.get("data"), data.get("success"), timestamp)


@dataclass(frozen=True, kw_only=True)
class JobFields:
    """What a job is created with or ends with, beside its id, status and events."""

    user_id: str | None = None
    #: True: passed, False: failed, None: not ended.
    success: bool | None = None
    start_time: datetime | None = None
    end_time: datetime | None = None
    container_id: str | None = None
    #: Where the controller finds the project to run.
    zip_file_path: str | None = None
    created_at: datetime = field(default_factory=utc_now)
    name: str | None = None
    queue: str = "default"
    #: The program and its arguments.
    command: Sequence[str] | None = None
    #: How the command of a completed job ended, where that is known: its exit code, or the signal that killed it.
    exit_code: int | None = None
    signal: str | None = None


@dataclass(frozen=True, kw_only=True)
class Job(JobFields):
    """A CI job, as it stands at one moment. Two jobs are equal if all their fields are; they hash by id."""

    id: str
    #: Given as text or as `JobStatus`; UnknownStatusError for anything else.
    status: JobStatus | str
    #: Visible events 1 … k. Filled by `get_job`, empty in lists.
    events: Sequence[JobEvent] = field(default_factory=list)
    #: Whether its log has outgrown its budget: while the job runs, `events` are the log's beginning only, and when it
    #: has ended, a line among them says what is left out. Said by the store; no part of equality.
    log_truncated: bool = field(default=False, compare=False)
    #: Whether its log was deleted: `events` are those that came later. Said by the store; no part of equality.
    log_deleted: bool = field(default=False, compare=False)
    #: How many times controllers were given it. Said by the store; no part of equality.
    attempts: int = field(default=0, compare=False)

    def __post_init__(self) -> None:
        """Hold sequences as lists and the status as `JobStatus`; UnknownStatusError, InvalidArgumentError."""
        status, events, command = self.status, self.events, self.command
        if type(status) is not JobStatus:
            status = JobStatus.parse(status)
        copied = list(events) if type(events) is list else as_list("events", events, "a list of JobEvents")
        # Frozen objects are set up so; `object.__setattr__` takes five times as long.
        vars(self).update(status=status, events=copied)
        if command is not None:
            needed = "a list of texts, the program first, as ['make', 'test']"
            vars(self).update(command=as_list("command", command, needed))

    def __hash__(self) -> int:
        """Hash by id alone."""
        return hash(self.id)

    def to_dict(self) -> dict[str, Any]:
        """Return id, status, events, success, start and end time, ready for JSON."""
        return {
            "id": self.id,
            "status": str(self.status),
            "events": [event.to_dict() for event in self.events],
            "success": self.success,
            "start_time": to_rfc3339(self.start_time),
            "end_time": to_rfc3339(self.end_time),
        }

    def to_summary_dict(self) -> dict[str, Any]:
        """Return the job without its events, as lists show it."""
        return {
            "job_id": self.id,
            "status": str(self.status),
            "success": self.success,
            "start_time": to_rfc3339(self.start_time),
            "end_time": to_rfc3339(self.end_time),
        }
