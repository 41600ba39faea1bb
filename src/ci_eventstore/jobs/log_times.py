"""Keep a log's times in order though text that one writer took earlier may be stored after another's. Pure."""

from collections.abc import Iterable
from datetime import datetime
from functools import partial
from weakref import ref

from ci_common.models import JobEvent, as_utc


class LogTime:
    """The latest time of what this process writes to one job while it writes the job's log."""

    __slots__ = ("__weakref__", "_last")

    def __init__(self) -> None:
        self._last: datetime | None = None

    def in_order(self, came_at: datetime | None, now: datetime) -> datetime:
        """Return the time for text that came at `came_at`: not before that of later writes, never in the future."""
        if came_at is None or came_at > now:
            came_at = now
        if self._last is not None and came_at < self._last:
            # A caller's own time may be any.
            came_at = min(self._last, now)
        self.note(came_at)
        return came_at

    def note(self, time: datetime) -> None:
        """Give later writes no earlier time."""
        if self._last is None or time > self._last:
            self._last = time


class LogTimes:
    """The times of the jobs whose logs this process is writing; costs next to nothing for others."""

    def __init__(self) -> None:
        #: As long as their writers hold them.
        self._jobs: dict[str, ref[LogTime]] = {}

    def of(self, job_id: str) -> LogTime:
        """Return the time of a job's log, which its writers share."""
        found = self._jobs.get(job_id)
        log_time = None if found is None else found()
        if log_time is None:
            log_time = LogTime()
            self._jobs[job_id] = ref(log_time, partial(self._let_go, job_id))
        return log_time

    def note(self, job_id: str, times: Iterable[datetime | None]) -> None:
        """Note the times of what is written to a job by others than its log's writers."""
        found = self._jobs.get(job_id)
        if found is not None and (log_time := found()) is not None:
            for time in times:
                if time is not None:
                    log_time.note(as_utc(time))

    def note_events(self, job_id: str, events: Iterable[JobEvent]) -> None:
        """Note the times of events that are written to a job by others than its log's writers."""
        if job_id in self._jobs:
            self.note(job_id, [event.timestamp for event in events])

    def _let_go(self, job_id: str, gone: "ref[LogTime]") -> None:
        if self._jobs.get(job_id) is gone:
            del self._jobs[job_id]
