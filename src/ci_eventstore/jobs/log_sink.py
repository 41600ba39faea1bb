"""Where a `LogWriter` puts a job's log: beside what else its process writes to the job."""

from dataclasses import replace

from ci_common.models import JobEvent, utc_now
from ci_common.validation import accept_events
from ci_eventstore.events.batch import encode_logs
from ci_eventstore.events.caller import Call, JobCaller
from ci_eventstore.jobs.store import JobStore


class JobLogSink:
    """Appends one writer's events to a job, under a claim or ""."""

    def __init__(self, jobs: JobStore, job_id: str, claim: str) -> None:
        self.caller = JobCaller(job_id, jobs.flusher.ledger)
        self.outages = jobs.outages
        self._time = jobs.log_times.of(job_id)
        self._jobs = jobs
        self._job_id = job_id
        self._claim = claim

    async def append(self, event: JobEvent, call: Call) -> None:
        """Append an event, with a time that is in order; the same call again has its effect once. StoreError."""
        now = utc_now()
        in_order = replace(event, timestamp=self._time.in_order(event.timestamp, now))
        [accepted] = accept_events([in_order], now, self._jobs.settings.max_event_bytes)
        await self._jobs.write(self._job_id, encode_logs([accepted]), call, self._claim)

    async def has_call(self, token: str, number: int) -> bool:
        """Tell whether a call that was acknowledged is there still; StoreUnavailableError."""
        return await self._jobs.has_call(self._job_id, token, number)
