"""Group commit: while one call of a job is on its way, what follows waits in order and goes out together."""

import asyncio
import secrets
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field

from ci_eventstore.errors import OutcomeUnknownError
from ci_eventstore.events.append import Call
from ci_eventstore.events.batch import Batch

#: How long an unused token is kept, well below what the server keeps it for.
TOKEN_SECONDS = 1200.0
#: How many jobs' lanes are kept before those that are idle are let go.
LANES_KEPT = 1000

#: Sends a job's batch as a call, under a claim or "".
SendEvents = Callable[[str, Batch, Call, str], Awaitable[object]]
#: A command that runs in its job's lane: it is given the call to make, and returns whether it made it.
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
    waiting: deque[_Waiting] = field(default_factory=deque)
    sender: asyncio.Task[None] | None = None
    #: Whether a caller's own task runs a command.
    is_held: bool = False
    #: The writer's token, "" until its first call.
    token: str = ""
    number: int = 0
    #: Tokens with a call of unknown outcome: the next call closes them.
    unknown: tuple[str, ...] = ()
    used_at: float = field(default_factory=time.monotonic)

    @property
    def is_busy(self) -> bool:
        """Whether something waits or is on its way."""
        return self.sender is not None or self.is_held

    def command_call(self) -> Call:
        """Return the call of a command, each of which has a token of its own."""
        self.used_at = time.monotonic()
        return Call(secrets.token_hex(8), 1, self.unknown)

    def next_call(self) -> Call:
        """Return the next call of this lane's writer, under a new token if the old one was long unused."""
        now = time.monotonic()
        if not self.token or now - self.used_at > TOKEN_SECONDS:
            self.renew_token()
        self.used_at = now
        self.number += 1
        return Call(self.token, self.number, self.unknown)

    def renew_token(self) -> None:
        """Begin again under a new token."""
        self.token, self.number = secrets.token_hex(8), 0

    def note_error(self, call: Call, error: BaseException) -> None:
        """Remember a call that may still take effect."""
        if isinstance(error, OutcomeUnknownError | asyncio.CancelledError):
            self.unknown = (*self.unknown, call.token)

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


class Flusher:
    """Sends the writes of all jobs, each job's in the order in which they were given."""

    def __init__(self, send_events: SendEvents) -> None:
        self._send_events = send_events
        self._lanes: dict[tuple[str, str], _Lane] = {}
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
        call = lane.command_call()
        try:
            if await command(call):
                lane.unknown = ()
        except BaseException as error:
            lane.note_error(call, error)
            raise
        finally:
            lane.is_held, self._held = False, self._held - 1
            if lane.waiting:
                self._start(lane)
            if not self._held and self._drained is not None:
                self._drained.set_result(None)
                self._drained = None

    def is_busy(self, job_id: str, claim: str = "") -> bool:
        """Tell whether something of a job's waits, is on its way, or has an outcome that isn't known."""
        lane = self._lanes.get((job_id, claim))
        return lane is not None and (lane.is_busy or bool(lane.unknown))

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
            old = time.monotonic() - TOKEN_SECONDS
            lanes = self._lanes.values()
            for idle in [lane for lane in lanes if not lane.is_busy and (not lane.unknown or lane.used_at < old)]:
                del self._lanes[idle.job_id, idle.claim]
            # Where many can't be let go, the next look is far away.
            self._lanes_kept = 2 * len(self._lanes)
        return self._lanes.setdefault((job_id, claim), _Lane(job_id, claim))

    async def _send(self, lane: _Lane) -> None:
        try:
            while lane.waiting:
                if isinstance(lane.waiting[0].work, Batch):
                    await self._deliver_batch(lane)
                else:
                    await self._deliver_command(lane)
        finally:
            if lane.sender is not None:
                self._senders.discard(lane.sender)
            lane.sender = None

    async def _deliver_batch(self, lane: _Lane) -> None:
        batch, waiters = lane.take_batch()
        if not waiters:
            return
        call, failure = lane.next_call(), None
        try:
            await self._send_events(lane.job_id, batch, call, lane.claim)
            lane.unknown = ()
        except Exception as error:  # noqa: BLE001 - it belongs to those who wait, not to the sender
            failure = error
            lane.note_error(call, error)
            lane.renew_token()
        for done in waiters:
            _settle(done, failure)

    async def _deliver_command(self, lane: _Lane) -> None:
        waiting = lane.waiting.popleft()
        if waiting.done.done() or isinstance(waiting.work, Batch):
            return
        call, failure = lane.command_call(), None
        try:
            if await waiting.work(call):
                lane.unknown = ()
        except Exception as error:  # noqa: BLE001 - it belongs to who waits, not to the sender
            failure = error
            lane.note_error(call, error)
        _settle(waiting.done, failure)


def _settle(done: asyncio.Future[None], error: Exception | None) -> None:
    if done.done():
        return
    if error is None:
        done.set_result(None)
    else:
        done.set_exception(error)
