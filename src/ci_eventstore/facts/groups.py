"""Groups of readers of facts.

The store keeps how far a group has read each partition, and which of its readers reads it now, under a lease.
"""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from functools import partial
from typing import NamedTuple

from ci_eventstore.connection.absence import go_through
from ci_eventstore.connection.call_names import Key
from ci_eventstore.connection.nodes import Nodes, publish
from ci_eventstore.connection.replies import as_text, as_texts
from ci_eventstore.connection.scripts import load_script
from ci_eventstore.connection.way import HURRIED_REPLY_SECONDS
from ci_eventstore.errors import FactReaderReplacedError, GroupDroppedError
from ci_eventstore.keys import Keys, facts_key, groups_key

#: A group that nobody has read for this long no longer holds back the trimming.
LIVE_SECONDS = 86_400
LONGEST_LEASE_SECONDS = 600
#: For how long whoever begins a group reads for it.
BEGIN_SECONDS = 10.0
#: Stands in for the reader where there is none.
NOBODY = "-"
#: The message that asks readers to look again: another reader, the group or facts are gone.
FREE = b"free"


class Begins(Enum):
    """Whether a reader begins to read a partition for its group, which it makes if there is none."""

    NEVER = 0
    IF_FREE = 1
    #: Also if another reader has it.
    AT_ONCE = 2


class ReadCall(NamedTuple):
    """What `read_facts.lua` is called with."""

    facts: Key
    groups: Key
    group: str
    reader: str
    lease_ms: int
    #: The most entries; 0: only begin.
    limit: int
    after: str
    #: Of `Begins`.
    begins: int


class AcknowledgeCall(NamedTuple):
    """What `acknowledge_facts.lua` is called with."""

    facts: Key
    groups: Key
    group: str
    reader: str
    entry: str
    has_gap: int
    lease_ms: int


class DropCall(NamedTuple):
    """What `drop_group.lua` is called with."""

    facts: Key
    groups: Key
    group: str


READ = load_script(
    __package__,
    "read_facts",
    {"LONGEST_LEASE_MS": LONGEST_LEASE_SECONDS * 1000},
    call=ReadCall,
)
ACKNOWLEDGE = load_script(__package__, "acknowledge_facts", {"LIVE_MS": LIVE_SECONDS * 1000}, call=AcknowledgeCall)
DROP = load_script(__package__, "drop_group", call=DropCall)


@dataclass(frozen=True, slots=True)
class FactGroup:
    """A group, as `facts groups` shows it."""

    name: str
    #: In how many partitions it is, and in how many of them somebody reads for it.
    partitions: int
    read_now: int
    #: The time of its last read fact in the partition where it is furthest behind; None: it will get a gap.
    read_until: datetime | None
    #: For how many seconds, by the server's clock, there have been facts that it hasn't read.
    behind_seconds: float
    looked_at: datetime

    @property
    def is_live(self) -> bool:
        """Whether it holds back the trimming, by this machine's clock."""
        return (datetime.now(UTC) - self.looked_at).total_seconds() < LIVE_SECONDS


class FactEntry(NamedTuple):
    """An entry of a partition's facts."""

    id: str
    text: str
    #: Of the owner of a job that was deleted; None if it has none.
    mark: str | None


class Entries(NamedTuple):
    """What a reader is given of a partition."""

    entries: list[FactEntry]
    has_gap: bool


class Groups:
    """The groups of a store."""

    def __init__(self, nodes: Nodes, keys: Keys) -> None:
        self._nodes = nodes
        self.tags = keys.tags

    async def read(
        self,
        tag: str,
        group: str,
        reader: str,
        lease_seconds: float,
        *,
        limit: int,
        after: str = "",
        begins: Begins = Begins.NEVER,
    ) -> Entries | float:
        """Return what comes next in a partition, or for how many seconds another reader still has it.

        GroupDroppedError, StoreError.
        """
        call = ReadCall(
            *(facts_key(tag), groups_key(tag), group, reader, int(lease_seconds * 1000)),
            limit=limit,
            after=after,
            begins=begins.value,
        )
        # Other partitions' facts wait meanwhile.
        patience = HURRIED_REPLY_SECONDS if self._nodes.is_divided else None
        reply = await self._nodes.run(READ, *READ.order(call), patience_seconds=patience)
        if reply[0] == b"gone":
            raise GroupDroppedError(group)
        if reply[0] == b"held":
            return float(reply[1]) / 1000
        words = as_texts(reply[2])
        entries = zip(words[::3], words[1::3], [None if mark == "-" else mark for mark in words[2::3]], strict=True)
        return Entries([FactEntry(*entry) for entry in entries], reply[1] == b"1")

    async def acknowledge(
        self, tag: str, group: str, reader: str, lease_seconds: float, entry: str, *, has_gap: bool
    ) -> None:
        """Note how far the group has read; FactReaderReplacedError, StoreError."""
        lease_ms = int(lease_seconds * 1000)
        call = AcknowledgeCall(facts_key(tag), groups_key(tag), group, reader, entry, int(has_gap), lease_ms)
        if await self._nodes.run(ACKNOWLEDGE, *ACKNOWLEDGE.order(call)) != 1:
            raise FactReaderReplacedError(group)

    async def newest(self, tag: str) -> str:
        """Return the last entry of a partition's facts; StoreError."""
        last = await self._nodes.read("XREVRANGE", facts_key(tag), "+", "-", "COUNT", 1)
        return as_text(last[0][0]) if last else "0-0"

    async def between(self, tag: str, first: str, last: str, limit: int) -> list[FactEntry]:
        """Return the entries of a partition's facts from one to another; none unless all are there. StoreError."""
        found = await self._nodes.read("XRANGE", facts_key(tag), first, last, "COUNT", limit)
        entries = [FactEntry(as_text(entry), *_fields_of(as_texts(fields))) for entry, fields in found]
        return entries if entries and (entries[0].id, entries[-1].id) == (first, last) else []

    async def release(self, tag: str, group: str, reader: str) -> None:
        """Let another reader of the group begin at once; StoreError."""
        call = AcknowledgeCall(facts_key(tag), groups_key(tag), group, reader, "", 0, 0)
        await self._nodes.run(ACKNOWLEDGE, *ACKNOWLEDGE.order(call))

    async def begin_here(self, group: str) -> None:
        """Have facts kept for a group from now on; what came before is owed to nobody.

        Where the group is read already, it stays as it is. In partitions that are away it begins with its reader, which
        gets a gap. FactReaderReplacedError if it is dropped at the same time, StoreError.
        """
        token = secrets.token_hex(8)

        async def begin(tag: str) -> None:
            found = await self.read(tag, group, token, BEGIN_SECONDS, limit=1, begins=Begins.IF_FREE)
            if not isinstance(found, float):
                await self.acknowledge(tag, group, token, BEGIN_SECONDS, await self.newest(tag), has_gap=True)
                await self.release(tag, group, token)

        await go_through(self._nodes, self.tags, begin)

    async def drop(self, group: str) -> bool:
        """Forget a group; tell whether there was one. StoreError."""
        return any([await self.drop_in(tag, group) for tag in self.tags])

    async def drop_where_possible(self, group: str) -> bool:
        """Forget a group, but for partitions that are away; tell whether there are none of those. StoreError."""
        return not await go_through(self._nodes, self.tags, partial(self.drop_in, group=group))

    async def drop_in(self, tag: str, group: str) -> bool:
        """Forget a group in one partition; tell whether there was one. StoreError."""
        call = DropCall(facts_key(tag), groups_key(tag), group)
        return bool(await self._nodes.run(DROP, *DROP.order(call)))

    async def all(self) -> list[FactGroup]:
        """Return all groups, by name; StoreError."""
        found: dict[str, list[tuple[str, str, int, int, int]]] = {}
        for tag in self.tags:
            kept, last = await self._nodes.read_many(
                [("HGETALL", groups_key(tag)), ("XREVRANGE", facts_key(tag), "+", "-", "COUNT", 1)]
            )
            newest = as_text(last[0][0]) if last else "0-0"
            words = as_texts(kept)
            for name, text in zip(words[::2], words[1::2], strict=True):
                read, reader, ends, looked = text.split()
                behind = 0 if read == newest else max(_milliseconds(newest) - _milliseconds(read), 1)
                found.setdefault(name, []).append((read, reader, int(ends), int(looked), behind))
        return [_summary(name, its) for name, its in sorted(found.items())]

    async def forget_facts(self) -> None:
        """Remove all facts, so that every group gets a gap: facts that it has read may be undone. StoreError."""
        keys = [facts_key(tag) for tag in self.tags]
        await self._nodes.read_many([("DEL", key) for key in keys])
        await publish(self._nodes, keys, FREE)


def _fields_of(words: Sequence[str]) -> tuple[str, str | None]:
    return words[1], words[3] if len(words) > 3 else None


def _summary(name: str, parts: list[tuple[str, str, int, int, int]]) -> FactGroup:
    slowest = min(_milliseconds(read) for read, *_ in parts)
    looked_at = max(looked for *_, looked, _ in parts)
    return FactGroup(
        name=name,
        partitions=len(parts),
        read_now=sum(1 for _, reader, ends, looked, _ in parts if reader != NOBODY and ends > looked),
        read_until=_time(slowest) if slowest else None,
        behind_seconds=max(behind for *_, behind in parts) / 1000 if slowest else 0.0,
        looked_at=_time(looked_at),
    )


def _milliseconds(entry: str) -> int:
    return int(entry.partition("-")[0])


def _time(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)
