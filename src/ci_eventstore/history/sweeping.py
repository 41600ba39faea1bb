"""Sweep a store's partitions again and again, each by one process at a time.

That one process is there to do nothing twice: whatever a sweep does is right without it.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Literal

from ci_common.errors import RepositoryError
from ci_eventstore.connection.absence import go_through, names_of, numbers_of
from ci_eventstore.connection.nodes import Nodes
from ci_eventstore.connection.replies import WRONG_TYPE, as_text
from ci_eventstore.connection.way import in_a_hurry
from ci_eventstore.errors import StoreUnavailableError
from ci_eventstore.events.caller import new_token
from ci_eventstore.keys import Keys, sweeper_key

logger = logging.getLogger("ci_eventstore.history")

#: For how long a partition is one process's: it says so again before each page.
LEASE_MS = 60_000
#: How soon the next sweep begins.
SWEEP_SECONDS = 30.0


@dataclass(slots=True)
class Sweep:
    """What a sweep has done."""

    #: How many jobs it has sealed, or moved.
    done: int = 0
    #: Those for which it couldn't, now or the last time that it was tried, and why.
    left: dict[str, str] = field(default_factory=dict)
    #: Partitions that another process was sweeping.
    busy: int = 0
    #: The numbers of those that were away.
    unavailable: tuple[int, ...] = ()


class Turns:
    """Gives each partition to one process at a time; a key of the partition, which expires, says to which."""

    def __init__(self, nodes: Nodes, keys: Keys, sweeper: Literal["sealer", "archiver"]) -> None:
        self._nodes = nodes
        self._keys = keys
        self._sweeper = sweeper
        self._token = new_token()

    async def go_through(self, sweep: Sweep, work: Callable[[str], Awaitable[None]]) -> None:
        """Do some work in the partitions that nobody else has, each this process's until the next one.

        Those that are away are noted, and left out; StoreUnavailableError if all are.
        """

        async def take_turn(tag: str) -> None:
            if not await self.hold(tag):
                sweep.busy += 1
                return
            try:
                await work(tag)
            finally:
                with suppress(StoreUnavailableError), in_a_hurry():
                    # Another process may have it by now, if this one was held up.
                    if await self.hold(tag):
                        await self._nodes.read("DEL", sweeper_key(tag, self._sweeper))

        sweep.unavailable = numbers_of(await go_through(self._nodes, self._keys.tags, take_turn))

    async def hold(self, tag: str) -> bool:
        """Tell whether a partition is this process's for a while, which begins anew."""
        key = sweeper_key(tag, self._sweeper)
        _, holder = await self._nodes.read_many([("SET", key, self._token, "NX", "PX", LEASE_MS), ("GET", key)])
        if holder is WRONG_TYPE or holder is None or as_text(holder) != self._token:
            return False
        await self._nodes.read("PEXPIRE", key, LEASE_MS)
        return True


async def sweep_again_and_again(nodes: Nodes, what: str, done: str, sweep: Callable[[], Awaitable[Sweep]]) -> None:
    """Sweep until cancelled; whatever goes wrong is logged, and what was done, both in these words."""
    outage = nodes.outages.of(logger, f"{what}: %s")
    while True:
        try:
            swept = await sweep()
            if swept.unavailable:
                outage.failed(f"{names_of(swept.unavailable)} can't be reached")
            else:
                outage.worked()
            if swept.done:
                logger.info("%s %d jobs", done, swept.done)
        except RepositoryError as error:
            outage.failed(error)
        except Exception as error:  # noqa: BLE001 - it is logged, and the next sweep begins anew
            nodes.outages.fault(logger, what, error)
        await asyncio.sleep(SWEEP_SECONDS)
