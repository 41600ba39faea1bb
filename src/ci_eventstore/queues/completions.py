"""Complete claimed jobs: while some are on their way, others gather and go out together."""

from collections.abc import Callable, Sequence

from ci_common.models import JobEvent
from ci_eventstore.connection.nodes import Nodes
from ci_eventstore.events.caller import Caller, Ledger
from ci_eventstore.events.gathering import Gathering, drain_all
from ci_eventstore.keys import QueueKeys
from ci_eventstore.queues.claimed import Claimed
from ci_eventstore.queues.complete import Completion, complete

#: One script call completes at most this many jobs.
COMPLETED_TOGETHER = 128


class _Line(Gathering[Completion, bool]):
    """The completions in one queue and partition: while some are on their way, others gather."""

    def __init__(self, nodes: Nodes, keys: QueueKeys) -> None:
        super().__init__()
        self._nodes = nodes
        self._keys = keys
        self.caller = Caller()

    def count_together(self) -> int:
        """Return how many jobs one script call completes."""
        return COMPLETED_TOGETHER

    async def send(self, items: Sequence[Completion]) -> list[bool]:
        """Complete jobs; return of each whether it was."""
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

        Then it has to be done by the way that all appends go, which takes more time and tells why, if it can't be done.
        OutcomeUnknownError, StoreUnavailableError. Cancelling takes it back if it hasn't left yet.
        """
        job_id = claimed.claim.job_id
        if self._is_writing(job_id, str(claimed.claim)):
            return False
        after = self._ledger.argument(job_id)
        queue = claimed.queue
        line = self._lines.get(queue) or self._lines.setdefault(queue, _Line(self._nodes, queue))
        is_completed = await line.put(Completion(claimed, event, after))
        if is_completed:
            self._ledger.close(job_id)
        return is_completed

    async def drain(self) -> None:
        """Wait until everything that waits has been sent."""
        await drain_all(self._lines)
