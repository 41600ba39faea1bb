"""Group commit: while one call is on its way, what follows waits in order, and goes out together."""

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Generic, TypeVar

Item = TypeVar("Item")
Answer = TypeVar("Answer")


class Gathering(ABC, Generic[Item, Answer]):
    """Sends what it is given, one call after the other; a call takes as much of what waits as it can.

    Each call and its error belong to those whose items it took. Whoever is cancelled takes out what hasn't left yet.
    """

    __slots__ = ("_idle", "_is_held", "sender", "waiting")

    def __init__(self) -> None:
        self.waiting: deque[tuple[Item, asyncio.Future[Answer]]] = deque()
        self.sender: asyncio.Task[None] | None = None
        #: Whether the task of somebody who gave an item sends that.
        self._is_held = False
        self._idle: asyncio.Future[None] | None = None

    @abstractmethod
    async def send(self, items: Sequence[Item]) -> Sequence[Answer]:
        """Make a call, and return what each item is answered."""

    @abstractmethod
    def count_together(self) -> int:
        """Return how many of several that wait the next call takes."""

    @property
    def is_busy(self) -> bool:
        """Whether something waits or is on its way."""
        return self.sender is not None or self._is_held

    def put(self, item: Item) -> asyncio.Future[Answer]:
        """Let an item wait for its turn; return what is going to be its answer."""
        done: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self.waiting.append((item, done))
        if self.sender is None and not self._is_held:
            self.sender = asyncio.create_task(self._send_all())
        return done

    async def do(self, item: Item) -> Answer:
        """Send an item at once if nothing is on its way, else when its turn comes; return its answer.

        That needs no task of its own, which would cost a tenth of a creation, but cancelling cancels the call.
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
            # Whatever ends this task, nobody waits for it in vain.
            _fail_all((done for _, done in waiting), error)
            waiting.clear()
            raise
        finally:
            self.sender = None
            if self._idle is not None:
                self._note_idle()

    async def _send_together(self, taken: Sequence[tuple[Item, asyncio.Future[Answer]]]) -> None:
        """Make one call, and tell those who wait; its error belongs to them, not to the sender."""
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
            # In an event loop that is closed nobody waits any more.
            with suppress(RuntimeError):
                idle.set_result(None)


async def drain_all(gatherings: Mapping[Any, Gathering[Any, Any]]) -> None:
    """Wait until nothing waits in any of them, those too that come meanwhile."""
    while busy := [gathering for gathering in gatherings.values() if gathering.is_busy]:
        for gathering in busy:
            await gathering.drain()


def _fail_all(waiting: Iterable[asyncio.Future[Any]], error: BaseException) -> None:
    """Tell those who still wait that it failed; that the sender was cancelled, by cancelling them."""
    for done in waiting:
        if done.done():
            continue
        # In an event loop that is closed nobody waits any more.
        with suppress(RuntimeError):
            if isinstance(error, Exception):
                done.set_exception(error)
            else:
                done.cancel()
