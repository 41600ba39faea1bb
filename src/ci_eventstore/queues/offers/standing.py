"""What a controller knows of its offer, as a pure state machine: where it may stand, and which jobs it has brought.

    nowhere ──Asked──▶ may stand ──Answered, an offer was made──▶ stands ──Asked──▶ may stand
       ▲                  │                                          │
       └──────────────────┴── Answered, none was made; Told of what it brought; Abandoned

A job that an offer has brought is told of twice, by a message and by the answer to the next question, in any order.
"""

from collections.abc import Mapping
from typing import NamedTuple

from ci_eventstore.keys import QueueKeys

#: A controller remembers that it was told of this many claims: a message may come after an answer.
KNOWN_CLAIMS = 8


class Standing(NamedTuple):
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
        """Tell whether this is the token of a claim that it isn't known to have brought."""
        return bool(token) and token not in self.known.get(partition, ())


class Asked(NamedTuple):
    """A question was sent to a partition: it takes the offer back and may make another one; no answer may come."""

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
    """Nobody will ask where it stands any more."""


Happening = Asked | Answered | Told | Abandoned


def after(standing: Standing, what: Happening) -> Standing:
    """Return what is known after something has happened."""
    match what:
        case Asked(partition, question):
            return standing._replace(place=partition, question=question, has_brought=False)
        case Answered(partition, token, is_made):
            # The token of the answer becomes the newest: a store that lost its last moments knows an earlier one. But
            # an answer that a message has overtaken is older than what the message brought.
            brought = _brought(standing, partition, token, is_newest=not standing.has_brought)
            return brought if is_made else brought._replace(place=None)
        case Told(partition, question, token):
            brought = _brought(standing, partition, token)
            return brought._replace(place=None, has_brought=True) if question == standing.question else brought
        case Abandoned():
            return standing._replace(place=None)


def _brought(standing: Standing, partition: QueueKeys, token: str, *, is_newest: bool = False) -> Standing:
    is_news = standing.is_news(partition, token)
    if not token or not (is_news or is_newest):
        return standing
    others = tuple(one for one in standing.known.get(partition, ()) if one != token)
    known = {**standing.known, partition: (*others, token)[-KNOWN_CLAIMS:]}
    return standing._replace(known=known, total=standing.total + is_news)
