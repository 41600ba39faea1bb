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
from ci_eventstore.errors import StoreError
from ci_eventstore.events.caller import Caller
from ci_eventstore.keys import Keys, QueueKeys, queue_everywhere
from ci_eventstore.queues.asking import Asking, Take
from ci_eventstore.queues.claim import CLAIM_JOBS, Waiting, claim
from ci_eventstore.queues.claimed import GONE_MS, Claimed
from ci_eventstore.queues.offers import OFFER_POLLS, Offer
from ci_eventstore.queues.outlook import Outlook
from ci_eventstore.queues.watch import ASK_SECONDS, COUNTED_POLLS, LOOKED_TOGETHER, Watch

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
#: How many polls a controller that finds jobs may go without being counted, which takes a moment.
BUSY_POLLS = 2.0
#: How often a controller looks again when others were faster, before it waits for a message.
RACES = 10


class Heard(NamedTuple):
    """A message: an offer has brought a job, or a job is to be cancelled; if neither, there may be jobs."""

    given: Claimed | None = None
    cancelled: str | None = None


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
        self._poll_seconds = offer_seconds / OFFER_POLLS
        ask_seconds = ASK_SECONDS if keys.partitions > 1 else None
        self._asking = Asking(nodes, keys, self._offer, self._lease_ms, ask_seconds)
        self._outlook = Outlook(self._partitions, lease_seconds, self._poll_seconds)
        session, slices = self._offer.session, self._outlook.slices
        self._watch = Watch(nodes, keys, session, COUNTED_POLLS * self._poll_seconds, slices, self._reporting)
        #: Where the next offer is made: where the last job was found.
        self._home = random.choice(self._partitions)
        #: Partitions that know this controller.
        self._known_in = set[QueueKeys]()
        #: Partitions by channel, and the channels on which this controller hears of jobs that its offers brought.
        self._channels = {partition.channel: partition for partition in self._partitions}
        self._own_channels = {partition.controllers_channel + self._offer.session for partition in self._partitions}
        self._hear = hear
        self._subscription = nodes.subscription(self._on_message, self._on_listening)
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

    @property
    def is_offering(self) -> bool:
        """Whether an offer stands, or may stand."""
        return self._offer.place is not None

    async def close(self) -> None:
        """Stop listening."""
        await self._subscription.close()

    async def claim(self, count: int, *, is_idle: bool, take: Take = lambda found: None) -> list[Claimed]:
        """Claim at most `count` jobs, of all queues in turn; an idle controller that finds none makes an offer.

        It asks where messages say that jobs may wait, looks at the partitions that are due, and asks at its home.
        `take` gets them as soon as they are claimed, so a caller that is cancelled loses none. If an offer stands
        beside jobs that were found (`is_offering`), the next call takes it back, also one for no jobs.
        """
        found, was_called, now = list[Claimed](), bool(self._outlook.hinted), asyncio.get_running_loop().time()

        def note(claimed: Sequence[Claimed]) -> None:
            take(claimed)
            found.extend(claimed)
            if claimed:
                self._home = claimed[-1].queue

        brought_before = self._offer.count
        if not is_idle and self.is_offering:
            await self._end_offer(note)
        if self._told:
            told, self._told = self._told[:count], []
            await self._claim_told(told, note)
        if found or count < 1:
            return found

        def wanted() -> int:
            """Return how many jobs there is room for."""
            return 0 if self._offer.count > brought_before else min(count - len(found), CLAIM_JOBS)

        home = self._offer.place or self._home
        if len(self._partitions) > 1:
            await self._claim_elsewhere(home, wanted, note)
        is_left_alone = is_idle and was_called and self._asking.has_offer(now, self._poll_seconds / 2)
        if wanted() > 0 and (self._outlook.take_hint(home) or not is_left_alone):
            with self._reporting(home.name):
                await self._claim_in(home, wanted(), note, makes_offer=is_idle and not found)
            if self._asking.is_unanswered:
                self._home = random.choice(self._partitions)
        if self._keys.partitions > 1:
            await self._watch.count(BUSY_POLLS if found else 1.0)
        return found

    async def withdraw(self, seconds: float = SIGN_OFF_SECONDS) -> list[Claimed]:
        """Take the offer back within `seconds`; return the job that it has brought, if no message has said so yet."""
        try:
            return await self._asking.take_back(seconds)
        except (StoreError, TimeoutError) as error:
            logger.warning("an offer couldn't be taken back: %s", str(error) or "the store gave no answer")
            self._offer.abandon()
            return []

    async def sign_off(self, seconds: float = SIGN_OFF_SECONDS) -> None:
        """Let all queues forget the controller, if the store answers within `seconds`; in time they do so anyway."""
        try:
            async with asyncio.timeout(seconds):
                for partition in self._known_in:
                    await tidy(self._nodes, partition, self._controller)
                await self._watch.leave()
        except (StoreError, TimeoutError) as failure:
            logger.warning("the controller couldn't sign off: %s", str(failure) or "the store gave no answer")

    def _on_listening(self, channels: list[str]) -> None:
        self._outlook.hear([self._channels[channel] for channel in channels if channel in self._channels])
        self._hear(Heard())

    def _on_message(self, channel: str, message: bytes) -> None:
        try:
            heard = self._read(channel, message)
        except (ValueError, RepositoryError) as error:
            self._unreadable.failed(error, {"channel": channel})
        else:
            if heard is not None:
                self._hear(heard)

    def _read(self, channel: str, message: bytes) -> Heard | None:
        if channel in self._own_channels:
            return Heard(given=self._offer.read(self._keys, message))
        kind, _, what = message.decode().partition(" ")
        if kind == "cancel":
            return Heard(cancelled=what)
        partition = self._channels[channel]
        self._outlook.hinted.add(partition)
        if not self._outlook.slices[partition.name].is_followed(random.random()):
            # Enough others are waiting for jobs.
            return None
        if what and len(self._told) < TOLD_KEPT:
            self._told.append((partition, Waiting.of(what)))
        return Heard()

    async def _claim_told(self, told: Sequence[tuple[QueueKeys, Waiting]], take: Take) -> None:
        """Claim jobs that messages named, as far as it is their turn: that saves a question.

        Where the offer stands, its answer has to be known first. If it stands elsewhere, it is taken back later, and
        only for a job: most of those who hear of a job come too late.
        """
        for partition in dict.fromkeys(partition for partition, _ in told if partition != self._offer.place):
            waiting = [job for its_partition, job in told if its_partition == partition]
            with self._reporting(partition.name):
                await self._claim_now(partition, take, waiting=waiting)

    async def _claim_elsewhere(self, home: QueueKeys, wanted: Callable[[], int], take: Take) -> None:
        """Claim jobs of other partitions than the home: of those that messages named, and those that are due."""
        places = self._outlook.take(asyncio.get_running_loop().time(), home)
        left = dict.fromkeys((*places.hinted, *places.due))
        try:
            # The only partition that was named is asked at once.
            looked_at = places.hinted[:1]
            while left and wanted() > 0:
                if not looked_at:
                    together = [*left][:LOOKED_TOGETHER]
                    looked_at = await self._watch.promising(together)
                    for partition in set(together).difference(looked_at):
                        del left[partition]
                for partition in looked_at:
                    if wanted() > 0:
                        del left[partition]
                        with self._reporting(partition.name):
                            await self._claim_in(partition, wanted(), take, makes_offer=False)
                looked_at = []
        finally:
            self._outlook.hinted.update(left)

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
                if is_its_place:
                    self._known_in.add(partition)
                peeked = await self._asking.ask(partition, missing, take, can_offer if is_its_place else None)
                if offer.count == brought_before:
                    expired, waiting = peeked.expired, peeked.waiting
            if (expired or waiting) and not is_its_place:
                await self._end_offer(take)
            if offer.count > brought_before:
                # By an answer or by a message that came meanwhile: there may be no room for more.
                self._outlook.hinted.add(partition)
                return
            if not expired and not waiting:
                return
            size = max(missing - len(expired), 0)
            now, later = waiting[:size], waiting[size:]
            found = await self._claim_now(partition, take, expired=expired, waiting=now)
            missing -= len(found)
            if missing < 1:
                self._outlook.hinted.add(partition)
                if later:
                    self._foreseen[partition] = later
            if missing < 1 or (is_asked and found):
                return
            expired, waiting = [], []

    async def _claim_now(
        self, partition: QueueKeys, take: Take, *, expired: Sequence[str] = (), waiting: Sequence[Waiting] = ()
    ) -> list[Claimed]:
        call, lease_ms, controller = self._caller.next_call().name, self._lease_ms, self._controller
        self._known_in.add(partition)
        found = await claim(self._nodes, partition, controller, lease_ms, call=call, expired=expired, waiting=waiting)
        take(found)
        return found

    async def _end_offer(self, take: Take) -> None:
        """Take the offer back, if it stands, since another job comes first; if that fails, it may bring one on top."""
        if self._offer.place is not None:
            with self._reporting(self._offer.place.name):
                take(await self._asking.take_back(ASK_SECONDS))

    @contextmanager
    def _reporting(self, queue: str) -> Iterator[None]:
        try:
            yield
        except (StoreError, TimeoutError) as error:
            self._outage.failed(str(error) or "the store gave no answer", {"queue": queue})
        else:
            self._outage.worked()
