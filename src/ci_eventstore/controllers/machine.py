"""Tell what a machine can't do from what a job can't, and take no jobs while it can't run any."""

import errno
import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager

from ci_eventstore.controllers.durations import format_duration
from ci_eventstore.errors import MachineError

logger = logging.getLogger("ci_eventstore.controllers")

#: This machine lacks files, processes, memory or disk; another one may well have them.
MACHINE_ERRORS = frozenset(
    {errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.ENOMEM, errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO}
)
#: How long no job is taken after the first one that couldn't be run; doubled with each further one, up to the last.
FIRST_PAUSE_SECONDS = 1.0
LAST_PAUSE_SECONDS = 60.0


def raise_machine_error(what: str, error: OSError) -> None:
    """Raise MachineError if the machine is at fault; return if the job is."""
    if error.errno in MACHINE_ERRORS:
        raise machine_error(what, error) from error


def machine_error(what: str, error: OSError) -> MachineError:
    """Return the error for what this machine can't do, with the reason."""
    return MachineError(f"{what}: {error.strerror or error}")


@contextmanager
def this_machine_needs(what: str) -> Iterator[None]:
    """Raise MachineError for any OSError inside: no job can be run without this."""
    try:
        yield
    except OSError as error:
        raise machine_error(what, error) from error


class MachineHealth:
    """Decides from the last jobs whether this machine can run any. Pure but for its log: callers pass the time."""

    def __init__(self) -> None:
        self._failures = 0
        self._failed_at = self._until = -math.inf

    @property
    def is_unfit(self) -> bool:
        """Whether this machine couldn't run the last job; until it runs one, it takes them one at a time."""
        return self._failures > 0

    def pause(self, now: float) -> float:
        """Return how many seconds are left before the next job may be taken."""
        return max(self._until - now, 0.0)

    def allowed(self, count: int, now: float) -> int:
        """Return how many of `count` jobs may be taken; after a failure one, as a trial."""
        if not self._failures:
            return count
        return 0 if self.pause(now) else min(count, 1)

    def note_failure(self, error: MachineError, began: float, now: float) -> None:
        """Note that a job couldn't be run; a job that began before the last failure says nothing new."""
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
        """Note that a job was run, however it ended; a job that began before the last failure proves nothing."""
        if began < self._failed_at:
            return
        if self._failures:
            logger.warning("this machine can run jobs again")
        self._failures, self._failed_at, self._until = 0, -math.inf, -math.inf
