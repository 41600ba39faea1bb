"""The part of a log that lies in segments: references to them, as a job's record has them, and their entries.

Where a segment's bytes lie is known here alone, in `_bytes`. A segment never changes, so what was read of one is kept
by its root, and shared by all who read it.
"""

import re
from bisect import bisect_left, bisect_right
from collections import OrderedDict
from collections.abc import Sequence
from functools import partial
from typing import Generic, NamedTuple, TypeVar

from ci_eventstore.connection.nodes import Nodes
from ci_eventstore.connection.replies import WRONG_TYPE, Reply, is_unicode
from ci_eventstore.errors import ProjectionDamagedError, SegmentDamagedError, StoreFormatError
from ci_eventstore.events.archived_log import ArchivedLogs, Range
from ci_eventstore.events.records import Place
from ci_eventstore.keys import JobKeys, segment_key
from ci_eventstore.segments.packing import Content
from ci_eventstore.segments.segment import SegmentReader, name_of
from ci_eventstore.segments.tail import bytes_of_tail

#: The stream id of an entry, which is its place as text, and its payload.
StoredEntry = tuple[bytes, bytes]

#: So much of a root is in a record and in a name: what finds mistakes. Whoever proves something has all of it.
ROOT_BYTES = 8
#: The fifth part of a reference to what lies in the archive.
ARCHIVED = ",a"
#: The last reference from its last place on: `lua/sealed.lua` finds the same.
_END = re.compile(r",([0-9]{1,20})-([0-9]{1,20}),[0-9]+,[0-9a-f]+(?:,a)?\Z")
#: So much of a segment's end is read at first: all of a small one, and the tail of one of some hundred blocks.
END_BYTES = 4 * 1024
#: What patterns of keys have a meaning for stands for itself, but for the last `*`.
_LITERALLY = str.maketrans({character: f"\\{character}" for character in "?[]\\^"})
#: How many segments' tails are kept, and how many bytes of unpacked blocks.
KEPT_TAILS = 256
KEPT_BYTES = 4 * 1024 * 1024


class Reference(NamedTuple):
    """A segment as a record refers to it."""

    first: Place
    last: Place
    size: int
    #: Its first eight bytes.
    root: bytes
    #: Whether it lies in the archive, and no longer in the store.
    is_archived: bool = False

    @property
    def name(self) -> str:
        """The segment's name."""
        return name_of(self.first, self.last, self.root)

    def __str__(self) -> str:
        """Return what stands in the record."""
        return f"{self.first},{self.last},{self.size},{self.root.hex()}{ARCHIVED if self.is_archived else ''}"


def references_in(job_id: str, log: str | bytes) -> list[Reference]:
    """Return the references in the field `log` of a record, at least one; ProjectionDamagedError."""
    text = log if isinstance(log, str) else log.decode("utf-8", "replace")
    try:
        found = []
        for reference in text.split(" "):
            first, last, size, root = reference.removesuffix(ARCHIVED).split(",")
            places = Place.parse(first.encode()), Place.parse(last.encode())
            found.append(Reference(*places, int(size), bytes.fromhex(root), reference.endswith(ARCHIVED)))
            if len(found[-1].root) != ROOT_BYTES or found[-1].first > found[-1].last:
                raise ValueError(f"{reference!r} refers to no segment")
    except ValueError as error:
        raise ProjectionDamagedError(job_id, f"where its log lies can't be read: {error}") from error
    return found


def end_in(log: str) -> Place | None:
    """Return where the last of the segments ends that the field `log` of a record refers to; None if it is damaged."""
    found = _END.search(log)
    return None if found is None else Place(int(found[1]), int(found[2]))


def lies_in_archive(log: str | None) -> bool:
    """Return whether any reference in the field `log` of a record, damaged or not, is to the archive."""
    return any(reference.endswith(ARCHIVED) for reference in (log or "").split(" "))


V = TypeVar("V")


class _Kept(Generic[V]):
    """What was used last, as much of it as weighs no more than a limit."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.clear()

    def clear(self) -> None:
        """Let go of everything."""
        self._values = OrderedDict[object, tuple[V, int]]()
        self._weight = 0

    def find(self, key: object) -> V | None:
        """Return what is kept under a key."""
        if key not in self._values:
            return None
        self._values.move_to_end(key)
        return self._values[key][0]

    def keep(self, key: object, value: V, weight: int = 1) -> V:
        """Keep a value instead of those that were used longest ago."""
        self._weight += weight - self._values.pop(key, (None, 0))[1]
        self._values[key] = value, weight
        while self._weight > self._limit and len(self._values) > 1:
            self._weight -= self._values.popitem(last=False)[1][1]
        return value


class SealedLogs:
    """Reads segments.

    All raise SegmentDamagedError, which names the segment, StoreUnavailableError and ArchiveUnavailableError.
    """

    def __init__(self, nodes: Nodes) -> None:
        self._nodes = nodes
        #: The store's archive.
        self.archived = ArchivedLogs(nodes)
        self._readers = _Kept[SegmentReader](KEPT_TAILS)
        self._contents = _Kept[Content](KEPT_BYTES)

    def forget(self) -> None:
        """Let go of all that is kept."""
        self._readers.clear()
        self._contents.clear()

    async def range(
        self, keys: JobKeys, references: Sequence[Reference], first: Place, until: Place | None, limit: int
    ) -> list[StoredEntry]:
        """Return the entries from one place to another, both included, or to the end: the first `limit` of them."""
        found: list[StoredEntry] = []
        for reference in references:
            if reference.last < first or (until is not None and reference.first > until):
                continue
            reader = await self.reader(keys, reference)
            for block in reader.blocks(first, until):
                content = await self._content(keys, reference, reader, block)
                found += _between(content.entries, first, until)
                if len(found) >= limit:
                    return found[:limit]
        return found

    async def last(self, keys: JobKeys, references: Sequence[Reference], limit: int) -> list[StoredEntry]:
        """Return the last entries, the newest first."""
        found: list[StoredEntry] = []
        for reference in reversed(references):
            reader = await self.reader(keys, reference)
            for block in reversed(range(len(reader.tail.blocks))):
                content = await self._content(keys, reference, reader, block)
                found += reversed(content.entries)
                if len(found) >= limit:
                    return found[:limit]
        return found

    async def state(self, keys: JobKeys, references: Sequence[Reference]) -> bytes:
        """Return the state at the end of the last segment, packed."""
        reference = references[-1]
        reader = await self.reader(keys, reference)
        return (await self._content(keys, reference, reader, len(reader.tail.blocks) - 1)).state

    async def states(self, logs: Sequence[tuple[JobKeys, str]]) -> list[bytes | StoreFormatError]:
        """Return what `state` does for many small jobs at once, by their records' field `log`."""
        found: dict[int, bytes | StoreFormatError] = {}
        asked: dict[int, tuple[Reference, tuple[str | int, ...]]] = {}
        for place, (keys, log) in enumerate(logs):
            try:
                last = references_in(keys.job_id, log)[-1]
            except StoreFormatError as error:
                found[place] = error
            else:
                if last.is_archived:
                    found[place] = await self._state_or_damage(keys, last)
                else:
                    asked[place] = last, end_command(keys, last)
        replies = await self._nodes.read_many([command for _, command in asked.values()])
        for (place, (reference, _)), reply in zip(asked.items(), replies, strict=True):
            try:
                found[place] = state_in(reply, reference)
            except SegmentDamagedError as error:
                found[place] = error
        return [found[place] for place in range(len(logs))]

    async def _state_or_damage(self, keys: JobKeys, last: Reference) -> bytes | StoreFormatError:
        try:
            return await self.state(keys, [last])
        except StoreFormatError as error:
            return error

    async def milestones(self, keys: JobKeys, references: Sequence[Reference]) -> list[str]:
        """Return the entries of the sparse index that the segments have."""
        readers = [await self.reader(keys, reference) for reference in references]
        return [entry for reader in readers for entry in reader.tail.milestones]

    async def reader(self, keys: JobKeys, reference: Reference) -> SegmentReader:
        """Return the reader of a segment."""
        known = self._readers.find((keys, reference))
        if known is not None:
            return known
        if reference.is_archived:
            return await self.archived.once((keys, reference), partial(self._read_end, keys, reference))
        return await self._read_end(keys, reference)

    async def _read_end(self, keys: JobKeys, reference: Reference) -> SegmentReader:
        try:
            end = await self._end(keys, reference.name, reference.size, is_archived=reference.is_archived)
            reader = SegmentReader.of(end, reference.size, reference.name, reference.root)
            if len(end) == reference.size:
                # All of it is here.
                for block in range(len(reader.tail.blocks)):
                    offset, size = reader.span(block)
                    self._keep(reader, block, end[offset : offset + size])
        except SegmentDamagedError as error:
            raise await self._named(keys, reference, error) from None
        return self._readers.keep((keys, reference), reader)

    async def data(self, keys: JobKeys, reference: Reference) -> bytes:
        """Return a whole segment, which isn't looked at."""
        wanted = Range(keys, reference.name, 0, reference.size)
        return await self._bytes(wanted, is_archived=reference.is_archived)

    async def missing(self, keys: JobKeys, references: Sequence[Reference]) -> list[Reference]:
        """Return those segments that aren't there, or have another size; what they hold isn't looked at."""
        here = [one for one in references if not one.is_archived]
        sizes = dict(
            zip(
                here,
                await self._nodes.read_many([("STRLEN", segment_key(keys, one.name)) for one in here]),
                strict=True,
            )
        )
        for one in references:
            if one.is_archived:
                # The last byte, and the one that shouldn't be there.
                end = Range(keys, one.name, one.size - 1, one.size + 1)
                sizes[one] = one.size - 1 + len(await self._bytes(end, is_archived=True))
        return [one for one in references if sizes[one] != one.size]

    async def find(self, keys: JobKeys) -> list[Reference]:
        """Return references to the segments of a job that has lost its record; it walks all keys.

        Of those that are there, these are the ones that the newest one names, one after the other. No record refers to
        one that expires: the stream still has all of it.
        """
        found: dict[bytes, tuple[Reference, bytes]] = {}
        if not is_unicode(keys.job_id):
            return []
        async for page in self._nodes.scan(segment_key(keys, "*").translate(_LITERALLY)):
            for key in page:
                size, left_ms = await self._nodes.read_many([("STRLEN", key), ("PTTL", key)])
                if size is WRONG_TYPE or left_ms != -1:
                    continue
                name = key.rpartition(":")[2]
                try:
                    reader = SegmentReader.of(await self._end(keys, name, size), size, name)
                except SegmentDamagedError:
                    continue
                first, last = Place(*reader.tail.first), Place(*reader.tail.last)
                found[reader.root] = Reference(first, last, size, reader.root[:ROOT_BYTES]), reader.tail.previous
        root = max(found, key=lambda one: found[one][0].last, default=b"")
        chain: list[Reference] = []
        while root in found:
            reference, root = found[root]
            chain.insert(0, reference)
        return [] if root else chain

    async def _end(self, keys: JobKeys, name: str, size: int, *, is_archived: bool = False) -> bytes:
        """Return enough of the end of a segment to have its tail."""
        wanted = Range(keys, name, max(size - END_BYTES, 0), size)
        end = await self._bytes(wanted, is_archived=is_archived)
        if not end:
            raise SegmentDamagedError(name, f"it is missing, and with it a part of the log of job {keys.job_id!r}")
        needed = bytes_of_tail(end, name)
        if needed <= len(end):
            return end
        return await self._bytes(wanted._replace(start=max(size - needed, 0)), is_archived=is_archived)

    async def _content(self, keys: JobKeys, reference: Reference, reader: SegmentReader, block: int) -> Content:
        known = self._contents.find((reader.root, block))
        if known is not None:
            return known
        if reference.is_archived:
            work = partial(self._read_block, keys, reference, reader, block)
            return await self.archived.once((reader.root, block), work)
        return await self._read_block(keys, reference, reader, block)

    async def _read_block(self, keys: JobKeys, reference: Reference, reader: SegmentReader, block: int) -> Content:
        offset, size = reader.span(block)
        wanted = Range(keys, reader.name, offset, offset + size)
        data = await self._bytes(wanted, is_archived=reference.is_archived)
        try:
            return self._keep(reader, block, data)
        except SegmentDamagedError as error:
            raise await self._named(keys, reference, error) from None

    def _keep(self, reader: SegmentReader, block: int, data: bytes) -> Content:
        weight = reader.tail.blocks[block].raw_size
        return self._contents.keep((reader.root, block), reader.read(block, data), weight)

    async def _bytes(self, wanted: Range, *, is_archived: bool) -> bytes:
        """Return some bytes of a segment; fewer, if they aren't there."""
        if is_archived:
            return await self.archived.fetch(wanted)
        [reply] = await self._nodes.read_many([_command(*wanted)])
        return _bytes_of(reply)

    async def _named(self, keys: JobKeys, reference: Reference, error: SegmentDamagedError) -> SegmentDamagedError:
        """Return an error that names job and object, too, if the segment lies in the archive."""
        if not reference.is_archived:
            return error
        place = await self.archived.place_of(keys, reference.name)
        return SegmentDamagedError(error.segment, f"{error.what} (job {keys.job_id!r}, {place})", error.block)


def _command(keys: JobKeys, name: str, start: int, end: int) -> tuple[str | int, ...]:
    """Return the command that reads some bytes of a segment."""
    return "GETRANGE", segment_key(keys, name), start, end - 1


def _bytes_of(reply: Reply) -> bytes:
    return b"" if reply is WRONG_TYPE else bytes(reply)


def end_command(keys: JobKeys, reference: Reference) -> tuple[str | int, ...]:
    """Return the command that reads the end of a segment, and so all of a small one."""
    return _command(keys, reference.name, max(reference.size - END_BYTES, 0), reference.size)


def state_in(reply: Reply, reference: Reference) -> bytes:
    """Return the state that a small segment holds, of the reply to `end_command`; SegmentDamagedError."""
    data = _bytes_of(reply)
    if not data:
        raise SegmentDamagedError(reference.name, "it is missing")
    reader = SegmentReader.of(data, reference.size, reference.name, reference.root)
    last = len(reader.tail.blocks) - 1
    offset, size = reader.span(last)
    begin = offset - (reference.size - len(data))
    return reader.read(last, data[begin : begin + size] if begin >= 0 else b"").state


def _between(entries: Sequence[StoredEntry], first: Place, until: Place | None) -> list[StoredEntry]:
    """Return those entries of a block that stand from one place to another."""
    start = bisect_left(entries, first, key=_place_of)
    return list(entries[start : None if until is None else bisect_right(entries, until, key=_place_of)])


def _place_of(entry: StoredEntry) -> Place:
    return Place.parse(entry[0])
