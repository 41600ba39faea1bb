"""What a controller has when it has claimed a job, and how it reports one that can't be read."""

import logging
from typing import NamedTuple

from ci_common.models import Job
from ci_eventstore.connection.nodes import Nodes
from ci_eventstore.jobs.state import JobState, to_job
from ci_eventstore.keys import QueueKeys

logger = logging.getLogger("ci_eventstore.queues")


#: The controller's name under which a process claims a job only to end it.
CANCELLER = "cancel"
#: A controller that has no jobs, and hasn't looked for any for this long, is gone.
GONE_MS = 3_600_000


class Claim(NamedTuple):
    """The right to write to one job: the epoch counts its claims, the token is nobody else's."""

    job_id: str
    epoch: int
    token: str

    def __str__(self) -> str:
        """Return the claim as the job's state has it."""
        return f"{self.epoch} {self.token}"


class Claimed(NamedTuple):
    """A job that was just claimed."""

    claim: Claim
    job: Job
    state: JobState
    #: The controller that had it before and is gone; None if it came from the queue.
    lost_by: str | None
    #: The queue that it came from, in its partition.
    queue: QueueKeys

    @property
    def attempts(self) -> int:
        """How often the job was claimed, this time included."""
        return self.state.attempts

    @property
    def is_cancelled(self) -> bool:
        """Whether somebody has asked to cancel it."""
        return self.state.cancel_line is not None


def as_claimed(queue: QueueKeys, job_id: str, state: JobState, lost_by: str | None = None) -> Claimed:
    """Return a job of a queue that is claimed, by its state."""
    assert state.claim is not None
    claim = Claim(job_id, state.epoch, state.claim.partition(" ")[2])
    return Claimed(claim, to_job(job_id, state), state, lost_by, queue)


def name_damage(nodes: Nodes, job_id: str, what: object) -> None:
    """Log, once a minute, that a job is left alone; without an id, that not all of a queue could be written."""
    subject = f"job {job_id} can't be read" if job_id else "not all could be written"
    outage = nodes.outages.of(logger, "%s: run `ci-eventstore rebuild`", kind=job_id)
    outage.failed(f"{subject} ({what})", {"job_id": job_id})
