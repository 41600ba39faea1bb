"""Claim jobs for one controller: those that its offers bring, that messages name, and that it asks for."""

import asyncio
import logging
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from ci_common.errors import RepositoryError
from ci_eventstore.connection.call_names import Key
from ci_eventstore.connection.nodes import Nodes
from ci_eventstore.connection.outage_log import OutageLog
from ci_eventstore.connection.scripts import load_script
from ci_eventstore.errors import ProjectionDamagedError, StoreError
from ci_eventstore.events.caller import Caller
from ci_eventstore.jobs.state import from_hash, packed_log
from ci_eventstore.keys import Keys, QueueKeys, queue_everywhere
from ci_eventstore.queues.claim import CLAIM_JOBS, Peeked, Waiting, claim, peek
from ci_eventstore.queues.claimed import GONE_MS, Claimed, as_claimed, name_damage
from ci_eventstore.queues.offers import Offer

logger = logging.getLogger("ci_eventstore.controllers")


class TidyCall(NamedTuple):
    """What `tidy.lua` is called with."""

    dispatch: Key
    #: The controllers' last calls.
    calls: Key
    offers: Key
    offered: Key
    clock: Key
    #: The one that signs off; "": none does.
    controller: str
    #: How long one gives no sign of life that is gone.
    gone_ms: int


TIDY = load_script(__package__, "tidy", call=TidyCall)


async def tidy(nodes: Nodes, keys: QueueKeys, controller: str = "") -> None:
    """Forget a controller that has no jobs in one partition, and those that are long gone. StoreError."""
    call = TidyCall(keys.dispatch, keys.calls, keys.offers, keys.offered, keys.clock, controller, GONE_MS)
    await nodes.run(TIDY, *TIDY.order(call))


#: How long to wait for the store when an offer is taken back and when a controller signs off, if there is that time.
SIGN_OFF_SECONDS = 5.0
#: How many jobs that messages named are remembered: a controller that claims more at once asks.
TOLD_KEPT = 256
#: How often a controller looks again when others were faster, before it waits for a message.
RACES = 10


class Heard(NamedTuple):
    """A message: an offer has brought a job, or a job is to be cancelled; if neither, there may be jobs."""

    given: Claimed | None = None
    cancelled: str | None = None


#: Called with jobs as soon as they are claimed.
Take = Callable[[Sequence[Claimed]], None]


class Claimer:
    """Claims jobs of some queues for one controller: first those of lost controllers, then each user's in turn."""

    def __init__(
        self,
        nodes: Nodes,
        keys: Keys,
        controller: str,
        queues: Sequence[str],
        lease_seconds: float,
        offer_seconds: float,
        hear: Callable[[Heard], None],
    ) -> None:
        """Make offers that stand for `offer_seconds`: ask more often than that. `hear` is called with each message."""
        self._nodes = nodes
        self._keys = keys
        self._controller = controller
        self._lease_ms = int(lease_seconds * 1000)
        self._partitions = [partition for queue in queues for partition in queue_everywhere(keys, queue)]
        self._offer = Offer(controller, int(offer_seconds * 1000))
        #: Partitions by channel, and the channels on which this controller hears of jobs that its offers brought.
        self._channels = {partition.channel: partition for partition in self._partitions}
        self._own_channels = {partition.controllers_channel + self._offer.session for partition in self._partitions}
        self._hear = hear
        self._subscription = nodes.subscription(self._on_message, lambda channels: hear(Heard()))
        self._outage = OutageLog(logger, "no jobs can be claimed: %s", "jobs can be claimed again")
        self._unreadable = OutageLog(logger, "a message can't be read: %s")
        #: Jobs that messages named, with their queues.
        self._told: list[tuple[QueueKeys, Waiting]] = []
        #: Jobs that come next unless another controller is faster.
        self._foreseen: dict[QueueKeys, list[Waiting]] = {}
        self._caller = Caller()

    def listen(self) -> None:
        """Listen for messages from now on."""
        self._subscription.listen(*self._channels, *self._own_channels)

    async def close(self) -> None:
        """Stop listening."""
        await self._subscription.close()

    async def claim(self, count: int, *, is_idle: bool, take: Take = lambda found: None) -> list[Claimed]:
        """Claim at most `count` jobs, of all queues in turn; an idle controller that finds none makes an offer.

        `take` gets them as soon as they are claimed, so a caller that is cancelled loses none.
        """
        found: list[Claimed] = []

        def note(claimed: Sequence[Claimed]) -> None:
            take(claimed)
            found.extend(claimed)

        told, self._told = self._told[:count], []
        # What an offer may bring has to be known before anything else is claimed.
        if told and self._offer.place is None:
            await self._claim_told(told, note)
        partitions, brought_before = [] if found else self._in_turn(), self._offer.count
        for partition in partitions:
            wanted = min(count - len(found), CLAIM_JOBS)
            if wanted < 1 or self._offer.count > brought_before:
                break
            with self._reporting(partition.name):
                makes_offer = is_idle and not found and partition is partitions[-1]
                await self._claim_in(partition, wanted, note, makes_offer=makes_offer)
        return found

    async def withdraw(self, seconds: float = SIGN_OFF_SECONDS) -> list[Claimed]:
        """Take the offer back within `seconds`; return the job that it has brought, if no message has said so yet."""
        partition = self._offer.place
        if partition is None:
            return []
        try:
            async with asyncio.timeout(seconds):
                asked = self._offer.ask(partition, makes_offer=False)
                return await self._learn(partition, await peek(self._nodes, partition, 0, self._lease_ms, asked))
        except (StoreError, TimeoutError) as error:
            logger.warning("an offer couldn't be taken back: %s", str(error) or "the store gave no answer")
            self._offer.abandon()
            return []

    async def sign_off(self, seconds: float = SIGN_OFF_SECONDS) -> None:
        """Let all queues forget the controller, if the store answers within `seconds`; in time they do so anyway."""
        try:
            async with asyncio.timeout(seconds):
                for partition in self._partitions:
                    await tidy(self._nodes, partition, self._controller)
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
            return Heard(given=self._offer.read(self._keys, message))
        kind, _, what = message.decode().partition(" ")
        if kind == "cancel":
            return Heard(cancelled=what)
        if what and len(self._told) < TOLD_KEPT:
            self._told.append((self._channels[channel], Waiting.of(what)))
        return Heard()

    async def _claim_told(self, told: Sequence[tuple[QueueKeys, Waiting]], take: Take) -> None:
        """Claim jobs that messages named, as far as it is their turn: that saves a question."""
        for partition in dict.fromkeys(partition for partition, _ in told):
            waiting = [job for its_partition, job in told if its_partition == partition]
            with self._reporting(partition.name):
                call = self._caller.next_call().name
                take(await claim(self._nodes, partition, self._controller, self._lease_ms, call=call, waiting=waiting))

    async def _claim_in(self, partition: QueueKeys, count: int, take: Take, *, makes_offer: bool) -> None:
        """Claim at most `count` jobs of one partition, or learn what the offer there has brought; StoreError.

        First come those that the last question showed beyond what it wanted. If others were faster, ask again.
        """
        offer, expired, waiting = self._offer, list[str](), list[Waiting]()
        # None is made while one may stand elsewhere: that partition may not have answered.
        is_its_place = partition == offer.place or (makes_offer and offer.place is None)
        if offer.place != partition:
            waiting = self._foreseen.pop(partition, [])
        is_asked, brought_before, missing = False, offer.count, count
        for _ in range(RACES):
            if not waiting:
                is_asked, can_offer = True, makes_offer and missing == count
                asked = [offer.ask(partition, makes_offer=can_offer)] if is_its_place else []
                peeked = await peek(self._nodes, partition, missing, self._lease_ms, *asked)
                if is_its_place:
                    take(await self._learn(partition, peeked))
                if offer.count > brought_before:
                    # By this answer or by a message that came meanwhile: there may be no room for more.
                    return
                expired, waiting = peeked.expired, peeked.waiting
            if not expired and not waiting:
                return
            size = max(missing - len(expired), 0)
            now, later, call = waiting[:size], waiting[size:], self._caller.next_call().name
            lease_ms, controller = self._lease_ms, self._controller
            found = await claim(self._nodes, partition, controller, lease_ms, call=call, expired=expired, waiting=now)
            take(found)
            missing -= len(found)
            if missing < 1 and later:
                self._foreseen[partition] = later
            if missing < 1 or (is_asked and found):
                return
            expired, waiting = [], []

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

    def _in_turn(self) -> list[QueueKeys]:
        """Return the queues' partitions, the one where the offer stands first, the others as they come."""
        partitions = random.sample(self._partitions, len(self._partitions))
        partitions.sort(key=lambda partition: partition != self._offer.place)
        return partitions

    @contextmanager
    def _reporting(self, queue: str) -> Iterator[None]:
        try:
            yield
        except StoreError as error:
            self._outage.failed(error, {"queue": queue})
        else:
            self._outage.worked()
