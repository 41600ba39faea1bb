"""The engines of one repository: one for each event loop that uses it, and a lock in each loop."""

import asyncio
import logging
import os
import threading
from asyncio import AbstractEventLoop
from collections.abc import AsyncGenerator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from weakref import WeakKeyDictionary, WeakSet

from ci_eventstore.connection.deployments import Deployment
from ci_eventstore.engine import Engine
from ci_eventstore.errors import NotInitializedError, OtherEventLoopError
from ci_eventstore.settings import Settings
from ci_eventstore.tasks import begin


class LoopLocks:
    """A lock for each event loop, since a lock can't be awaited in two: `async with locks.current:`."""

    def __init__(self) -> None:
        self._by_loop: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = WeakKeyDictionary()

    @property
    def current(self) -> asyncio.Lock:
        """The lock of the running event loop."""
        return self._by_loop.setdefault(asyncio.get_running_loop(), asyncio.Lock())


logger = logging.getLogger("ci_eventstore")


@dataclass(eq=False, slots=True)
class _Place:
    """An engine in its event loop."""

    engine: Engine
    #: Suspended; the loop closes it when it ends, and so the engine.
    life: AsyncGenerator[None, None]


class Engines:
    """Opens and closes an engine, and makes its parts anew for each further event loop.

    Connections, tasks and futures belong to the loop in which they were made. So each loop has an
    engine of its own, which is closed when the loop ends; the next one goes on after the writes of the last.
    """

    def __init__(self, deployment: Deployment, settings: Settings) -> None:
        self.deployment = deployment
        self._shared = replace(deployment, release=lambda: None)
        self._given = settings
        #: With as many partitions as the store has, once it is open.
        self.settings = settings
        self._mutex = threading.Lock()
        self._places: dict[AbstractEventLoop, _Place] = {}
        self._opening = LoopLocks()
        #: The engine whose writes the next one goes on after; None: nothing is open.
        self._last: Engine | None = None
        _after_fork()
        _all.add(self)

    @property
    def current(self) -> Engine:
        """The engine of the running event loop; NotInitializedError, OtherEventLoopError."""
        loop = asyncio.get_running_loop()
        place = self._places.get(loop)
        return place.engine if place is not None else self._another(loop)

    async def open(self) -> None:
        """Connect and check the server, if nothing is open yet; the errors of `Engine.open`, OtherEventLoopError."""
        loop = asyncio.get_running_loop()
        if loop in self._places:
            return
        _check_no_parents(loop)
        async with self._opening.current:
            if loop in self._places:
                return
            if self._last is not None:
                self._another(loop)
                return
            try:
                engine = await Engine.open(self._shared, self._given)
                self.settings = engine.jobs.settings
                life = self._begin(engine, loop)
            except BaseException:
                if self._last is None:
                    self.deployment.release()
                raise
            await anext(life)

    async def close(self) -> None:
        """Close the engine of this loop, and let other loops close theirs, which isn't waited for."""
        loop = asyncio.get_running_loop()
        with self._mutex:
            places, self._places, self._last = self._places, {}, None
        if not places:
            return
        own = places.pop(loop, None)
        for other, place in places.items():
            _end_elsewhere(other, place)
        try:
            if own is not None:
                await own.engine.close()
                await own.life.aclose()
        finally:
            if self._last is None:
                self.deployment.release()

    def _another(self, loop: AbstractEventLoop) -> Engine:
        """Return the engine of a loop that hasn't used the repository before."""
        _check_no_parents(loop)
        with self._mutex:
            self._forget_ended()
            if self._last is None:
                raise NotInitializedError
            engine = self._last.anew(self._shared, self.settings, goes_on=not self._places)
        life = self._begin(engine, loop)
        # It runs to its first `yield`, without a wait, so that the loop knows of it.
        with suppress(StopIteration):
            life.asend(None).send(None)
        return engine

    def _begin(self, engine: Engine, loop: AbstractEventLoop) -> AsyncGenerator[None, None]:
        life = self._live(engine, loop)
        with self._mutex:
            self._places[loop], self._last = _Place(engine, life), engine
        return life

    async def _live(self, engine: Engine, loop: AbstractEventLoop) -> AsyncGenerator[None, None]:
        """Close an engine when its event loop ends, which closes all generators that are suspended."""
        try:
            yield
        finally:
            with self._mutex:
                # It may have been closed, and the loop have another one by now.
                if (place := self._places.get(loop)) is not None and place.engine is engine:
                    del self._places[loop]
            await engine.end()

    def _forget_ended(self) -> None:
        """Let go of what belongs to loops that were closed without an end."""
        for loop in [loop for loop in self._places if loop.is_closed()]:
            self._places.pop(loop).engine.abandon()

    def forget_parents(self) -> None:
        """After a fork, leave the parent's engines to the parent."""
        self._mutex = threading.Lock()
        _parents.extend(self._places.values())
        _parents_loops.update(self._places)
        self._places = {}


def _end_elsewhere(loop: AbstractEventLoop, place: _Place) -> None:
    """Have an engine closed by its own event loop, as soon as that runs; one that was closed can't."""
    tasks = set[asyncio.Task[None]]()

    async def close() -> None:
        await place.engine.close()
        await place.life.aclose()

    def close_in_background() -> None:
        task = begin(close(), logger, "closing the engine of another event loop")
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    try:
        loop.call_soon_threadsafe(close_in_background)
    except RuntimeError:
        place.engine.abandon()


#: What belongs to the parent of this process: it is never closed, since that would end it for the parent as well.
_parents: list[_Place] = []
_parents_loops: WeakSet[AbstractEventLoop] = WeakSet()
_all: WeakSet[Engines] = WeakSet()


def _check_no_parents(loop: AbstractEventLoop) -> None:
    if loop in _parents_loops:
        raise OtherEventLoopError("what this process, made by fork, was given by its parent")


@cache
def _after_fork() -> None:
    def forget() -> None:
        for engines in list(_all):
            engines.forget_parents()

    os.register_at_fork(after_in_child=forget)
