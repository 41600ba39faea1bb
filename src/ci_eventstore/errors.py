"""What can go wrong between the store and its server, below `ci_common.errors.RepositoryError`.

    RepositoryError
    ├── StoreError
    │   ├── NotInitializedError
    │   ├── OtherEventLoopError
    │   ├── AmbiguousPrefixError
    │   ├── ConfigurationError (also a ValueError)
    │   ├── StoreUnavailableError
    │   │   ├── StoreFullError
    │   │   ├── AuthenticationError
    │   │   │   └── MissingRightsError
    │   │   └── EmbeddedServerError
    │   ├── ArchiveUnavailableError
    │   ├── ArchiveDiffersError
    │   ├── UnsuitableServerError
    │   ├── ReadOnlyAccessError
    │   ├── StoreFormatError
    │   │   ├── ProjectionDamagedError
    │   │   └── SegmentDamagedError
    │   ├── FactReaderReplacedError
    │   ├── GroupDroppedError
    │   ├── OutcomeUnknownError
    │   │   └── NotReplicatedError
    │   ├── LogNotStoredError
    │   ├── LogWriterClosedError
    │   ├── LateOutputError
    │   ├── AcknowledgedEventsLostError
    │   ├── ProjectionMissingError
    │   └── StreamDamagedError (also an EventsLostError)
    ├── ConflictError
    │   ├── UserBusyError
    │   └── WebhookLimitError
    ├── NotFoundError
    │   └── WebhookNotFoundError
    ├── InvalidInputError (also a ValueError)
    │   └── ProjectError
    └── MachineError

What an error is about stands in its attributes as well as in its message. `make docs` draws the tree.
"""

from collections.abc import Sequence
from typing import Final, Literal

from ci_common.errors import ConflictError, EventsLostError, InvalidInputError, NotFoundError, RepositoryError


class StoreError(RepositoryError):
    """Root of the errors of the store, its server and its data; raised itself where none of the others fits."""


class NotInitializedError(StoreError):
    """Raised when the repository is used before `initialize()` or after `close()`."""

    def __init__(self) -> None:
        super().__init__("the repository isn't open: await initialize() first, or use it as an async context manager")


class OtherEventLoopError(StoreError):
    """Raised when something is used in another event loop or process than the one that made it; nothing was done."""

    def __init__(self, what: str) -> None:
        super().__init__(f"{what} belongs to another event loop: make another one in the loop that uses it")


class AmbiguousPrefixError(StoreError):
    """Raised when the ids of several jobs begin with the given text."""

    def __init__(self, prefix: str, found: list[str]) -> None:
        super().__init__(f"several jobs begin with {prefix!r}, such as {', '.join(found)}: give more of the id")
        self.prefix = prefix
        self.found = found


class ConfigurationError(StoreError, ValueError):
    """Raised when a URL, prefix, client, archive, rule or setting can't be used; the store wasn't changed."""


#: A partition of a store, by its number; users, API keys and sessions stand in one of their own.
ACCOUNTS: Final = "accounts"
Partition = int | Literal["accounts"]


def name_of(partition: Partition) -> str:
    """Return a partition's name, for messages."""
    return "the partition of accounts" if partition == ACCOUNTS else f"partition {partition}"


class StoreUnavailableError(StoreError):
    """Raised when the server can't be reached, refuses, or a read got no answer in time; nothing was changed.

    The same call may succeed later. The message of a refusal has the server's own words. On a cluster, `partition` is
    the one that was asked for; others may be there.
    """

    partition: Partition | None = None


class StoreFullError(StoreUnavailableError):
    """Raised when the server is out of memory and refuses writes; nothing was changed."""


class AuthenticationError(StoreUnavailableError):
    """Raised when the server asks for a password, or refuses the given one or what its user wants to do."""


class MissingRightsError(AuthenticationError):
    """Raised when the URL's user lacks a right that the store needs; the message names it where it is known."""


class EmbeddedServerError(StoreUnavailableError):
    """Raised when the embedded server doesn't start; the message says why, or ends with the end of its log."""


class ArchiveUnavailableError(StoreError):
    """Raised when an archive can't be used: it is away, refuses, or no archive is at its URL; try again later."""

    def __init__(self, url: str, why: str) -> None:
        super().__init__(f"the archive{f' at {url}' if url else ''} can't be used: {why}")
        self.url = url


class ArchiveDiffersError(StoreError):
    """Raised when an archive has an object of the name with other bytes than were to be written; they stay."""

    def __init__(self, url: str, name: str) -> None:
        super().__init__(f"the archive at {url} has other bytes as {name}: they stay, and nothing was written")
        self.url = url
        self.name = name


class UnsuitableServerError(StoreError):
    """Raised when the server is too old, isn't what its URL says, or has settings that could lose data."""


class ReadOnlyAccessError(StoreError):
    """Raised when a repository that was opened with `access="read"` is to write; nothing was sent."""

    def __init__(self, what: str) -> None:
        super().__init__(f"{what}: this repository was opened with access='read', and writes nothing")


class StoreFormatError(StoreError):
    """Raised when the data has another format version or partition count, or something in it can't be read."""


class ProjectionDamagedError(StoreFormatError):
    """Raised when a job's hash, sparse index or ring can't be read; `rebuild` mends the first two from the log."""

    def __init__(self, job_id: str, what: str) -> None:
        super().__init__(f"job {job_id!r}: {what}; run `ci-eventstore rebuild`, then try again")
        self.job_id = job_id


class SegmentDamagedError(StoreFormatError):
    """Raised when a segment of a sealed log is missing, is another one, or has bytes that nobody wrote."""

    def __init__(self, segment: str, what: str, block: int | None = None) -> None:
        where = "" if block is None else f", block {block}"
        super().__init__(f"segment {segment or 'without a name'}{where}: {what}")
        self.segment = segment
        self.what = what
        self.block = block


class FactReaderReplacedError(StoreError):
    """Raised when a reader acknowledges facts after another one of its group took over; that one gets them again."""

    def __init__(self, group: str) -> None:
        super().__init__(f"another reader of the group {group!r} has taken over: subscribe again")
        self.group = group


class GroupDroppedError(StoreError):
    """Raised when a group of readers of facts is dropped while it is read."""

    def __init__(self, group: str) -> None:
        super().__init__(f"the group {group!r} was dropped")
        self.group = group


class OutcomeUnknownError(StoreError):
    """Raised when a write got no answer: it took effect once, or it never will."""

    def __init__(self, what: str, reply: str | None = None) -> None:
        answer = "gave no answer" if reply is None else f"gave no answer, then {reply!r}"
        super().__init__(f"{what}: the server {answer}; read the job to see whether it took effect")


class NotReplicatedError(OutcomeUnknownError):
    """Raised when a write took effect, but too few replicas confirmed it in time: a failover may lose it."""

    def __init__(self, what: str, wanted: int, answered: int) -> None:
        StoreError.__init__(self, f"{what}: done, but {answered} of {wanted} replicas have it; a failover may lose it")
        self.wanted = wanted
        self.answered = answered


class LogNotStoredError(StoreError):
    """Raised when a `LogWriter` gave up; what it couldn't store is in the file `path`, if that could be written."""

    def __init__(self, job_id: str, size_bytes: int, path: str | None) -> None:
        where = f"they are in {path}" if path else "they could not be kept in a local file either"
        super().__init__(f"job {job_id!r}: the last {size_bytes} bytes of its log could not be stored; {where}")
        self.job_id = job_id
        self.size_bytes = size_bytes
        self.path = path


class LogWriterClosedError(StoreError):
    """Raised when a `LogWriter` that isn't open is written to or flushed; nothing was taken."""

    def __init__(self, job_id: str) -> None:
        super().__init__(
            f"the log writer of job {job_id!r} isn't open: write inside its `async with`, before the job ends"
        )
        self.job_id = job_id


class LateOutputError(StoreError):
    """Raised when a job has ended and its log takes no more output; nothing was stored."""

    def __init__(self, job_id: str, limit_bytes: int) -> None:
        super().__init__(f"job {job_id!r} has ended, and its log takes {limit_bytes} bytes of late output at most")
        self.job_id = job_id
        self.limit_bytes = limit_bytes


class AcknowledgedEventsLostError(StoreError):
    """Raised when the server no longer knows events that it had acknowledged, as after a failover."""

    def __init__(self, job_id: str) -> None:
        super().__init__(f"job {job_id!r}: the server lost events that it had acknowledged (a failover, or a restore)")
        self.job_id = job_id


class ProjectionMissingError(StoreError):
    """Raised when a job's stream is there but its hash isn't; `rebuild` mends it, then try again."""

    def __init__(self, job_id: str) -> None:
        super().__init__(f"job {job_id!r} has events but no projection: run `ci-eventstore rebuild`, then try again")
        self.job_id = job_id


class StreamDamagedError(StoreError, EventsLostError):
    """Raised when a job's stream lacks events that the store had acknowledged, or has others in their place."""


class UserBusyError(ConflictError):
    """Raised when a user can't be erased because jobs of theirs run; the user is inactive by then."""

    def __init__(self, user_id: str, job_ids: Sequence[str], *, were_cancelled: bool = False) -> None:
        some = ", ".join(job_ids[:10]) + (" …" if len(job_ids) > 10 else "")
        told = "were cancelled, and still run" if were_cancelled else "run"
        advice = "erase the user when they have ended" if were_cancelled else "cancel them, or erase with --cancel"
        super().__init__(f"jobs of user {user_id!r} {told}: {some}; {advice}")
        self.user_id = user_id
        self.job_ids = job_ids


class WebhookNotFoundError(NotFoundError):
    """Raised when there is no webhook of that id, or it is another user's."""

    def __init__(self, webhook_id: str) -> None:
        super().__init__(f"there is no webhook {webhook_id!r}")
        self.webhook_id = webhook_id


class WebhookLimitError(ConflictError):
    """Raised when there are as many webhooks as there may be."""


class ProjectError(InvalidInputError):
    """Raised when a job's project can't be packed or unpacked; the message says why."""


class MachineError(RepositoryError):
    """Raised by a handler when this machine can't run jobs, for want of disk, memory, files or processes.

    The job goes back to its queue, and its controller takes no jobs for a while.
    """
