"""Group commit: while one call is on its way, what follows waits in order, and goes out together.

A process has a lane for each job that it writes to; a queue's completions wait in a line of their own.
"""

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Generic, Self, TypeVar

from ci_eventstore.events.caller import TOKEN_SECONDS, Call, JobCaller, Ledger, seconds_since_start
from ci_eventstore.events.codec import BATCH_BYTES, BATCH_EVENTS, Batch

Item = TypeVar("Item")
Answer = TypeVar("Answer")


class Gathering(ABC, Generic[Item, Answer]):
    """Sends items, one call after the other; a call takes as many of those that wait as it can.

    The error of a call goes to those whose items it took. Cancelling takes out an item that hasn't left yet.
    """

    __slots__ = ("_idle", "_is_held", "sender", "waiting")

    def __init__(self) -> None:
        self.waiting: deque[tuple[Item, asyncio.Future[Answer]]] = deque()
        self.sender: asyncio.Task[None] | None = None
        #: Whether a caller of `do` sends its item in its own task.
        self._is_held = False
        self._idle: asyncio.Future[None] | None = None

    @abstractmethod
    async def send(self, items: Sequence[Item]) -> Sequence[Answer]:
        """Make a call, and return the answer to each item."""

    @abstractmethod
    def count_together(self) -> int:
        """Return how many of the several items that wait the next call takes."""

    @property
    def is_busy(self) -> bool:
        """Whether something waits or is on its way."""
        return self.sender is not None or self._is_held

    def put(self, item: Item) -> asyncio.Future[Answer]:
        """Let an item wait for its turn; return the future of its answer."""
        done: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self.waiting.append((item, done))
        if self.sender is None and not self._is_held:
            self.sender = asyncio.create_task(self._send_all())
        return done

    async def do(self, item: Item) -> Answer:
        """Send an item at once if nothing is on its way, else when its turn comes; return its answer.

        It needs no task of its own, which would cost a tenth of a creation; but cancelling it cancels the call.
        """
        if self.sender is not None or self._is_held:
            return await self.put(item)
        self._is_held = True
        try:
            [answer] = await self.send([item])
            return answer
        finally:
            self._is_held = False
            if self.waiting:
                self.sender = asyncio.create_task(self._send_all())
            elif self._idle is not None:
                self._note_idle()

    async def drain(self) -> None:
        """Wait until everything that waits has been sent."""
        while self.is_busy:
            self._idle = self._idle or asyncio.get_running_loop().create_future()
            await asyncio.shield(self._idle)

    async def _send_all(self) -> None:
        waiting = self.waiting
        try:
            while waiting:
                count = 1 if len(waiting) == 1 else min(self.count_together(), len(waiting))
                taken = [waiting.popleft() for _ in range(count)]
                if taken := [one for one in taken if not one[1].done()]:
                    await self._send_together(taken)
        except BaseException as error:
            # Nobody waits in vain, whatever ends this task.
            _fail_all((done for _, done in waiting), error)
            waiting.clear()
            raise
        finally:
            self.sender = None
            if self._idle is not None:
                self._note_idle()

    async def _send_together(self, taken: Sequence[tuple[Item, asyncio.Future[Answer]]]) -> None:
        """Make one call, and give those who wait their answers, or its error."""
        try:
            answers = await self.send([item for item, _ in taken])
        except BaseException as error:
            _fail_all((done for _, done in taken), error)
            if not isinstance(error, Exception):
                raise
            return
        for (_, done), answer in zip(taken, answers, strict=True):
            if not done.done():
                done.set_result(answer)

    def _note_idle(self) -> None:
        idle, self._idle = self._idle, None
        if idle is not None and not idle.done():
            # Nobody waits in a closed event loop.
            with suppress(RuntimeError):
                idle.set_result(None)


async def drain_all(gatherings: Mapping[Any, Gathering[Any, Any]]) -> None:
    """Wait until nothing waits in any of them, including those that are added meanwhile."""
    while busy := [gathering for gathering in gatherings.values() if gathering.is_busy]:
        for gathering in busy:
            await gathering.drain()


def _fail_all(waiting: Iterable[asyncio.Future[Any]], error: BaseException) -> None:
    """Give those who still wait the error; if the sender was cancelled, cancel them."""
    for done in waiting:
        if done.done():
            continue
        # Nobody waits in a closed event loop.
        with suppress(RuntimeError):
            if isinstance(error, Exception):
                done.set_exception(error)
            else:
                done.cancel()


#: How many jobs' lanes are kept before idle ones are dropped.
LANES_KEPT = 1000

#: Sends a job's batch as a call, under a claim or "".
SendEvents = Callable[[str, Batch, Call, str], Awaitable[object]]
#: A command that runs in its job's lane: it gets the call to make, and returns whether the store now knows it.
LaneCommand = Callable[[Call], Awaitable[bool]]


class Lane(Gathering[Batch | LaneCommand, None]):
    """The writes to one job under one claim: appends, many of which go out together, and commands.

    A command that is cancelled on its way may still take effect, but not after a later write has succeeded.
    """

    __slots__ = ("_send_events", "caller", "claim", "job_id")

    def __init__(self, job_id: str, claim: str, caller: JobCaller, send_events: SendEvents) -> None:
        super().__init__()
        self.job_id = job_id
        self.claim = claim
        self.caller = caller
        self._send_events = send_events

    def count_together(self) -> int:
        """Return 1 for a command, else how many appends one script call takes."""
        count = events = size = 0
        for work, done in self.waiting:
            if not isinstance(work, Batch):
                return count or 1
            if not done.done():
                events, size = events + len(work.payloads), size + work.bytes
                if count and (events > BATCH_EVENTS or size > BATCH_BYTES):
                    break
            count += 1
        return count

    async def send(self, items: Sequence[Batch | LaneCommand]) -> Sequence[None]:
        """Make the next call: run a command, or append all batches."""
        caller, work = self.caller, items[0]
        call = caller.next_call()
        try:
            if isinstance(work, Batch):
                batch = work if len(items) == 1 else _joined(items)
                await self._send_events(self.job_id, batch, call, self.claim)
                is_known = True
            else:
                is_known = await work(call)
        except BaseException as error:
            caller.note_error(call, error)
            raise
        if is_known:
            caller.note_done(call)
        else:
            caller.note_unmade()
        return [None] * len(items)


def _joined(batches: Iterable[Batch | LaneCommand]) -> Batch:
    joined = Batch()
    for batch in batches:
        if isinstance(batch, Batch):
            joined.extend(batch)
    return joined


class Flusher:
    """The lanes of all jobs that this process writes to."""

    def __init__(self, send_events: SendEvents, before: Self | None = None) -> None:
        """Go on after `before`, the flusher of an event loop that has ended, which nobody uses any more."""
        self._send_events = send_events
        #: This process's last calls to each job.
        self.ledger: Ledger = before.ledger if before else Ledger()
        self._lanes: dict[tuple[str, str], Lane] = {}
        self._lanes_kept = 0
        for left in before._lanes.values() if before else ():
            if left.is_busy:
                left.caller.note_unknown()
            if left.caller.has_unknown:
                self._lanes[left.job_id, left.claim] = Lane(left.job_id, left.claim, left.caller, send_events)

    def lane(self, job_id: str, claim: str = "") -> Lane:
        """Return the lane of a job under a claim. Give it an item before you await anything else."""
        return self._lanes.get((job_id, claim)) or self._new_lane(job_id, claim)

    async def create(self, job_id: str, command: LaneCommand) -> None:
        """Run the command that creates a job, after what waits already; its call comes after no other."""
        lane = self.lane(job_id)
        lane.caller.begin()
        await lane.do(command)
        if lane.caller.is_new and not lane.is_busy:
            # Most processes never write to the jobs that they create.
            self._lanes.pop((job_id, ""), None)

    def is_busy(self, job_id: str, claim: str = "") -> bool:
        """Return whether a write to a job waits, is on its way, or has an unknown outcome."""
        lane = self._lanes.get((job_id, claim))
        return lane is not None and (lane.is_busy or lane.caller.has_unknown)

    async def drain(self) -> None:
        """Wait until everything that waits has been sent."""
        await drain_all(self._lanes)

    def _new_lane(self, job_id: str, claim: str) -> Lane:
        if len(self._lanes) >= max(LANES_KEPT, self._lanes_kept):
            # An unknown outcome is settled by the time at which its token would be renewed.
            old = seconds_since_start() - TOKEN_SECONDS
            idle = [lane for lane in self._lanes.values() if not lane.is_busy]
            for lane in idle:
                if not lane.caller.has_unknown or lane.caller.used_at < old:
                    del self._lanes[lane.job_id, lane.claim]
            # If many can't be dropped, look again only when there are twice as many.
            self._lanes_kept = 2 * len(self._lanes)
        lane = Lane(job_id, claim, JobCaller(job_id, self.ledger), self._send_events)
        self._lanes[job_id, claim] = lane
        return lane
