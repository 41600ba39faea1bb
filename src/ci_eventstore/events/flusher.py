"""Group commit: while one call of a job is on its way, what follows waits in order and goes out together."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from ci_eventstore.events.batch import Batch
from ci_eventstore.events.caller import TOKEN_SECONDS, Call, Caller, Ledger, seconds_since_start

#: How many jobs' lanes are kept before those that are idle are let go.
LANES_KEPT = 1000

#: Sends a job's batch as a call, under a claim or "".
SendEvents = Callable[[str, Batch, Call, str], Awaitable[object]]
#: A command that runs in its job's lane: it is given the call to make, and returns whether the store now knows it.
LaneCommand = Callable[[Call], Awaitable[bool]]


@dataclass(eq=False, slots=True)
class _Waiting:
    done: asyncio.Future[None]
    work: Batch | LaneCommand


@dataclass(eq=False, slots=True)
class _Lane:
    """The writes of one job under one claim, one after the other."""

    job_id: str
    claim: str
    caller: Caller
    waiting: deque[_Waiting] = field(default_factory=deque)
    sender: asyncio.Task[None] | None = None
    #: Whether a caller's own task runs a command.
    is_held: bool = False

    @property
    def is_busy(self) -> bool:
        """Whether something waits or is on its way."""
        return self.sender is not None or self.is_held

    def take_batch(self) -> tuple[Batch, list[asyncio.Future[None]]]:
        """Take the appends at the head that go out together, without the cancelled ones, and who waits for them."""
        batch, waiters = Batch(), list[asyncio.Future[None]]()
        while self.waiting and isinstance(work := self.waiting[0].work, Batch):
            if waiters and not batch.has_room_for(work):
                break
            done = self.waiting.popleft().done
            if not done.done():
                batch.extend(work)
                waiters.append(done)
        return batch, waiters


@dataclass(frozen=True, slots=True)
class Callers:
    """Who has made the calls of an event loop that has ended."""

    ledger: Ledger
    #: By job and claim, those whose last call may still take effect.
    unsure: Mapping[tuple[str, str], Caller]


class Flusher:
    """Sends the writes of all jobs, each job's in the order in which they were given."""

    def __init__(self, send_events: SendEvents, ledger: Ledger, before: Callers | None = None) -> None:
        """Go on as the callers of an event loop that has ended, if they are given."""
        self._send_events = send_events
        self._ledger = ledger
        unsure = before.unsure if before else {}
        self._lanes = {(job_id, claim): _Lane(job_id, claim, caller) for (job_id, claim), caller in unsure.items()}
        self._lanes_kept = 0
        self._senders: set[asyncio.Task[None]] = set()
        #: How many commands run in their callers' tasks, and who waits for their end.
        self._held = 0
        self._drained: asyncio.Future[None] | None = None

    async def append(self, job_id: str, batches: Iterable[Batch], claim: str = "") -> None:
        """Append events behind what waits already, a batch after the other, and return when they are stored.

        Cancelling takes out what hasn't left yet.
        """
        for batch in batches:
            await self._enqueue(self._lane(job_id, claim), batch)

    async def create(self, job_id: str, command: LaneCommand) -> None:
        """Run the command that creates a job, behind what waits already; its call comes after nothing."""
        lane = self._lane(job_id, "")
        lane.caller.begin()
        await self.execute(job_id, command)
        if lane.caller.is_new and not lane.is_busy:
            # Most jobs that were created here are never written to from here.
            self._lanes.pop((job_id, ""), None)

    async def execute(self, job_id: str, command: LaneCommand, claim: str = "") -> None:
        """Run a command behind what waits already.

        One that is cancelled on its way may still take effect, but not behind a later write that succeeds.
        """
        lane = self._lane(job_id, claim)
        if lane.is_busy:
            await self._enqueue(lane, command)
            return
        # Nothing waits, as for most commands: a task of the lane's own would cost a tenth of a creation.
        lane.is_held, self._held = True, self._held + 1
        try:
            await _call(lane.caller, command)
        finally:
            lane.is_held, self._held = False, self._held - 1
            if lane.waiting:
                self._start(lane)
            if not self._held and self._drained is not None:
                self._drained.set_result(None)
                self._drained = None

    def callers(self) -> Callers:
        """Return who has made calls, for another flusher to go on after them."""
        for lane in self._lanes.values():
            if lane.is_busy:
                lane.caller.note_unknown()
        return Callers(self._ledger, {key: lane.caller for key, lane in self._lanes.items() if lane.caller.has_unknown})

    def is_busy(self, job_id: str, claim: str = "") -> bool:
        """Tell whether something of a job's waits, is on its way, or has an outcome that isn't known."""
        lane = self._lanes.get((job_id, claim))
        return lane is not None and (lane.is_busy or lane.caller.has_unknown)

    async def drain(self) -> None:
        """Wait until everything that waits has been sent."""
        while self._senders or self._held:
            if self._held:
                self._drained = self._drained or asyncio.get_running_loop().create_future()
                await asyncio.shield(self._drained)
            if self._senders:
                await asyncio.wait(self._senders)

    def _enqueue(self, lane: _Lane, work: Batch | LaneCommand) -> asyncio.Future[None]:
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        lane.waiting.append(_Waiting(done, work))
        if not lane.is_busy:
            self._start(lane)
        return done

    def _start(self, lane: _Lane) -> None:
        lane.sender = asyncio.create_task(self._send(lane))
        self._senders.add(lane.sender)

    def _lane(self, job_id: str, claim: str) -> _Lane:
        return self._lanes.get((job_id, claim)) or self._new_lane(job_id, claim)

    def _new_lane(self, job_id: str, claim: str) -> _Lane:
        if len(self._lanes) >= max(LANES_KEPT, self._lanes_kept):
            # What has an unknown outcome has one or the other when its token would be renewed.
            old = seconds_since_start() - TOKEN_SECONDS
            idle = [lane for lane in self._lanes.values() if not lane.is_busy]
            for lane in idle:
                if not lane.caller.has_unknown or lane.caller.used_at < old:
                    del self._lanes[lane.job_id, lane.claim]
            # Where many can't be let go, the next look is far away.
            self._lanes_kept = 2 * len(self._lanes)
        return self._lanes.setdefault((job_id, claim), _Lane(job_id, claim, Caller(job_id, self._ledger)))

    async def _send(self, lane: _Lane) -> None:
        try:
            while lane.waiting:
                waiters, command = self._take(lane)
                if waiters:
                    await _deliver(lane.caller, command, waiters)
        except BaseException as error:
            # Whatever ends this task, nobody waits for it in vain.
            fail_all([waiting.done for waiting in lane.waiting], error)
            lane.waiting.clear()
            raise
        finally:
            if lane.sender is not None:
                self._senders.discard(lane.sender)
            lane.sender = None

    def _take(self, lane: _Lane) -> tuple[list[asyncio.Future[None]], LaneCommand]:
        """Take what goes out next, and who waits for it: a command, or appends."""
        work = lane.waiting[0].work
        if not isinstance(work, Batch):
            done = lane.waiting.popleft().done
            return ([] if done.done() else [done]), work
        batch, waiters = lane.take_batch()

        async def send(call: Call) -> bool:
            await self._send_events(lane.job_id, batch, call, lane.claim)
            return True

        return waiters, send


async def _call(caller: Caller, command: LaneCommand) -> None:
    call = caller.next_call()
    try:
        is_known = await command(call)
    except BaseException as error:
        caller.note_error(call, error)
        raise
    if is_known:
        caller.note_done(call)
    else:
        caller.note_unmade()


async def _deliver(caller: Caller, command: LaneCommand, waiters: Sequence[asyncio.Future[None]]) -> None:
    """Make a call, and tell those who wait; its error belongs to them, not to the sender."""
    try:
        await _call(caller, command)
    except BaseException as error:
        fail_all(waiters, error)
        if not isinstance(error, Exception):
            raise
        return
    for done in waiters:
        if not done.done():
            done.set_result(None)


def fail_all(waiters: Iterable[asyncio.Future[Any]], error: BaseException) -> None:
    """Tell those who still wait that it failed; that the sender was cancelled, by cancelling them."""
    for done in waiters:
        if done.done():
            continue
        # In an event loop that is closed nobody waits any more.
        with suppress(RuntimeError):
            if isinstance(error, Exception):
                done.set_exception(error)
            else:
                done.cancel()
