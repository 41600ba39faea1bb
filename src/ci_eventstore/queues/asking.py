"""Ask whose turn it is in a queue, and with the same question make an offer or take it back."""

import asyncio
from collections.abc import Callable, Sequence

from ci_eventstore.connection.nodes import Nodes
from ci_eventstore.errors import ProjectionDamagedError, StoreError
from ci_eventstore.jobs.packed_records import packed_log
from ci_eventstore.jobs.state import from_hash
from ci_eventstore.keys import Keys, QueueKeys
from ci_eventstore.queues.claim import Peeked, peek
from ci_eventstore.queues.claimed import Claimed, as_claimed, name_damage
from ci_eventstore.queues.offers import Offer

#: Called with jobs as soon as they are claimed.
Take = Callable[[Sequence[Claimed]], None]


class Asking:
    """Asks for one controller, and learns from the answers which jobs its offers have brought."""

    def __init__(self, nodes: Nodes, keys: Keys, offer: Offer, lease_ms: int, ask_seconds: float | None) -> None:
        """Wait for each answer for at most `ask_seconds`; None: one of several partitions isn't given up for others."""
        self._nodes = nodes
        self._keys = keys
        self._offer = offer
        self._lease_ms = lease_ms
        self._ask_seconds = ask_seconds
        #: When it asked last where the offer stands.
        self._asked_at = 0.0
        #: Whether the last question had no answer.
        self.is_unanswered = False

    def has_offer(self, now: float, seconds: float) -> bool:
        """Return whether an offer stands, or may stand, that was made within that many seconds."""
        return self._offer.place is not None and now - self._asked_at < seconds

    async def ask(self, partition: QueueKeys, count: int, take: Take, makes_offer: bool | None) -> Peeked:
        """Ask for at most `count` jobs; where the offer stands or is to be made, with an offer or without. StoreError.

        In other partitions `makes_offer` is None. `take` gets the job that an offer has brought there before.
        TimeoutError.
        """
        asked = []
        if makes_offer is not None:
            self._asked_at = asyncio.get_running_loop().time()
            asked = [self._offer.ask(partition, makes_offer=makes_offer)]
        self.is_unanswered = True
        try:
            async with asyncio.timeout(self._ask_seconds):
                peeked = await peek(self._nodes, partition, count, self._lease_ms, *asked)
                learned = await self._learn(partition, peeked) if asked else []
        except (StoreError, TimeoutError):
            self._go_without(partition)
            raise
        self.is_unanswered = False
        take(learned)
        return peeked

    async def take_back(self, seconds: float) -> list[Claimed]:
        """Ask where the offer stands, which ends it; return the job that it has brought. StoreError, TimeoutError."""
        partition = self._offer.place
        if partition is None:
            return []
        try:
            async with asyncio.timeout(seconds):
                asked = self._offer.ask(partition, makes_offer=False)
                return await self._learn(partition, await peek(self._nodes, partition, 0, self._lease_ms, asked))
        except (StoreError, TimeoutError):
            self._go_without(partition)
            raise

    def _go_without(self, partition: QueueKeys) -> None:
        """Give up an offer that stands in one of several partitions where there is no answer.

        Until it ends, it may bring a job on top of others, which goes back into its queue.
        """
        if self._ask_seconds is not None and partition == self._offer.place:
            self._offer.abandon()

    async def _learn(self, partition: QueueKeys, peeked: Peeked) -> list[Claimed]:
        """Return the job that the offer has brought, unless a message said so before or it isn't ours any more."""
        missed = self._offer.missed(partition, peeked.given)
        reply = missed and await self._nodes.read("HGETALL", self._keys.job(missed.job_id).hash)
        is_news = self._offer.answered(partition, peeked.given, is_made=peeked.is_offer_made)
        if missed is None or not reply or not is_news or packed_log(reply) is not None:
            return []
        try:
            state = from_hash(missed.job_id, reply)
        except ProjectionDamagedError as error:
            name_damage(self._nodes, missed.job_id, error)
            return []
        return [as_claimed(partition, missed.job_id, state)] if state.claim == str(missed) else []
