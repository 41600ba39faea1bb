"""Read facts of all jobs for a group: partition by partition, each under a lease, woken by messages."""

import asyncio
import contextlib
import secrets
import time
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field

from ci_common.errors import RepositoryError
from ci_eventstore.connection.nodes import Nodes
from ci_eventstore.facts.facts import JobFact, facts_in
from ci_eventstore.facts.groups import FREE, Groups
from ci_eventstore.keys import facts_key

#: A reader looks so often within a lease, which renews it; it finds facts then that no message told of, too.
LOOKS_PER_LEASE = 3
#: Of a batch; one entry may tell facts of as many jobs as were completed at a time.
MAX_ENTRIES = 10_000


@dataclass(frozen=True, slots=True)
class FactBatch:
    """Facts of one partition, in the order in which they happened."""

    partition: int
    facts: Sequence[JobFact]
    #: Whether facts before these may be lost to the group: what it knows of the partition's jobs has to be read anew.
    has_gap: bool
    _entry: str = field(repr=False)
    _tag: str = field(repr=False)
    _reader: "FactReader" = field(repr=False)

    async def acknowledge(self) -> None:
        """Note that the group has read these facts, and all that came before them in the partition.

        FactReaderReplacedError: another reader has taken over meanwhile, and gets them again. StoreError.
        """
        reader = self._reader
        await reader.groups.acknowledge(
            self._tag, reader.group, reader.token, reader.lease_seconds, self._entry, has_gap=self.has_gap
        )


class FactReader:
    """One reader of a group, in one event loop."""

    def __init__(self, nodes: Nodes, groups: Groups, group: str, lease_seconds: float, limit: int) -> None:
        self.groups = groups
        self.group = group
        self.lease_seconds = lease_seconds
        self.token = secrets.token_hex(8)
        self._nodes = nodes
        self._limit = limit
        self._tags = {facts_key(tag): tag for tag in groups.tags}
        #: When each partition is to be looked at, by the monotonic clock; the entry that was handed out last in each.
        self._due = dict.fromkeys(groups.tags, 0.0)
        self._after: dict[str, str] = {}
        #: What this reader has, as far as it knows.
        self._held = set[str]()
        self._woken = asyncio.Event()

    async def batches(self) -> AsyncGenerator[FactBatch, None]:
        """Yield what comes next, for ever; GroupDroppedError, StoreError."""
        subscription = self._nodes.subscription(self._on_message, self._on_listening)
        try:
            for tag in self.groups.tags:
                await self._begin(tag)
            subscription.listen(*self._tags)
            while True:
                tag = min(self._due, key=self._due.__getitem__)
                pause = self._due[tag] - time.monotonic()
                if pause > 0:
                    await self._wait(pause)
                    continue
                batch = await self._look(tag)
                if batch is not None:
                    yield batch
        finally:
            await subscription.close()
            await self._release()

    async def _begin(self, tag: str) -> None:
        """Have the group begin in a partition before anything is handed out of another."""
        await self.groups.read(tag, self.group, self.token, self.lease_seconds, limit=0, begins=True)

    async def _look(self, tag: str) -> FactBatch | None:
        """Return what comes next in a partition; None if there is nothing, or another reader has it."""
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
        self._after[tag] = last = found.entries[-1][0]
        if len(found.entries) >= self._limit:
            self._due[tag] = time.monotonic()
        partition = self.groups.tags.index(tag)
        facts = [fact for entry, text in found.entries for fact in facts_in(partition, entry, text)]
        return FactBatch(partition, facts, found.has_gap, last, tag, self) if facts or found.has_gap else None

    async def _wait(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._woken.wait()
        self._woken.clear()

    async def _release(self) -> None:
        """Let others read at once; who can't be told finds out when the lease ends."""
        for tag in self.groups.tags:
            try:
                await self.groups.release(tag, self.group, self.token)
            except RepositoryError:
                return

    def _on_message(self, channel: str, message: bytes) -> None:
        tag = self._tags[channel]
        if tag in self._held or message == FREE:
            self._due[tag] = min(self._due[tag], time.monotonic())
            self._woken.set()

    def _on_listening(self, channels: list[str]) -> None:
        for channel in channels:
            self._on_message(channel, FREE)
