"""Complete claimed jobs, many in one step: the typed face of `complete.lua`."""

import asyncio
import secrets
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from ci_common.models import JobEvent, JobStatus, Outcome
from ci_eventstore.connection.nodes import Nodes
from ci_eventstore.connection.scripts import load_script
from ci_eventstore.errors import OutcomeUnknownError
from ci_eventstore.events.caller import Ledger
from ci_eventstore.events.codec import encode_event
from ci_eventstore.events.flusher import fail_all
from ci_eventstore.events.log_index import INDEX_BYTES, INDEX_EVENTS
from ci_eventstore.jobs.state import encode_field
from ci_eventstore.keys import QueueKeys, jobs_key, keys_of_completion, listing_member
from ci_eventstore.queues.claimed import Claimed

#: Longer than a call may take effect, or be repeated, after its first try.
LAST_CALL_MS = 3_600_000
COMPLETE = load_script(
    __package__,
    "complete",
    {"INDEX_EVENTS": INDEX_EVENTS, "INDEX_BYTES": INDEX_BYTES, "LAST_CALL_MS": LAST_CALL_MS},
)
#: One script call completes at most so many jobs.
COMPLETED_TOGETHER = 128


@dataclass(eq=False, slots=True)
class _Waiting:
    claimed: Claimed
    event: JobEvent
    #: Tokens and numbers of this process's last calls to the job.
    after: str
    done: asyncio.Future[bool]


@dataclass(eq=False, slots=True)
class _Line:
    """The completions in one queue and partition: while some are on their way, others gather."""

    keys: QueueKeys
    waiting: deque[_Waiting] = field(default_factory=deque)
    sender: asyncio.Task[None] | None = None
    session: str = field(default_factory=lambda: secrets.token_hex(8))
    number: int = 0

    def take(self) -> list[_Waiting]:
        """Take those that go out together, without the cancelled ones."""
        batch: list[_Waiting] = []
        while self.waiting and len(batch) < COMPLETED_TOGETHER:
            one = self.waiting.popleft()
            if not one.done.done():
                batch.append(one)
        return batch


class Completions:
    """Completes the jobs that this process has claimed."""

    def __init__(self, nodes: Nodes, is_writing: Callable[[str, str], bool], ledger: Ledger) -> None:
        """Ask `is_writing` whether this process writes to a job under a claim: a completion has to wait for that.

        The ledger has the calls that a completion comes after.
        """
        self._nodes = nodes
        self._is_writing = is_writing
        self._ledger = ledger
        self._lines: dict[QueueKeys, _Line] = {}

    async def complete(self, claimed: Claimed, event: JobEvent) -> bool:
        """Append an accepted `complete` event and end its job, in one step with others; False: nothing was changed.

        Then it has to be done by the way that all appends go, which takes more time and tells why, if it can't be done.
        OutcomeUnknownError, StoreUnavailableError. Cancelling takes it back if it hasn't left yet.
        """
        job_id = claimed.claim.job_id
        if self._is_writing(job_id, str(claimed.claim)):
            return False
        after = self._ledger.argument(job_id)
        queue = claimed.queue
        line = self._lines.get(queue) or self._lines.setdefault(queue, _Line(queue))
        done: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        line.waiting.append(_Waiting(claimed, event, after, done))
        if line.sender is None:
            line.sender = asyncio.create_task(self._send_all(line))
        is_completed = await done
        if is_completed:
            self._ledger.close(job_id)
        return is_completed

    async def drain(self) -> None:
        """Wait until everything that waits has been sent."""
        while senders := {line.sender for line in self._lines.values() if line.sender is not None}:
            await asyncio.wait(senders)

    async def _send_all(self, line: _Line) -> None:
        try:
            while line.waiting:
                if batch := line.take():
                    await self._send(line, batch)
        except BaseException as error:
            fail_all([one.done for one in line.waiting], error)
            line.waiting.clear()
            raise
        finally:
            line.sender = None

    async def _send(self, line: _Line, batch: Sequence[_Waiting]) -> None:
        line.number += 1
        try:
            reply: bytes = await self._nodes.run(COMPLETE, *_describe(line, batch))
            answers = reply.decode("ascii", "replace")
            if len(answers) != len(batch):
                raise OutcomeUnknownError(COMPLETE.name)
        except BaseException as error:
            fail_all([one.done for one in batch], error)
            if not isinstance(error, Exception):
                raise
            # It belongs to those who wait, not to the sender.
            return
        for one, answer in zip(batch, answers, strict=True):
            if not one.done.done():
                one.done.set_result(answer == "y")


def _outcome_field(outcome: Outcome | None) -> str:
    """Return the field that the job's hash gets for an outcome, with its value."""
    if outcome is None:
        return ""
    return f"exit_code {outcome.exit_code}" if outcome.signal is None else f"signal {outcome.signal}"


def _describe(line: _Line, batch: Sequence[_Waiting]) -> tuple[list[str], list[str | int | bytes]]:
    """Return the keys and the arguments of a call."""
    queue, owners = line.keys, dict[str, int]()
    tag = queue.tag
    running, completed = JobStatus.RUNNING, JobStatus.COMPLETED
    keys = [queue.last_call(line.session), queue.dispatch, queue.leases]
    keys += [jobs_key(tag, status=running), jobs_key(tag, status=completed)]
    arguments: list[str | int | bytes] = [line.number, len(batch)]
    for one in batch:
        claimed, event = one.claimed, one.event
        job, claim = claimed.job, claimed.claim
        keys += keys_of_completion(tag, claim.job_id)
        owner = 0 if job.user_id is None else owners.setdefault(job.user_id, len(owners) + 1)
        member = listing_member(job.created_at, claim.job_id)
        time = encode_field(event.timestamp) or ""
        success = "1" if event.success else "0"
        arguments += (
            claim.job_id,
            str(claim),
            claimed.state.ticket or "",
            member,
            owner,
            success,
            time,
            encode_event(event),
            one.after,
            _outcome_field(event.outcome),
        )
    for user_id in owners:
        keys += (jobs_key(tag, user_id, running), jobs_key(tag, user_id, completed))
    return keys, arguments
