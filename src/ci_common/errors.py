"""Every error that a `JobRepository` may raise; one root.

    RepositoryError
    ├── NotFoundError
    │   ├── JobNotFoundError
    │   │   └── JobGoneError
    │   ├── LogDeletedError
    │   ├── UserNotFoundError
    │   └── APIKeyNotFoundError
    ├── AlreadyExistsError
    │   ├── JobAlreadyExistsError
    │   ├── UserAlreadyExistsError
    │   ├── EmailAlreadyExistsError
    │   └── APIKeyAlreadyExistsError
    ├── InvalidInputError (also a ValueError)
    │   ├── InvalidArgumentError
    │   ├── InvalidIdError
    │   ├── InvalidTextError
    │   ├── InvalidJobError
    │   ├── InvalidEventError
    │   │   └── EventTooLargeError
    │   ├── InvalidPositionError
    │   ├── InvalidTimeError
    │   └── UnknownStatusError
    ├── EventsLostError
    └── ConflictError
        ├── InvalidTransitionError
        ├── ResultConflictError
        ├── JobClaimedError
        └── LeaseLostError

What an error is about stands in its attributes as well as in its message. `make docs` draws the tree.
"""


class RepositoryError(Exception):
    """Root of all errors of this package and of those built on it."""


class NotFoundError(RepositoryError):
    """Raised when what a call is about isn't there; most reads return None or an empty list instead."""


class JobNotFoundError(NotFoundError):
    """Raised when there is no such job, or it isn't the given user's."""

    def __init__(self, job_id: str) -> None:
        super().__init__(f"there is no job {job_id!r}")
        self.job_id = job_id


class JobGoneError(JobNotFoundError):
    """Raised when the job was deleted; while that is known, no other job gets its id."""

    def __init__(self, job_id: str) -> None:
        NotFoundError.__init__(self, f"job {job_id!r} was deleted")
        self.job_id = job_id


class LogDeletedError(NotFoundError):
    """Raised when events are asked for that were deleted with the job's log; the job itself is there."""

    def __init__(self, job_id: str, position: int) -> None:
        super().__init__(f"the log of job {job_id!r} was deleted, up to event {position}")
        self.job_id = job_id
        #: Of the last event that is gone; later ones can be read.
        self.position = position


class UserNotFoundError(NotFoundError):
    """Raised when there is no such user."""

    def __init__(self, user_id: str) -> None:
        super().__init__(f"there is no user {user_id!r}")
        self.user_id = user_id


class APIKeyNotFoundError(NotFoundError):
    """Raised when there is no such API key."""

    def __init__(self, key_id: str) -> None:
        super().__init__(f"there is no API key {key_id!r}")
        self.key_id = key_id


class AlreadyExistsError(RepositoryError):
    """Raised when something of that id, email or hash is there already; nothing was written."""


class JobAlreadyExistsError(AlreadyExistsError):
    """Raised when there is a job of that id; of one that was deleted, JobGoneError is raised."""

    def __init__(self, job_id: str) -> None:
        super().__init__(f"there is a job {job_id!r} already: give every job an id of its own")
        self.job_id = job_id


class UserAlreadyExistsError(AlreadyExistsError):
    """Raised when there is a user of that id."""

    def __init__(self, user_id: str) -> None:
        super().__init__(f"there is a user {user_id!r} already")
        self.user_id = user_id


class EmailAlreadyExistsError(AlreadyExistsError):
    """Raised when another user has that email, whatever its case."""

    def __init__(self, email: str) -> None:
        super().__init__(f"there is a user with the email {email!r} already")
        self.email = email


class APIKeyAlreadyExistsError(AlreadyExistsError):
    """Raised when there is an API key of that id or that hash."""

    def __init__(self, key_id: str) -> None:
        super().__init__(f"there is an API key {key_id!r}, or one with the same hash, already")
        self.key_id = key_id


class InvalidInputError(RepositoryError, ValueError):
    """Raised when an argument can't be accepted as it is; nothing was written."""


class InvalidArgumentError(InvalidInputError):
    """Raised when an argument is of another type than it has to be, or out of range."""

    def __init__(self, what: str, value: object, needed: str) -> None:
        super().__init__(f"{what}={value!r} must be {needed}")
        self.what = what
        self.value = value


class InvalidIdError(InvalidInputError):
    """Raised when an id isn't text, is empty or too long, or has braces or characters that can't be printed."""

    def __init__(self, what: str, value: object, reason: str) -> None:
        super().__init__(f"{what} {value!r} {reason}")
        self.value = value


class InvalidTextError(InvalidInputError):
    """Raised when a name, a part of a command or another short text isn't text, or isn't valid Unicode."""

    def __init__(self, what: str, value: object, reason: str = "is not valid Unicode") -> None:
        super().__init__(f"{what} {value!r} {reason}")
        self.value = value


class InvalidJobError(InvalidInputError):
    """Raised when the fields of a new job contradict each other, or it comes with too many events."""

    def __init__(self, job_id: str, reason: str) -> None:
        super().__init__(f"job {job_id!r}: {reason}")
        self.job_id = job_id


class InvalidEventError(InvalidInputError):
    """Raised when an event's type isn't `log` or `complete`, or its fields don't fit its type."""


class EventTooLargeError(InvalidEventError):
    """Raised when one event's data is above the repository's limit."""

    def __init__(self, size_bytes: int, limit_bytes: int) -> None:
        super().__init__(
            f"the event's data has {size_bytes} bytes, the limit is {limit_bytes}: split it into several events"
        )
        self.size_bytes = size_bytes
        self.limit_bytes = limit_bytes


class InvalidPositionError(InvalidInputError):
    """Raised when an event id isn't a whole number from 0 on."""

    def __init__(self, value: object) -> None:
        super().__init__(f"{value!r} is no event id: use the id of the last event you have seen, 0 for none")
        self.value = value


class InvalidTimeError(InvalidInputError):
    """Raised when a time isn't a `datetime`, or lies outside of the years 1 to 9999 once it is written in UTC."""

    def __init__(self, what: str, value: object) -> None:
        super().__init__(f"{what} {value!r} is not a datetime of the years 1 to 9999 in UTC")
        self.value = value


class UnknownStatusError(InvalidInputError):
    """Raised when a status isn't one of the five."""

    def __init__(self, value: object) -> None:
        super().__init__(f"{value!r} is no job status: use queued, running, completed, failed or cancelled")
        self.value = value


class EventsLostError(RepositoryError):
    """Raised when a job's log doesn't have an event that was handed out; to go on, begin again with its first event."""

    def __init__(self, job_id: str, expected: int, found: int | None = None) -> None:
        what = "the log ends before it" if found is None else f"event {found} comes instead"
        super().__init__(f"job {job_id!r}: event {expected} is missing, {what}")
        self.job_id = job_id
        self.expected = expected
        self.found = found


class ConflictError(RepositoryError):
    """Raised when the present state, mostly a job's, forbids the change; it wasn't made."""


class InvalidTransitionError(ConflictError):
    """Raised when a job can't go from its status to the requested one."""

    def __init__(self, job_id: str, current: str, requested: str, hint: str = "") -> None:
        super().__init__(f"job {job_id!r} is {current} and can't become {requested}{hint and ': ' + hint}")
        self.job_id = job_id
        self.current = current
        self.requested = requested


class ResultConflictError(ConflictError):
    """Raised when a job that has a result is given another one; the first one wins."""

    def __init__(self, job_id: str, current: bool, requested: bool) -> None:
        super().__init__(
            f"job {job_id!r} has the result success={current} already, it can't become success={requested}"
        )
        self.job_id = job_id
        self.current = current
        self.requested = requested


class JobClaimedError(ConflictError):
    """Raised when a controller has claimed the job, and something is written without its claim; a cancel may be."""

    def __init__(self, job_id: str) -> None:
        super().__init__(f"job {job_id!r} is claimed by a controller: only that may write to it, or cancel it")
        self.job_id = job_id


class LeaseLostError(ConflictError):
    """Raised when a claim is no longer the job's: another controller has it, or it has ended; nothing was written."""

    def __init__(self, job_id: str) -> None:
        super().__init__(f"job {job_id!r} is not yours any more: the lease was lost, or the job has ended")
        self.job_id = job_id
