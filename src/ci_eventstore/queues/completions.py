"""Complete claimed jobs, many in one step: the typed face of `complete.lua`."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from ci_common.models import JobEvent, JobStatus, Outcome
from ci_eventstore.connection.nodes import Nodes
from ci_eventstore.connection.scripts import load_script
from ci_eventstore.errors import OutcomeUnknownError
from ci_eventstore.events.caller import Call, Caller, Ledger
from ci_eventstore.events.codec import encode_event
from ci_eventstore.events.gathering import Gathering, drain_all
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


class _Completion(NamedTuple):
    claimed: Claimed
    event: JobEvent
    #: Tokens and numbers of this process's last calls to the job.
    after: str


class _Line(Gathering[_Completion, bool]):
    """The completions in one queue and partition: while some are on their way, others gather."""

    def __init__(self, nodes: Nodes, keys: QueueKeys) -> None:
        super().__init__()
        self._nodes = nodes
        self._keys = keys
        self.caller = Caller()

    def count_together(self) -> int:
        """Return how many jobs one script call completes."""
        return COMPLETED_TOGETHER

    async def send(self, items: Sequence[_Completion]) -> list[bool]:
        """Complete jobs; return of each whether it was."""
        keys, arguments = _describe(self._keys, self.caller.next_call(), items)
        reply: bytes = await self._nodes.run(COMPLETE, keys, arguments)
        answers = reply.decode("ascii", "replace")
        if len(answers) != len(items):
            raise OutcomeUnknownError(COMPLETE.name)
        return [answer == "y" for answer in answers]


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
        line = self._lines.get(queue) or self._lines.setdefault(queue, _Line(self._nodes, queue))
        is_completed = await line.put(_Completion(claimed, event, after))
        if is_completed:
            self._ledger.close(job_id)
        return is_completed

    async def drain(self) -> None:
        """Wait until everything that waits has been sent."""
        await drain_all(self._lines)


def _outcome_field(outcome: Outcome | None) -> str:
    """Return the field that the job's hash gets for an outcome, with its value."""
    if outcome is None:
        return ""
    return f"exit_code {outcome.exit_code}" if outcome.signal is None else f"signal {outcome.signal}"


def _describe(queue: QueueKeys, call: Call, batch: Sequence[_Completion]) -> tuple[list[str], list[str | int | bytes]]:
    """Return the keys and the arguments of a call."""
    tag, owners = queue.tag, dict[str, int]()
    running, completed = JobStatus.RUNNING, JobStatus.COMPLETED
    keys = [queue.last_call(call.token), queue.dispatch, queue.leases]
    keys += [jobs_key(tag, status=running), jobs_key(tag, status=completed)]
    arguments: list[str | int | bytes] = [call.number, len(batch)]
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
