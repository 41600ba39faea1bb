"""How claimed jobs come to a controller."""

import asyncio
import logging
from collections.abc import Callable, Sequence

from ci_eventstore.connection.outage_log import OutageLog
from ci_eventstore.controllers.claimed_job import ClaimedJob
from ci_eventstore.queues.claimed import Claimed
from ci_eventstore.queues.claimer import Claimer

logger = logging.getLogger("ci_eventstore.controllers")

#: How long a controller that is stopped waits for jobs that it has asked for already.
ASKED_SECONDS = 1.4
#: How long one that has no jobs any more waits for the store: to take back its offer, and to be forgotten.
WITHDRAW_SECONDS = 1.0
SIGN_OFF_SECONDS = 0.4
#: The same in a hurry, for each of these.
HURRY_SECONDS = 0.2


class Intake:
    """Gets jobs that a controller asks for, and those that its offers bring.

    It takes each job over as soon as that is claimed, so that none is lost when the caller is cancelled. Once stopped,
    it waits for the store only for moments.
    """

    def __init__(self, claimer: Claimer, take_over: Callable[[Sequence[Claimed]], list[ClaimedJob]]) -> None:
        self._claimer = claimer
        self._take_over = take_over
        #: Jobs that an offer has brought and that nobody has asked for yet.
        self.brought: list[ClaimedJob] = []
        #: Whether an offer stands beside jobs that were found: the next question takes it back.
        self.is_overcommitted = False
        #: The question that is on its way.
        self._asking: asyncio.Task[list[ClaimedJob]] | None = None
        self._is_stopped = False
        self._is_hurried = False
        #: Whether the store has left a question unanswered for too long, so that it is asked no more.
        self._is_away = False
        self._mistake = OutageLog(logger, "jobs can't be claimed: %s")

    def bring(self, claimed: Claimed) -> None:
        """Take over a job that an offer has brought."""
        self.brought += self._take_over([claimed])

    @property
    def is_asking(self) -> bool:
        """Whether a question is on its way, or answered and not taken yet."""
        return self._asking is not None

    @property
    def has_more(self) -> bool:
        """Whether `find` has something to return or to wait for, which no message tells of again."""
        return self.is_asking or bool(self.brought)

    def ask_ahead(self, count: int, *, is_idle: bool) -> None:
        """Ask for jobs; `find` returns them."""
        if not self._is_stopped:
            self._asking = asyncio.create_task(self._ask(count, is_idle))

    async def find(self, count: int, *, is_idle: bool) -> list[ClaimedJob]:
        """Return what was asked for ahead, what an offer has brought, or else claim at most `count` jobs.

        Nothing, if the answer takes long after a stop.
        """
        if self._asking is None:
            if self.brought or count < 1:
                return self._take_brought()
            self.ask_ahead(count, is_idle=is_idle)
        asking = self._asking
        if asking is None:
            return []
        await asyncio.wait({asking})
        self._asking = None
        return self._result(asking)

    def stop(self) -> None:
        """Ask no more, and wait for an answer at most ASKED_SECONDS."""
        self._is_stopped = True
        if self._asking is not None:
            asyncio.get_running_loop().call_later(self._limit(ASKED_SECONDS), self._asking.cancel)

    def hurry(self) -> None:
        """Stop, and wait for each thing at most HURRY_SECONDS."""
        self._is_hurried = True
        self.stop()

    async def end(self) -> list[ClaimedJob]:
        """Wait for no answer, and take back the offer; return the jobs that came and that nobody was given."""
        asking, self._asking = self._asking, None
        found: list[ClaimedJob] = []
        if asking is not None:
            await asyncio.wait({asking}, timeout=self._limit(ASKED_SECONDS))
            asking.cancel()
            await asyncio.wait({asking})
            found = self._result(asking)
        if not self._is_away:
            for claimed in await self._claimer.withdraw(self._limit(WITHDRAW_SECONDS)):
                self.bring(claimed)
        return found + self._take_brought()

    async def close(self) -> None:
        """Hear no more of what an offer might bring."""
        await self._claimer.close()

    async def sign_off(self) -> None:
        """Make the store forget this controller, as it does by itself after a while."""
        if not self._is_away:
            await self._claimer.sign_off(self._limit(SIGN_OFF_SECONDS))

    def _limit(self, seconds: float) -> float:
        return min(seconds, HURRY_SECONDS) if self._is_hurried else seconds

    def _result(self, asking: asyncio.Task[list[ClaimedJob]]) -> list[ClaimedJob]:
        self._is_away = self._is_away or asking.cancelled()
        return [] if asking.cancelled() else asking.result()

    def _take_brought(self) -> list[ClaimedJob]:
        brought, self.brought = self.brought, []
        return brought

    async def _ask(self, count: int, is_idle: bool) -> list[ClaimedJob]:
        if self.brought:
            return self._take_brought()
        jobs: list[ClaimedJob] = []

        def take(found: Sequence[Claimed]) -> None:
            jobs.extend(self._take_over(found))

        try:
            await self._claimer.claim(count, is_idle=is_idle, take=take)
        except Exception as error:  # noqa: BLE001 - it is logged with its traceback, and asked again
            self._mistake.failed(repr(error), traceback=error)
        self.is_overcommitted = bool(jobs) and self._claimer.is_offering
        return jobs
