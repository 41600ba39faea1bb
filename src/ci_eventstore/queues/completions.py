"""Complete claimed jobs: while some are on their way, others gather and go out together by `complete.lua`."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from ci_common.models import JobEvent, JobStatus, Outcome
from ci_eventstore.connection.call_names import Key
from ci_eventstore.connection.nodes import Nodes
from ci_eventstore.connection.scripts import load_script, placed
from ci_eventstore.errors import OutcomeUnknownError
from ci_eventstore.events.caller import Call, Caller, Ledger
from ci_eventstore.events.codec import encode_event
from ci_eventstore.events.lanes import Gathering, drain_all
from ci_eventstore.events.log_index import INDEX_BYTES, INDEX_EVENTS
from ci_eventstore.jobs.evolve import COMPLETED_FIELDS, UNCLAIMED
from ci_eventstore.jobs.state import encode_field
from ci_eventstore.keys import QueueKeys, ended_key, facts_key, jobs_key, keys_of_completion, unsealed_key
from ci_eventstore.members import listing_member
from ci_eventstore.queues.claimed import Claimed

#: Longer than a call may take effect, or be repeated, after its first try.
LAST_CALL_MS = 3_600_000


class JobOfCompletion(NamedTuple):
    """A job to complete, with its arguments."""

    hash: Key
    stream: Key
    #: Its writers' last calls.
    calls: Key
    id: str
    claim: str
    ticket: str
    #: Its members of the listings and of the ended.
    member: str
    ended: str
    #: The place of its user among those of the call; 0: none.
    owner: int
    #: "1" or "0".
    success: str
    #: The time of its end, as the hash has it.
    time: str
    #: Its `complete` event.
    payload: bytes
    #: Tokens and numbers of calls that it comes after.
    after: str
    #: "exit_code 3", "signal SIGTERM" or "".
    outcome: str


class OwnedListings(NamedTuple):
    """The listings of a user's jobs."""

    running: Key
    completed: Key


class CompleteCall(NamedTuple):
    """What `complete.lua` is called with."""

    #: The last call of the process that completes.
    last_call: Key
    dispatch: Key
    leases: Key
    #: Listings of all jobs.
    running: Key
    completed: Key
    ended_jobs: Key
    unsealed: Key
    facts: Key
    #: Of the call: they go up.
    number: int
    jobs: Sequence[JobOfCompletion]
    owned: Sequence[OwnedListings]


COMPLETE = load_script(
    __package__,
    "complete",
    call=CompleteCall,
    constants={
        "INDEX_EVENTS": INDEX_EVENTS,
        "INDEX_BYTES": INDEX_BYTES,
        "LAST_CALL_MS": LAST_CALL_MS,
        "COMPLETED_FIELDS": placed(
            COMPLETED_FIELDS, success="jobs.success(i)", end_time="jobs.time(i)", version="state[4] + 1"
        ),
        "UNCLAIMED_FIELDS": list(UNCLAIMED),
    },
)


class Completion(NamedTuple):
    """A claimed job, and its accepted `complete` event."""

    claimed: Claimed
    event: JobEvent
    #: Tokens and numbers of this process's last calls to the job.
    after: str


async def complete(nodes: Nodes, queue: QueueKeys, call: Call, completions: Sequence[Completion]) -> list[bool]:
    """Complete jobs of a queue and partition, each under its claim; return for each whether it is completed.

    Nothing of the others is changed. OutcomeUnknownError, StoreUnavailableError.
    """
    tag, owners = queue.tag, dict[str, int]()
    running, completed = JobStatus.RUNNING, JobStatus.COMPLETED
    jobs = []
    for (claim, job, state, _, _), event, after in completions:
        owner = 0 if job.user_id is None else owners.setdefault(job.user_id, len(owners) + 1)
        jobs.append(
            JobOfCompletion(
                *keys_of_completion(tag, claim.job_id),
                claim.job_id,
                str(claim),
                state.ticket or "",
                listing_member(job.created_at, claim.job_id),
                listing_member(event.timestamp or job.created_at, claim.job_id),
                owner,
                "1" if event.success else "0",
                encode_field(event.timestamp) or "",
                encode_event(event),
                after,
                _outcome_field(event.outcome),
            )
        )
    owned = [OwnedListings(jobs_key(tag, running, user), jobs_key(tag, completed, user)) for user in owners]
    last_call, of_all = queue.last_call(call.token), (jobs_key(tag, running), jobs_key(tag, completed))
    of_ended = ended_key(tag), unsealed_key(tag), facts_key(tag)
    all_of_it = CompleteCall(last_call, queue.dispatch, queue.leases, *of_all, *of_ended, call.number, jobs, owned)
    reply: bytes = await nodes.run(COMPLETE, *COMPLETE.order(all_of_it))
    answers = reply.decode("ascii", "replace")
    if len(answers) != len(completions):
        raise OutcomeUnknownError(COMPLETE.name)
    return [answer == "y" for answer in answers]


def _outcome_field(outcome: Outcome | None) -> str:
    """Return the field that an outcome adds to the job's hash, and its value."""
    if outcome is None:
        return ""
    return f"exit_code {outcome.exit_code}" if outcome.signal is None else f"signal {outcome.signal}"


#: One script call completes at most this many jobs.
COMPLETED_TOGETHER = 128


class _Line(Gathering[Completion, bool]):
    """The completions in one queue and partition."""

    def __init__(self, nodes: Nodes, keys: QueueKeys) -> None:
        super().__init__()
        self._nodes = nodes
        self._keys = keys
        self.caller = Caller()

    def count_together(self) -> int:
        """Return how many jobs one script call completes."""
        return COMPLETED_TOGETHER

    async def send(self, items: Sequence[Completion]) -> list[bool]:
        """Complete jobs; return for each whether it is completed."""
        return await complete(self._nodes, self._keys, self.caller.next_call(), items)


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

        Then complete it by an append, which takes longer and raises the reason if it can't be done.
        OutcomeUnknownError, StoreUnavailableError. Cancelling takes it back if it hasn't left yet.
        """
        job_id, queue = claimed.claim.job_id, claimed.queue
        if self._is_writing(job_id, str(claimed.claim)):
            return False
        after = self._ledger.argument(job_id)
        line = self._lines.get(queue) or self._lines.setdefault(queue, _Line(self._nodes, queue))
        is_completed = await line.put(Completion(claimed, event, after))
        if is_completed:
            self._ledger.close(job_id)
        return is_completed

    async def drain(self) -> None:
        """Wait until everything that waits has been sent."""
        await drain_all(self._lines)
