"""A controller that has nothing to do offers to take the next job, and gets it in the step that creates it.

What a controller knows of its offer is a pure state machine: where it may stand, and which jobs it has brought.

    nowhere ──Asked──▶ may stand ──Answered, an offer was made──▶ stands ──Asked──▶ may stand
       ▲                  │                                          │
       └──────────────────┴── Answered, none was made; Told of what it brought; Abandoned

A message and the answer to the next question both report a job that an offer has brought, in any order.
"""

from collections.abc import Mapping
from typing import NamedTuple

from ci_eventstore.events.caller import Caller
from ci_eventstore.events.codec import decode
from ci_eventstore.jobs.evolve import evolve_given
from ci_eventstore.keys import Keys, QueueKeys
from ci_eventstore.queues.claimed import Claim, Claimed, as_claimed

#: An offer stands for this many polls: a controller that hangs gets no job after that.
OFFER_POLLS = 2.0
#: How many claims a controller remembers: the message about one may come after the answer.
KNOWN_CLAIMS = 8


class OfferState(NamedTuple):
    """What is known of an offer."""

    #: The queue and partition in which it stands, or may stand.
    place: QueueKeys | None = None
    #: The last question, by which the store knows the offer, and whether the offer that it made has brought its job.
    question: str = ""
    has_brought: bool = False
    #: Tokens of the last claims that it has brought in each partition, the newest last.
    known: Mapping[QueueKeys, tuple[str, ...]] = {}
    #: How many jobs it has brought.
    total: int = 0

    def newest(self, partition: QueueKeys) -> str:
        """Return the token of the last claim that it has brought in a partition, "" if there is none."""
        return self.known.get(partition, ("",))[-1]

    def is_news(self, partition: QueueKeys, token: str) -> bool:
        """Return whether this is the token of a claim that it isn't known to have brought."""
        return bool(token) and token not in self.known.get(partition, ())


class Asked(NamedTuple):
    """A question was sent to a partition: it takes the offer back and may make another; the answer may be lost."""

    partition: QueueKeys
    question: str


class Answered(NamedTuple):
    """A question was answered, and the claim with this token is dealt with: the last one that was brought there."""

    partition: QueueKeys
    token: str
    is_made: bool


class Told(NamedTuple):
    """A message has brought a job, by the offer that a question made."""

    partition: QueueKeys
    question: str
    token: str


class Abandoned(NamedTuple):
    """Nobody will ask any more where it stands."""


Happening = Asked | Answered | Told | Abandoned


def after(state: OfferState, what: Happening) -> OfferState:
    """Return what is known after something happened."""
    match what:
        case Asked(partition, question):
            return state._replace(place=partition, question=question, has_brought=False)
        case Answered(partition, token, is_made):
            # The token of the answer becomes the newest: a store that lost its last moments knows an earlier one. But
            # an answer that a message has overtaken is older than what the message brought.
            known, total = _with_claim(state, partition, token, is_newest=not state.has_brought)
            place = state.place if is_made else None
            return OfferState(place, state.question, state.has_brought, known, total)
        case Told(partition, question, token):
            known, total = _with_claim(state, partition, token)
            is_last = question == state.question
            place = None if is_last else state.place
            return OfferState(place, state.question, is_last or state.has_brought, known, total)
        case Abandoned():
            return state._replace(place=None)


def _with_claim(
    state: OfferState, partition: QueueKeys, token: str, *, is_newest: bool = False
) -> tuple[Mapping[QueueKeys, tuple[str, ...]], int]:
    """Return the tokens that are known and how many jobs were brought, once a claim with this token was."""
    before, is_news = state.known.get(partition, ()), state.is_news(partition, token)
    if not token or not (is_news or is_newest):
        return state.known, state.total
    others = before if is_news else tuple(one for one in before if one != token)
    return {**state.known, partition: (*others, token)[-KNOWN_CLAIMS:]}, state.total + is_news


class Offer:
    """One controller's offer to take one job of one queue in one partition.

    It stands until the controller asks there again, or for `milliseconds` of the partition's clock. A message
    names the job that it brings; if that is lost, the answer to the next question does.
    """

    def __init__(self, controller: str, milliseconds: int) -> None:
        self.controller = controller
        self.milliseconds = milliseconds
        self.state = OfferState()
        self._caller = Caller()

    @property
    def session(self) -> str:
        """What distinguishes this controller from others of its name."""
        return self._caller.token

    @property
    def place(self) -> QueueKeys | None:
        """The queue and partition in which it stands, or may stand."""
        return self.state.place

    @property
    def count(self) -> int:
        """How many jobs it has brought."""
        return self.state.total

    def ask(self, partition: QueueKeys, *, makes_offer: bool) -> tuple[str, str, int, str]:
        """Note that a question leaves; return controller, question, how long it offers, and the newest claim."""
        question = self._caller.next_call().name
        self._happened(Asked(partition, question))
        return self.controller, question, self.milliseconds if makes_offer else 0, self.state.newest(partition)

    def missed(self, partition: QueueKeys, given: str) -> Claim | None:
        """Return the claim in an answer ("", or "<token> <job id>") if no message has named it."""
        token, _, job_id = given.partition(" ")
        return Claim(job_id, 1, token) if self.state.is_news(partition, token) else None

    def answered(self, partition: QueueKeys, given: str, *, is_made: bool) -> bool:
        """Note an answer after reading the job that it names; return whether that is still news.

        A controller that fails or stops before this asks there again.
        """
        return self._happened(Answered(partition, given.partition(" ")[0], is_made))

    def read(self, keys: Keys, message: bytes) -> Claimed | None:
        """Return the job in a message; None if it is known."""
        *words, payload = message.split(b"\n", maxsplit=4)
        question, given_id, claim, ticket = [word.decode() for word in words]
        state = evolve_given(decode(payload, 0), self.controller, claim, ticket)
        given = as_claimed(keys.job(given_id).queue(state.queue), given_id, state)
        return given if self._happened(Told(given.queue, question, given.claim.token)) else None

    def abandon(self) -> None:
        """Stop asking where it may stand."""
        self._happened(Abandoned())

    def _happened(self, what: Happening) -> bool:
        """Note it; return whether it has brought a job."""
        before, self.state = self.state, after(self.state, what)
        return self.state.total > before.total
