"""Tell what a machine can't do from what a job can't, and take no jobs while it can't run any."""

import errno
import logging
import math

from ci_eventstore.controllers.durations import format_duration
from ci_eventstore.errors import MachineError

logger = logging.getLogger("ci_eventstore.controllers")

#: For want of files, processes, memory or disk; another machine may well be able to.
MACHINE_ERRORS = frozenset(
    {errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.ENOMEM, errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO}
)
#: How long no job is taken after the first one that couldn't be run; doubled with each further one, up to the last.
FIRST_PAUSE_SECONDS = 1.0
LAST_PAUSE_SECONDS = 60.0


def raise_machine_error(what: str, error: OSError) -> None:
    """Raise MachineError if an error is the machine's; return if it is the job's."""
    if error.errno in MACHINE_ERRORS:
        raise machine_error(what, error) from error


def machine_error(what: str, error: OSError) -> MachineError:
    """Return the error that says what this machine can't do, and why."""
    return MachineError(f"{what}: {error.strerror or error}")


class MachineHealth:
    """Whether this machine can run jobs, as far as the last ones have shown. Pure but for its log: times are given."""

    def __init__(self) -> None:
        self._failures = 0
        self._failed_at = self._until = -math.inf

    @property
    def is_unfit(self) -> bool:
        """Whether the last job couldn't be run: then jobs are taken one at a time."""
        return self._failures > 0

    def pause(self, now: float) -> float:
        """Return for how many seconds no job is taken yet."""
        return max(self._until - now, 0.0)

    def allowed(self, count: int, now: float) -> int:
        """Return how many of `count` jobs may be taken: after a failure one, to see whether it can be run."""
        if not self._failures:
            return count
        return 0 if self.pause(now) else min(count, 1)

    def note_failure(self, error: MachineError, began: float, now: float) -> None:
        """Note that a job couldn't be run; one that began before the last such failure says nothing new."""
        if began < self._failed_at:
            return
        pause = min(FIRST_PAUSE_SECONDS * 2**self._failures, LAST_PAUSE_SECONDS)
        if not self._failures:
            logger.warning(
                "this machine can't run jobs: %s; they go to others, and it tries again in %s, then less often",
                error,
                format_duration(pause),
            )
        self._failures += 1
        self._failed_at, self._until = now, now + pause

    def note_success(self, began: float) -> None:
        """Note that a job could be run, however it ended; one that began before the last failure proves nothing."""
        if began < self._failed_at:
            return
        if self._failures:
            logger.warning("this machine can run jobs again")
        self._failures, self._failed_at, self._until = 0, -math.inf, -math.inf
