"""A reader of facts for its group: it goes from partition to partition, and messages wake it."""

import asyncio
import contextlib
import secrets
import time
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field

from ci_common.errors import RepositoryError
from ci_eventstore.connection.absence import AWAY, go_through, is_absence, report
from ci_eventstore.connection.nodes import Nodes
from ci_eventstore.connection.way import in_a_hurry
from ci_eventstore.errors import StoreError
from ci_eventstore.facts.facts import JobFact, facts_in
from ci_eventstore.facts.groups import FREE, Begins, Groups
from ci_eventstore.keys import facts_key

#: How often a reader looks within a lease: this renews the lease, and finds facts whose message was lost.
LOOKS_PER_LEASE = 3
#: How soon a reader looks again at a partition that is away.
AWAY_SECONDS = 2.0
#: The most entries of a batch; one entry may have facts of as many jobs as were completed together.
MAX_ENTRIES = 10_000


@dataclass(frozen=True, slots=True)
class FactBatch:
    """Facts of one partition, in the order in which they happened."""

    partition: int
    facts: Sequence[JobFact]
    #: Whether facts before these may be lost to the group: what it knows of the partition's jobs has to be read anew.
    has_gap: bool
    #: The last entry of the partition that it has.
    entry: str = field(repr=False)
    _tag: str = field(repr=False)
    _reader: "FactReader" = field(repr=False)

    async def acknowledge(self) -> None:
        """Note that the group has read these facts, and all that came before them in the partition.

        FactReaderReplacedError: another reader has taken over meanwhile, and gets them again. StoreError.
        """
        reader = self._reader
        await reader.groups.acknowledge(
            self._tag, reader.group, reader.token, reader.lease_seconds, self.entry, has_gap=self.has_gap
        )


class FactReader:
    """One reader of a group, in one event loop."""

    def __init__(
        self,
        nodes: Nodes,
        groups: Groups,
        group: str,
        lease_seconds: float,
        limit: int,
        *,
        from_now: bool = False,
        takes_over: bool = False,
    ) -> None:
        """Read what the group hasn't; `from_now`, of a group of its own: only what comes from now on, after a gap.

        With `takes_over` it doesn't wait for the lease of another reader: that is known to be gone.
        """
        self._begins = Begins.AT_ONCE if takes_over else Begins.IF_FREE
        self._from_now = from_now
        #: Partitions in which it has just begun, with their last entries.
        self._begun: dict[str, str] = {}
        self.groups = groups
        self.group = group
        self.lease_seconds = lease_seconds
        self.token = secrets.token_hex(8)
        self._nodes = nodes
        self._limit = limit
        self._tags = {facts_key(tag): tag for tag in groups.tags}
        #: When to look at each partition, by the monotonic clock; then the last entry handed out of each.
        self._due = dict.fromkeys(groups.tags, 0.0)
        self._after: dict[str, str] = {}
        #: What this reader has, as far as it knows.
        self._held = set[str]()
        #: Partitions that were away when they were looked at last, and those in which the group may not be yet.
        self._away: dict[str, StoreError] = {}
        self._unbegun = set[str]()
        self._woken = asyncio.Event()

    @property
    def partitions_unbegun(self) -> int:
        """In how many partitions it couldn't begin yet, since they are away."""
        return len(self._unbegun)

    async def batches(self) -> AsyncGenerator[FactBatch, None]:
        """Yield what comes next, for ever, of the partitions that are there; GroupDroppedError, StoreError."""
        subscription = self._nodes.subscription(self._on_message, self._on_listening)
        try:
            self._unbegun.update(await go_through(self._nodes, self.groups.tags, self._begin))
            subscription.listen(*self._tags)
            while True:
                tag = min(self._due, key=self._due.__getitem__)
                pause = self._due[tag] - time.monotonic()
                if pause > 0:
                    await self._wait(pause)
                    continue
                batch = await self._look_if_there(tag)
                if batch is not None:
                    yield batch
        finally:
            await subscription.close()
            await self._release()

    async def _begin(self, tag: str) -> None:
        """Begin to read a partition, before facts of another one are handed out, unless it is away."""
        await self.groups.read(tag, self.group, self.token, self.lease_seconds, limit=0, begins=self._begins)
        if self._from_now:
            newest = await self.groups.newest(tag)
            await self.groups.acknowledge(tag, self.group, self.token, self.lease_seconds, newest, has_gap=True)
            self._begun[tag] = self._after[tag] = newest

    async def _look_if_there(self, tag: str) -> FactBatch | None:
        """Return what comes next in a partition, None if it is away; if all are, the first one's error is raised."""
        try:
            with in_a_hurry() if self._nodes.is_divided else contextlib.nullcontext():
                if tag in self._unbegun:
                    await self._begin(tag)
                    self._unbegun.discard(tag)
                batch = await self._look(tag)
        except AWAY as error:
            self._away[tag] = error
            if not self._nodes.is_divided or not is_absence(error) or self._away.keys() == self._due.keys():
                raise
            report(self._nodes, [tag], self._away)
            self._held.discard(tag)
            self._due[tag] = time.monotonic() + AWAY_SECONDS
            return None
        if self._away.pop(tag, None) is not None:
            report(self._nodes, [tag], {})
        return batch

    async def _look(self, tag: str) -> FactBatch | None:
        """Return what comes next in a partition; None if there is nothing, or another reader has it."""
        if (newest := self._begun.pop(tag, None)) is not None:
            return FactBatch(self.groups.tags.index(tag), [], True, newest, tag, self)
        self._due[tag] = time.monotonic() + self.lease_seconds / LOOKS_PER_LEASE
        found = await self.groups.read(
            tag, self.group, self.token, self.lease_seconds, limit=self._limit, after=self._after.get(tag, "")
        )
        if isinstance(found, float):
            self._held.discard(tag)
            self._due[tag] = time.monotonic() + min(found, self.lease_seconds)
            return None
        self._held.add(tag)
        if not found.entries:
            return None
        self._after[tag] = last = found.entries[-1].id
        if len(found.entries) >= self._limit:
            self._due[tag] = time.monotonic()
        partition = self.groups.tags.index(tag)
        facts = [fact for entry in found.entries for fact in facts_in(partition, *entry)]
        return FactBatch(partition, facts, found.has_gap, last, tag, self) if facts or found.has_gap else None

    async def _wait(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._woken.wait()
        self._woken.clear()

    async def _release(self) -> None:
        """Let other readers go on at once; if that fails, they do when the lease ends."""
        for tag in self.groups.tags:
            try:
                with in_a_hurry():
                    await self.groups.release(tag, self.group, self.token)
            except RepositoryError:
                if not self._nodes.is_divided:
                    return

    def _on_message(self, channel: str, message: bytes) -> None:
        tag = self._tags[channel]
        if tag in self._held or message == FREE:
            self._due[tag] = min(self._due[tag], time.monotonic())
            self._woken.set()

    def _on_listening(self, channels: list[str]) -> None:
        for channel in channels:
            self._on_message(channel, FREE)
