"""Keep jobs: decide in Python on the state that was read, write under its version, repeat on conflict."""

import logging
import math
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Self

from ci_common.errors import InvalidJobError, JobClaimedError, JobGoneError, JobNotFoundError, LeaseLostError
from ci_common.models import Job, JobStatus, utc_now
from ci_common.validation import accept_events
from ci_eventstore.connection.nodes import Nodes
from ci_eventstore.errors import AcknowledgedEventsLostError, ProjectionMissingError
from ci_eventstore.events.append import ANY_CLAIM, LOGS, Change, QueuePlace, append, append_logs
from ci_eventstore.events.caller import Call
from ci_eventstore.events.codec import Batch, encode_records
from ci_eventstore.events.lanes import Flusher
from ci_eventstore.events.log_source import LogSource, Standing, read_standing
from ci_eventstore.events.records import Fact, FactType, Record
from ci_eventstore.facts.facts import facts_of
from ci_eventstore.jobs.create import create_waiting, waiting_job
from ci_eventstore.jobs.decide import Cancel, Command, Keep, decide, decide_creation
from ci_eventstore.jobs.evolve import evolve_all
from ci_eventstore.jobs.log_times import LogTimes
from ci_eventstore.jobs.records import read_record
from ci_eventstore.jobs.state import JobState, decided_changes
from ci_eventstore.keys import JobKeys, queues_key
from ci_eventstore.members import backlog_member, listing_member
from ci_eventstore.settings import Settings

logger = logging.getLogger("ci_eventstore.jobs")

#: A new job's events go in with it in one step, which takes no more than this.
MAX_CREATION_EVENTS = 100_000
#: How often the name of a queue that gets jobs is noted, in each partition.
NOTE_QUEUE_SECONDS = 60.0
QUEUES_NOTED = 10_000
#: How many jobs are known by their logs being over their heads.
LIMITED_NOTED = 10_000
#: What the store has as the last number of a token that was closed.
CLOSED = -1


class JobStore:
    """The jobs' writes, and the states that they are decided on."""

    def __init__(
        self,
        nodes: Nodes,
        source: LogSource,
        settings: Settings,
        on_loss: Callable[[], Awaitable[None]],
        before: Self | None = None,
    ) -> None:
        """Write after what `before` has written, the store of an event loop that has ended."""
        self._nodes = nodes
        self._source = source
        #: Awaited before a writer hears that the server has lost what it had stored.
        self._on_loss = on_loss
        self._keys = settings.keys
        self.settings = settings
        #: What keeps failing, for all who write.
        self.outages = nodes.outages
        #: Of the jobs whose logs this process writes.
        self.log_times = LogTimes()
        #: Sends the writes of each job in their order.
        self.flusher: Flusher = Flusher(self.write, before.flusher if before else None)
        #: When each queue's name was noted last in a partition, by the monotonic clock.
        self._noted: dict[tuple[str, str], float] = {}
        #: Jobs whose logs are over their heads, or have ended, as far as is known: `append_logs.lua` isn't asked again.
        #: `append.lua` writes all logs, so it does no harm if that isn't true any more.
        self._limited = set[str]()

    async def state(self, job_id: str) -> JobState | None:
        """Return a job's state, None if there is no such job; ProjectionMissingError."""
        keys = self._keys.job(job_id)
        state = await read_record(self._nodes, self._source, keys)
        if state is None and await read_standing(self._nodes, keys) is Standing.UNPROJECTED:
            raise ProjectionMissingError(job_id)
        return state

    async def known_state(self, job_id: str) -> JobState | None:
        """Return a job's state, None if there never was such a job; JobGoneError, ProjectionMissingError."""
        state = await self.state(job_id)
        if state is None:
            await self._refuse_gone(job_id)
        return state

    async def create(self, job: Job, held: Fact | None = None) -> None:
        """Store a new job with its events in one step; JobAlreadyExistsError.

        If `held` says who has claimed it, the job ends with that process.
        """
        if len(job.events) > MAX_CREATION_EVENTS:
            raise InvalidJobError(job.id, f"it has {len(job.events)} events, {MAX_CREATION_EVENTS} may come with a job")
        now = utc_now()
        events = accept_events(job.events, now, self.settings.max_event_bytes) if job.events else []
        keys = self._keys.job(job.id)

        async def command(call: Call) -> bool:
            records = decide_creation(job, events, now, call.token, held)
            waiting = waiting_job(records)
            # Only an append closes other calls.
            if waiting is not None and not call.closes:
                await create_waiting(self._nodes, keys, waiting)
                return False
            return await self._commit(keys, None, records, call)

        if not self._is_noted(keys.tag, job.queue):
            await self._note_queue(keys.tag, job.queue)
        self._limited.discard(job.id)
        await self.flusher.create(job.id, command)

    async def has_call(self, job_id: str, token: str, number: int) -> bool:
        """Return whether the store still has a call, or a later one of its token; StoreUnavailableError."""
        entry = await self._nodes.read_together("HGET", self._keys.job(job_id).calls, token)
        last = 0 if entry is None else int(entry.split()[0])
        return last == CLOSED or last >= number

    async def execute(self, job_id: str, command: Command, claim: str = "", known: JobState | None = None) -> None:
        """Carry out a command, after what this process is writing to the job already.

        `known` is its state as far as the caller knows: if it is of another version, it is read again.

        JobNotFoundError, JobGoneError, InvalidTransitionError, ResultConflictError, JobClaimedError, LeaseLostError.
        """
        keys = self._keys.job(job_id)

        async def attempts(call: Call) -> bool:
            state = known
            while True:
                state = state or await self.known_state(job_id)
                if state is None:
                    raise JobNotFoundError(job_id)
                needed, now = self._check_claim(job_id, state, command, claim), utc_now()
                records = decide(job_id, state, command, now)
                if not records:
                    return False
                self.log_times.note(job_id, [now])
                if await self._commit(keys, state, records, call, needed):
                    return True
                state = None
                logger.debug("decided again", extra={"job_id": job_id})

        await self.flusher.lane(job_id, claim).do(attempts)

    async def _refuse_gone(self, job_id: str) -> None:
        if await read_standing(self._nodes, self._keys.job(job_id)) is Standing.GONE:
            raise JobGoneError(job_id)

    def _note_limited(self, job_id: str) -> None:
        if len(self._limited) >= LIMITED_NOTED:
            self._limited.clear()
        self._limited.add(job_id)

    def _is_noted(self, tag: str, queue: str) -> bool:
        return time.monotonic() - self._noted.get((tag, queue), -math.inf) <= NOTE_QUEUE_SECONDS

    async def _note_queue(self, tag: str, queue: str) -> None:
        """Add a partition's queue to those that operators see; again now and then, in case the server has lost it."""
        if len(self._noted) >= QUEUES_NOTED:
            self._noted.clear()
        # With others: a process that begins notes it in all partitions at the same time.
        await self._nodes.read_together("SADD", queues_key(tag), queue)
        self._noted[tag, queue] = time.monotonic()

    def _check_claim(self, job_id: str, state: JobState, command: Command, claim: str) -> str:
        """Return what `check_claim` does, and count it when the claim was lost."""
        try:
            return check_claim(job_id, state, command, claim)
        except LeaseLostError:
            self._nodes.counters.refused_stale_writes += 1
            raise

    async def _commit(
        self, keys: JobKeys, state: JobState | None, records: list[Record], call: Call, claim: str = ""
    ) -> bool:
        change = plan_change(keys, state, records)
        if change.enters and not self._is_noted(keys.tag, change.enters):
            await self._note_queue(keys.tag, change.enters)
        return await self.write(keys.job_id, encode_records(records), call, claim, change)

    async def write(self, job_id: str, batch: Batch, call: Call, claim: str = "", change: Change | None = None) -> bool:
        """Append records under a call, whatever else this process writes to the job; the errors of `append`.

        False: the job's version isn't the expected one any more.
        """
        nodes, keys, head_bytes = self._nodes, self._keys.job(job_id), self.settings.max_head_bytes
        try:
            if change is None:
                if job_id not in self._limited and await append_logs(
                    nodes, keys, batch, call=call, claim=claim, head_bytes=head_bytes
                ):
                    return True
                self._note_limited(job_id)
                change = LOGS
            return await append(nodes, keys, batch, call=call, change=change, claim=claim, head_bytes=head_bytes)
        except JobNotFoundError:
            # Should there be another job of that id, it has another log.
            self._limited.discard(job_id)
            await self._refuse_gone(job_id)
            raise
        except AcknowledgedEventsLostError:
            self._limited.discard(job_id)
            # Its writers' last calls went with it.
            await self._refuse_gone(job_id)
            await self._on_loss()
            raise


def check_claim(job_id: str, state: JobState, command: Command, claim: str) -> str:
    """Return the claim under which a command is written; LeaseLostError, JobClaimedError."""
    if claim:
        if state.claim != claim:
            raise LeaseLostError(job_id)
        return claim
    if isinstance(command, Cancel | Keep):
        return ANY_CLAIM
    if state.claim is not None:
        raise JobClaimedError(job_id)
    return ""


def plan_change(keys: JobKeys, before: JobState | None, records: Sequence[Record]) -> Change:
    """Return what appending the records changes in the job's projection."""
    after = evolve_all(before, records)
    given, lost = decided_changes(before, after)
    joins = keys.listings(after.user_id, after.status)
    leaves = [] if before is None else keys.listings(before.user_id, before.status)
    ended, had_ended = after.ended_member(keys.job_id), "" if before is None else before.ended_member(keys.job_id)
    ends = [place for place, record in enumerate(records, start=1) if _is_end(record)]
    return Change(
        expected="new" if before is None else before.version,
        ends_at=ends[-1] if ends else 0,
        kinds="".join("f" if isinstance(record, Fact) else record.type[0] for record in records),
        given=given,
        lost=lost,
        member=listing_member(after.created_at, keys.job_id),
        leaves=[listing for listing in leaves if listing not in joins],
        joins=[listing for listing in joins if listing not in leaves],
        ended=ended if ended != had_ended else "",
        had_ended=had_ended if ended != had_ended else "",
        told=" ".join(
            facts_of(before.status if before else None, after.status, records, is_end=bool(ended and not had_ended))
        ),
        queue=_queue_places(keys, before, after),
        enters=after.lease_queue if JobStatus.QUEUED == after.status != (before and before.status) else "",
    )


def _queue_places(keys: JobKeys, before: JobState | None, after: JobState) -> Sequence[QueuePlace]:
    was_queued = before is not None and before.status == JobStatus.QUEUED
    is_queued = after.status == JobStatus.QUEUED
    steps = list[str]()
    if before is not None and before.claim is not None and after.claim is None:
        steps.append("drop")
    if was_queued != is_queued:
        steps.append("enter" if is_queued else "leave")
    if after.cancel_line is not None and (before is None or before.cancel_line is None):
        steps.append("cancel")
    if not steps:
        return ()
    queue, ticket = keys.queue(after.lease_queue), (before and before.ticket) or ""
    waiting = backlog_member(after.user_id, after.created_at, keys.job_id)
    who = after.user_id or "", waiting, ticket
    all_keys = queue.dispatch, queue.backlog, queue.tickets, queue.leases
    return (QueuePlace(*all_keys, " ".join(steps), *who, queue.channel),)


def _is_end(record: Record) -> bool:
    if isinstance(record, Fact):
        return record.type is FactType.ENDED
    return record.type == "complete"
