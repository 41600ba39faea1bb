"""Claim jobs for one controller: those that its offers bring, that messages tell of, and that it asks for."""

import asyncio
import logging
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from ci_common.errors import RepositoryError
from ci_eventstore.connection.outage_log import OutageLog
from ci_eventstore.errors import StoreError
from ci_eventstore.keys import QueueKeys
from ci_eventstore.queues.claimed import Claimed
from ci_eventstore.queues.offers.offer import Offer
from ci_eventstore.queues.store import CLAIM_JOBS, ClaimStore

logger = logging.getLogger("ci_eventstore.controllers")

#: How long the store is waited for, unless a controller has less time, to take back an offer, and to be forgotten.
SIGN_OFF_SECONDS = 5.0
#: So many jobs that messages tell of are remembered: who claims more at once asks.
TOLD_KEPT = 256


class Heard(NamedTuple):
    """A message: of a job that an offer has brought, or of one that is to be cancelled; else there may be jobs."""

    given: Claimed | None = None
    cancelled: str | None = None


#: Is given jobs as soon as they are claimed.
Take = Callable[[Sequence[Claimed]], None]


class Claimer:
    """Claims jobs of some queues for one controller."""

    def __init__(
        self,
        store: ClaimStore,
        controller: str,
        queues: Sequence[str],
        lease_seconds: float,
        offer_seconds: float,
        hear: Callable[[Heard], None],
    ) -> None:
        """Make offers that stand for so many seconds, so the controller has to ask more often; pass on messages."""
        self._store = store
        self._controller = controller
        self._lease_seconds = lease_seconds
        self._partitions = [partition for queue in queues for partition in store.partitions(queue)]
        self._offer = Offer(controller, int(offer_seconds * 1000))
        #: Queues by channel, and the channels on which this controller is told of the jobs that it was given.
        self._queues = {partition.channel: partition.name for partition in self._partitions}
        self._own_channels = {partition.controllers_channel + self._offer.session for partition in self._partitions}
        self._hear = hear
        self._subscription = store.subscription(self._on_message, lambda channels: hear(Heard()))
        self._outage = OutageLog(logger, "no jobs can be claimed: %s", "jobs can be claimed again")
        self._unreadable = OutageLog(logger, "a message can't be read: %s")
        #: Queues and jobs that messages told of.
        self._told: list[tuple[str, str]] = []

    def listen(self) -> None:
        """Begin to listen to messages."""
        self._subscription.listen(*self._queues, *self._own_channels)

    async def close(self) -> None:
        """Listen no more."""
        await self._subscription.close()

    async def claim(self, count: int, *, is_idle: bool, take: Take = lambda found: None) -> list[Claimed]:
        """Claim up to so many jobs, of all queues in turn; one that is idle and finds none offers to take the next.

        `take` is given them as soon as they are claimed: who is cancelled here has lost none of them.
        """
        told, self._told = self._told[:count], []
        # What an offer may bring has to be known before anything else is claimed.
        if told and self._offer.stands_in is None and (found := await self._claim_told(told, take)):
            return found
        return await self._claim_asking(count, take, is_idle)

    async def withdraw(self, seconds: float = SIGN_OFF_SECONDS) -> list[Claimed]:
        """Take the offer back; return what it has brought and isn't known yet. It has so many seconds for that."""
        partition = self._offer.stands_in
        if partition is None:
            return []
        try:
            async with asyncio.timeout(seconds):
                return await self._store.withdraw(partition, self._offer, self._lease_seconds)
        except (StoreError, TimeoutError) as error:
            logger.warning("an offer couldn't be taken back: %s", str(error) or "the store gave no answer")
            self._offer.stands_in = None
            return []

    async def sign_off(self, seconds: float = SIGN_OFF_SECONDS) -> None:
        """Be forgotten in all queues, if the store does so in time; it would be forgotten anyway."""
        try:
            async with asyncio.timeout(seconds):
                for queue in dict.fromkeys(partition.name for partition in self._partitions):
                    await self._store.sign_off(queue, self._controller)
        except (StoreError, TimeoutError) as failure:
            logger.warning("the controller couldn't sign off: %s", str(failure) or "the store gave no answer")

    def _on_message(self, channel: str, message: bytes) -> None:
        try:
            heard = self._read(channel, message)
        except (ValueError, RepositoryError) as error:
            self._unreadable.failed(error, {"channel": channel})
        else:
            self._hear(heard)

    def _read(self, channel: str, message: bytes) -> Heard:
        if channel in self._own_channels:
            return Heard(given=self._store.read_given(self._offer, message))
        kind, _, what = message.decode().partition(" ")
        if kind == "cancel":
            return Heard(cancelled=what)
        if what and len(self._told) < TOLD_KEPT:
            self._told.append((self._queues[channel], what))
        return Heard()

    async def _claim_told(self, told: Sequence[tuple[str, str]], take: Take) -> list[Claimed]:
        found: list[Claimed] = []
        for queue in dict.fromkeys(queue for queue, _ in told):
            waiting = [job for its_queue, job in told if its_queue == queue]
            with self._reporting(queue):
                claimed = await self._store.claim_waiting(queue, self._controller, waiting, self._lease_seconds)
                take(claimed)
                found += claimed
        return found

    async def _claim_asking(self, count: int, take: Take, is_idle: bool) -> list[Claimed]:
        found: list[Claimed] = []
        partitions, count_before = self._in_turn(), self._offer.count
        for partition in partitions:
            wanted = min(count - len(found), CLAIM_JOBS)
            if wanted < 1 or self._offer.count > count_before:
                break
            makes_offer = is_idle and not found and partition is partitions[-1]
            # None is made while one may stand elsewhere: that partition may not have answered.
            is_its_place = partition == self._offer.stands_in or (makes_offer and self._offer.stands_in is None)
            offer = self._offer if is_its_place else None
            with self._reporting(partition.name):
                claimed = await self._store.claim_in(
                    partition, self._controller, wanted, self._lease_seconds, offer, makes_offer=makes_offer
                )
                take(claimed)
                found += claimed
        return found

    def _in_turn(self) -> list[QueueKeys]:
        """Return the queues' partitions, the one where the offer stands first, the others as they come."""
        partitions = random.sample(self._partitions, len(self._partitions))
        partitions.sort(key=lambda partition: partition != self._offer.stands_in)
        return partitions

    @contextmanager
    def _reporting(self, queue: str) -> Iterator[None]:
        try:
            yield
        except StoreError as error:
            self._outage.failed(error, {"queue": queue})
        else:
            self._outage.worked()
