"""A controller that has nothing to do offers to take the next job, and is given it in the step that creates it."""

from ci_eventstore.events.caller import Caller
from ci_eventstore.events.codec import decode, mark_of
from ci_eventstore.jobs.evolve import evolve
from ci_eventstore.keys import Keys, QueueKeys
from ci_eventstore.queues.claimed import Claim, Claimed, as_claimed
from ci_eventstore.queues.offers.standing import Abandoned, Answered, Asked, Happening, Standing, Told, after


class Offer:
    """What one controller offers: to take one job, of one queue in one partition.

    It stands until the controller asks there again, or for `milliseconds` of the partition's clock. A message
    tells of the job that it brings; should that be lost, the answer to the next question does.
    """

    def __init__(self, controller: str, milliseconds: int) -> None:
        self.controller = controller
        self.milliseconds = milliseconds
        self.standing = Standing()
        self._caller = Caller()

    @property
    def session(self) -> str:
        """By what the store knows this controller from others of its name."""
        return self._caller.token

    @property
    def place(self) -> QueueKeys | None:
        """The queue and partition in which it stands, or may stand."""
        return self.standing.place

    @property
    def count(self) -> int:
        """How many jobs it has brought."""
        return self.standing.total

    def ask(self, partition: QueueKeys, *, makes_offer: bool) -> tuple[str, str, int, str]:
        """Note that a question leaves; return whose it is, its name, how long it offers, the newest claim."""
        question = self._caller.next_call().name
        self._happened(Asked(partition, question))
        return self.controller, question, self.milliseconds if makes_offer else 0, self.standing.newest(partition)

    def missed(self, partition: QueueKeys, given: str) -> Claim | None:
        """Return the claim that no message told of, by what an answer says: "", or "<token> <job id>"."""
        token, _, job_id = given.partition(" ")
        return Claim(job_id, 1, token) if self.standing.is_news(partition, token) else None

    def answered(self, partition: QueueKeys, given: str, *, is_made: bool) -> bool:
        """Note an answer, when what it brought is known; return whether no message has told of that meanwhile.

        Whoever fails or stops before this has to ask there again.
        """
        return self._happened(Answered(partition, given.partition(" ")[0], is_made))

    def read(self, keys: Keys, message: bytes) -> Claimed | None:
        """Return the job of which a message tells; None if it is known."""
        question, job_id, size, payloads = message.split(b"\n", maxsplit=3)
        created, claimed = payloads[: int(size)], payloads[int(size) :]
        state = evolve(evolve(None, decode(created, 0)), decode(claimed, 0)).but(mark=mark_of(claimed))
        given_id = job_id.decode()
        given = as_claimed(keys.job(given_id).queue(state.queue), given_id, state)
        return given if self._happened(Told(given.queue, question.decode(), given.claim.token)) else None

    def abandon(self) -> None:
        """Ask no more where it may stand."""
        self._happened(Abandoned())

    def _happened(self, what: Happening) -> bool:
        """Note it; return whether it has brought a job."""
        before, self.standing = self.standing, after(self.standing, what)
        return self.standing.total > before.total
