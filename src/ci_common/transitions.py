"""The one table of a job's moves between its statuses."""

from ci_common.errors import InvalidTransitionError, ResultConflictError
from ci_common.models import Job, JobStatus

Q, R, C, F, X = JobStatus.QUEUED, JobStatus.RUNNING, JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELLED

#: From each status to those it may move to. Back to queued: a controller gives the job up.
MOVES: dict[JobStatus, frozenset[JobStatus]] = {
    Q: frozenset({R, C, F, X}),
    R: frozenset({Q, C, F, X}),
    C: frozenset(),
    F: frozenset(),
    X: frozenset(),
}

#: The statuses that a job doesn't leave.
ENDED: frozenset[JobStatus] = frozenset(status for status, targets in MOVES.items() if not targets)


def check_move(job_id: str, current: JobStatus, requested: JobStatus) -> None:
    """Raise InvalidTransitionError, naming both, unless a job may go from one status to the other."""
    if requested not in MOVES[current]:
        raise InvalidTransitionError(job_id, current.value, requested.value)


def check_result(job: Job, success: bool) -> None:
    """Raise ResultConflictError if the job has another result; one that failed or was cancelled has False."""
    known = False if job.status in (F, X) else job.success
    if known is not None and known != success:
        raise ResultConflictError(job.id, known, success)
