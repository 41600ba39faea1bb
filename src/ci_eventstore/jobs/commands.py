"""What may be asked of a job."""

from dataclasses import dataclass
from datetime import datetime

from ci_common.models import JobEvent, JobStatus


@dataclass(frozen=True, slots=True)
class AppendEvents:
    """Append accepted events, all or none; `complete` among them ends the job."""

    events: tuple[JobEvent, ...]


@dataclass(frozen=True, slots=True)
class UpdateStatus:
    """Move the job to a status, or note more about the one it has."""

    status: JobStatus
    start_time: datetime | None = None
    container_id: str | None = None


@dataclass(frozen=True, slots=True)
class HandBack:
    """Put a claimed job back into its queue, because its controller's machine can't run it."""

    controller: str


@dataclass(frozen=True, slots=True)
class Fail:
    """End the job as failed, with a last line in its log that says why."""

    line: str


@dataclass(frozen=True, slots=True)
class Complete:
    """End the job with a `complete` event."""

    event: JobEvent
    #: Whether the event's time was given as the job's end time, and not just as the event's.
    end_time_is_explicit: bool


@dataclass(frozen=True, slots=True)
class Cancel:
    """End the job as cancelled, with a last line in its log that says so; ask its controller to, if one has it."""

    line: str
    #: Only if the job is this user's.
    user_id: str | None = None
    #: Whether it is the controller that has the job: it ends it, with the line of who asked for it.
    is_final: bool = False


Command = AppendEvents | UpdateStatus | HandBack | Fail | Complete | Cancel
