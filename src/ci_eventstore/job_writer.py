"""Write to one job: under a claim, as its controller does, or under none."""

import logging
from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime
from functools import partial

from ci_common.models import JobEvent, JobStatus, utc_now
from ci_common.repository import cancel_message
from ci_common.validation import (
    accept_events,
    check_id,
    check_optional_time,
    check_text,
    check_time,
    optional_id,
)
from ci_eventstore.engines import Engines
from ci_eventstore.errors import StoreError
from ci_eventstore.events.caller import Call, JobCaller
from ci_eventstore.events.codec import encode_batches, encode_logs
from ci_eventstore.jobs.decide import AppendEvents, Cancel, Command, Complete, UpdateStatus
from ci_eventstore.jobs.store import JobStore
from ci_eventstore.queues.claimed import Claim, Claimed
from ci_eventstore.writer.log_writer import LogWriter, WriterSettings
from ci_eventstore.writer.masking import SecretTexts

logger = logging.getLogger("ci_eventstore.jobs")


class JobLogSink:
    """Appends one writer's events to a job, under a claim or ""."""

    def __init__(self, jobs: JobStore, job_id: str, claim: str) -> None:
        self.caller = JobCaller(job_id, jobs.flusher.ledger)
        self.outages = jobs.outages
        self._time = jobs.log_times.of(job_id)
        self._jobs = jobs
        self._job_id = job_id
        self._claim = claim
        #: Whether a call that was acknowledged is there still; StoreUnavailableError.
        self.has_call = partial(jobs.has_call, job_id)

    async def append(self, event: JobEvent, call: Call) -> None:
        """Append an event, with a time that is in order; the same call again has its effect once. StoreError."""
        now = utc_now()
        in_order = replace(event, timestamp=self._time.in_order(event.timestamp, now))
        [accepted] = accept_events([in_order], now, self._jobs.settings.max_event_bytes)
        await self._jobs.write(self._job_id, encode_logs([accepted]), call, self._claim)


class JobWriter:
    """The writes to one job, each after those that this process has begun before.

    Under a claim, they raise LeaseLostError when it isn't the job's any more; under none, JobClaimedError when somebody
    has claimed the job. All may raise JobNotFoundError and StoreError. It works in each event loop that the repository
    does, and there is nothing to close.
    """

    __slots__ = ("_claim", "_claimed", "_engines", "_is_known", "_job_id")

    def __init__(
        self, engines: Engines, job_id: str, claim: Claim | None = None, claimed: Claimed | None = None
    ) -> None:
        """Write under a claim if one is given; `claimed` is what its holder knows of the job. InvalidIdError."""
        self._engines = engines
        self._job_id = check_id("job id", job_id)
        self._claim = "" if claim is None else str(claim)
        self._claimed = claimed
        #: Whether the job's state may still be the one in which it was claimed.
        self._is_known = claimed is not None

    async def append(self, events: Iterable[JobEvent]) -> None:
        """Append events in their order, as `RedisJobRepository.add_events` does."""
        engines = self._engines
        accepted = accept_events(events, utc_now(), engines.settings.max_event_bytes)
        if accepted and all(event.type == "log" for event in accepted):
            jobs = engines.current.jobs
            jobs.log_times.note_events(self._job_id, accepted)
            for batch in encode_batches(accepted):
                await jobs.flusher.lane(self._job_id, self._claim).put(batch)
        else:
            await self.execute(AppendEvents(tuple(accepted)))

    def log_writer(self, *, secrets: SecretTexts = (), settings: WriterSettings | None = None) -> LogWriter:
        """Return a writer for the job's log; secrets are masked in what it writes."""
        sink = JobLogSink(self._engines.current.jobs, self._job_id, self._claim)
        return LogWriter(self._job_id, sink, secrets=secrets, settings=settings)

    async def update_status(
        self, status: str, start_time: datetime | None = None, container_id: str | None = None
    ) -> None:
        """Move the job to another status; UnknownStatusError, InvalidTransitionError."""
        check_optional_time("start_time", start_time)
        check_text("container id", container_id)
        await self.execute(UpdateStatus(JobStatus.parse(status), start_time, container_id))

    async def complete(self, success: bool, end_time: datetime) -> None:
        """End the job with its result, at a time that is given; ResultConflictError."""
        check_time("end_time", end_time)
        [event] = accept_events([JobEvent("complete", success=success, timestamp=end_time)], end_time)
        await self.execute(Complete(event, end_time_is_explicit=True))

    async def end(self, event: JobEvent) -> None:
        """End the job with a `complete` event: in one step with the ends of other claimed jobs, if that can be done."""
        completions = self._engines.current.completions
        if self._claimed is None or not await completions.complete(self._claimed, event):
            await self.append([event])

    async def cancel(self, reason: str | None = None, user_id: str | None = None) -> None:
        """End the job as cancelled; under no claim, have its controller do so. InvalidTransitionError."""
        max_bytes, is_final = self._engines.settings.max_event_bytes, bool(self._claim)
        [line] = accept_events([JobEvent("log", cancel_message(reason))], utc_now(), max_bytes)
        await self.execute(Cancel(line.data or "", optional_id("user id", user_id), is_final))
        if not is_final:
            lost_jobs = self._engines.current.lost_jobs
            try:
                is_over = await lost_jobs.look(self._job_id)
            except StoreError as error:
                # The request is stored; what happens from here on can't make it fail.
                message = "whether its controller is gone can't be seen: %s"
                logger.warning(message, error, extra={"job_id": self._job_id})
                is_over = False
            if not is_over:
                lost_jobs.watch(self._job_id)

    async def execute(self, command: Command) -> None:
        """Execute a command on the job; InvalidTransitionError, ResultConflictError."""
        known = self._claimed.state if self._claimed is not None and self._is_known else None
        self._is_known = False
        await self._engines.current.jobs.execute(self._job_id, command, self._claim, known)
