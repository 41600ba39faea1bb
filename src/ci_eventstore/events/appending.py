"""What both scripts that append have in common: their limits, and what they answer."""

import logging
from collections.abc import Sequence

from ci_common.errors import JobAlreadyExistsError, JobClaimedError, JobNotFoundError, LeaseLostError
from ci_eventstore.connection.counters import Counters
from ci_eventstore.errors import AcknowledgedEventsLostError, LateOutputError, ProjectionMissingError
from ci_eventstore.events.log_index import INDEX_BYTES, INDEX_EVENTS

logger = logging.getLogger("ci_eventstore.events")

#: Instead of a claim: this may be written whoever has claimed the job.
ANY_CLAIM = "*"
#: Of a log are kept: bytes of text from its beginning, unless a setting says otherwise; bytes from its end, as they are
#: stored; and bytes of text that come after the job's end.
HEAD_BYTES = 64 * 1024 * 1024
RING_BYTES = 1024 * 1024
LATE_BYTES = 1024 * 1024
CONSTANTS = {
    "INDEX_EVENTS": INDEX_EVENTS,
    "INDEX_BYTES": INDEX_BYTES,
    # Entries ride in the message to followers if they have at most this many bytes together, and are at most this many.
    "TOLD_BYTES": 16384,
    "TOLD_ENTRIES": 64,
    # A writer that was idle for an hour may be forgotten, once there are as many as this.
    "CALLS_KEPT": 64,
    "CALLS_AGE_MS": 3_600_000,
    "CALLS_TTL_MS": 86_400_000,
}


def check_answer(reply: Sequence[bytes], job_id: str, records: int, counters: Counters) -> bool:
    """Tell whether a script has appended its records, and count them; False: it leaves that to another call.

    JobNotFoundError, JobAlreadyExistsError, ProjectionMissingError, AcknowledgedEventsLostError, LateOutputError,
    JobClaimedError, LeaseLostError.
    """
    match reply[0]:
        case b"ok" | b"repeated":
            if len(reply) > 2:
                logger.warning("job %s: %s; run `ci-eventstore rebuild`", job_id, reply[2].decode())
            counters.appended_records += records
            return True
        case b"conflict" | b"limited":
            return False
        case b"exists":
            raise JobAlreadyExistsError(job_id)
        case b"missing":
            raise JobNotFoundError(job_id)
        case b"unprojected":
            raise ProjectionMissingError(job_id)
        case b"claimed":
            raise JobClaimedError(job_id)
        case b"fenced":
            counters.refused_stale_writes += 1
            raise LeaseLostError(job_id)
        case b"full":
            raise LateOutputError(job_id, LATE_BYTES)
        case b"lost":
            raise AcknowledgedEventsLostError(job_id)
    raise AssertionError(f"an append was answered {reply[0]!r}")
