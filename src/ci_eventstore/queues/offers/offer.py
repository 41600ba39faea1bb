"""A controller that has nothing to do offers to take the next job, and is given it in the step that creates it."""

from collections import defaultdict, deque

from ci_eventstore.events.caller import Caller
from ci_eventstore.events.codec import decode, mark_of
from ci_eventstore.jobs.evolve import evolve
from ci_eventstore.jobs.state import JobState, to_job
from ci_eventstore.keys import Keys, QueueKeys
from ci_eventstore.queues.claimed import Claim, Claimed

#: Of so many claims a controller remembers that it was told of them: a message may come after an answer.
KNOWN_CLAIMS = 8


class Offer:
    """What one controller offers: to take one job, of one queue in one partition.

    It stands until the controller asks there again, or for so many milliseconds of the partition's clock. A message
    tells of the job that it brings; should that be lost, the answer to the next question does.
    """

    def __init__(self, controller: str, milliseconds: int) -> None:
        self.controller = controller
        self.milliseconds = milliseconds
        #: The queue and partition in which it stands, or may stand.
        self.stands_in: QueueKeys | None = None
        #: How many jobs it has brought.
        self.count = 0
        self._caller = Caller()
        self._question = ""
        #: Tokens of the last claims that it has brought in each partition.
        self._known = defaultdict[QueueKeys, deque[str]](lambda: deque(maxlen=KNOWN_CLAIMS))

    @property
    def session(self) -> str:
        """By what the store knows this controller from others of its name."""
        return self._caller.token

    def newest(self, partition: QueueKeys) -> str:
        """Return the token of the last claim that it has brought in a partition, "" if there is none."""
        return self._known[partition][-1] if self._known[partition] else ""

    def next_question(self) -> str:
        """Return what a question to the store is recognised by."""
        self._question = self._caller.next_call().name
        return self._question

    def accept(self, partition: QueueKeys, token: str) -> bool:
        """Note a claim; False: it was noted before."""
        is_new = token not in self._known[partition]
        if is_new:
            self._known[partition].append(token)
            self.count += 1
        return is_new

    def missed(self, partition: QueueKeys, told: str) -> Claim | None:
        """Return the claim of which no message came, from what the store answers: "", or "<token> <job id>"."""
        token, _, job_id = told.partition(" ")
        known = self._known[partition]
        if token in known:
            # Another one may be the last, if the store has lost its last moments.
            known.remove(token)
            known.append(token)
            return None
        return Claim(job_id, 1, token) if token else None

    def read(self, keys: Keys, message: bytes) -> Claimed | None:
        """Return the job of which a message tells; None if it is known."""
        question, job_id, size, payloads = message.split(b"\n", maxsplit=3)
        created, claimed = payloads[: int(size)], payloads[int(size) :]
        state = evolve(evolve(None, decode(created, 0)), decode(claimed, 0)).but(mark=mark_of(claimed))
        given_id = job_id.decode()
        given = as_claimed(keys.job(given_id).queue(state.queue), given_id, state)
        if question.decode() == self._question:
            self.stands_in = None
        return given if self.accept(given.queue, given.claim.token) else None


def as_claimed(queue: QueueKeys, job_id: str, state: JobState, lost_by: str | None = None) -> Claimed:
    """Return a job of a queue that is claimed, by its state."""
    assert state.claim is not None
    claim = Claim(job_id, state.epoch, state.claim.partition(" ")[2])
    return Claimed(claim, to_job(job_id, state), state, lost_by, queue)
