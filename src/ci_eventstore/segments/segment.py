"""Write segments and read them: blocks of entries, which are found by their places, and a root for all of it. Pure.

Whoever writes hands over one entry after the other and keeps no more than a segment. Whoever reads asks which blocks
have what it wants, gets these from wherever they lie, and is told of each byte that isn't as it was written.
"""

import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import BinaryIO, NamedTuple

from ci_eventstore.errors import SegmentDamagedError
from ci_eventstore.segments.packing import COLUMNS, WITH_WORDS, Content, Entry, pack, unpack
from ci_eventstore.segments.payloads import Unpacked, unpacked
from ci_eventstore.segments.tail import FOOTER, Block, Tail, bytes_of_tail, digest_of, pack_tail, read_tail

#: A block is packed once its entries have this many bytes unpacked; half as many if it has this many entries, since who
#: reads a short line takes all of them apart.
BLOCK_BYTES = 256 * 1024
MANY_ENTRIES = 1000
#: A segment of one block with no more than this is packed with the words that small ones have in common.
SMALL_BYTES = 8 * 1024
#: The state is in the last block, unless that has more: a reader of the state alone reads no more than this.
STATE_BYTES = 8 * 1024
#: A segment should end when it has this many: it is kept in memory, and is sent at once.
SEGMENT_BYTES = 4 * 1024 * 1024
PAYLOAD_VERSION = 1

_NAME = re.compile(r"(\d{1,20})\.(\d{1,20})-(\d{1,20})\.(\d{1,20})-[0-9a-f]{16}")


class Origin(NamedTuple):
    """Whose log it is, and what comes before the segment."""

    store: str
    job_id: str
    incarnation: str | None
    #: The root of the segment before; nothing for the first one.
    previous: bytes = b""
    #: How much text the log has before the segment.
    lines: int = 0
    text_bytes: int = 0


class Segment(NamedTuple):
    """A segment as it is stored."""

    name: str
    root: bytes
    data: bytes
    tail: Tail


class SegmentWriter:
    """Makes one segment of entries that are added in their order."""

    def __init__(self, origin: Origin) -> None:
        self._origin = origin
        self._lines, self._bytes, self._events = origin.lines, origin.text_bytes, 0
        self._digest = origin.previous
        self._blocks: list[Block] = []
        self._data: list[bytes] = []
        self._first: tuple[int, int] | None = None
        self._last = (0, 0)
        self.size = 0
        self._begin()

    def _begin(self) -> None:
        self._entries: list[Entry] = []
        #: As long as the segment may be a small one, the entries as they were given.
        self._given: list[Entry] = []
        self._raw_size = self._time = 0
        self._before = self._lines, self._bytes

    def add(self, position: int, part: int, payload: bytes, text: tuple[int, int] = (0, 0), time: int = 0) -> None:
        """Take the next entry: how many bytes and lines of text it has, and its time in milliseconds since 1970."""
        if self._first is None:
            self._first = position, part
        whole = unpacked(payload)
        self._entries.append(Entry(position, part, whole))
        self._last = position, part
        self._events += part == 0
        self._bytes, self._lines = self._bytes + text[0], self._lines + text[1]
        self._time = self._time or time
        self._raw_size += len(whole) + 3
        if self._raw_size <= SMALL_BYTES:
            self._given.append(Entry(position, part, payload))
        wanted = BLOCK_BYTES if len(self._entries) < MANY_ENTRIES else BLOCK_BYTES // 2
        if self._raw_size >= wanted:
            self._pack(COLUMNS)

    @property
    def is_full(self) -> bool:
        """Whether the segment should end."""
        return self.size >= SEGMENT_BYTES

    def finish(self, state: bytes, mark: str, milestones: Sequence[str] = ()) -> Segment:
        """Return the segment, with the job's state after the last entry, that entry's mark, and the sparse index."""
        if self._first is None:
            raise ValueError("a segment has at least one entry")
        if self._raw_size > STATE_BYTES:
            self._pack(COLUMNS)
        codec = self._codec_of_end()
        if codec == WITH_WORDS:
            self._entries, self._time = self._given, 0
        self._pack(codec, state)
        origin = self._origin
        tail = Tail(
            codec=codec,
            schema=PAYLOAD_VERSION,
            store=origin.store,
            job_id=origin.job_id,
            incarnation=origin.incarnation,
            first=self._first,
            last=self._last,
            events=self._events,
            lines=self._lines - origin.lines,
            text_bytes=self._bytes - origin.text_bytes,
            mark=mark,
            previous=origin.previous,
            blocks=self._blocks,
            milestones=milestones,
            sections={},
        )
        end, root = pack_tail(tail)
        return Segment(name_of(tail.first, tail.last, root), root, b"".join((*self._data, end)), tail)

    def _codec_of_end(self) -> int:
        """Return how the last block is packed: with words if the segment is a small one, unless columns take less."""
        if self._blocks or self._raw_size > SMALL_BYTES:
            return COLUMNS
        if any(isinstance(entry.payload, Unpacked) for entry in self._given):
            # What was read from columns isn't as it was written, which nothing else says.
            return COLUMNS
        # Words save more than columns if one text at most was packed, and columns up to a half if more were (0081).
        return WITH_WORDS if sum(isinstance(entry.payload, Unpacked) for entry in self._entries) <= 1 else COLUMNS

    def _pack(self, codec: int, state: bytes = b"") -> None:
        data, raw_size = pack(self._entries, state, codec)
        self._digest = digest_of(self._digest, data)
        first = self._entries[0] if self._entries else Entry(*self._last, b"")
        place, before = (first.position, first.part), self._before
        self._blocks.append(Block(len(data), raw_size, len(self._entries), *place, *before, self._time, self._digest))
        self._data.append(data)
        self.size += len(data)
        self._begin()


def name_of(first: tuple[int, int], last: tuple[int, int], root: bytes) -> str:
    """Return a segment's name: its range and the beginning of its root."""
    return f"{first[0]}.{first[1]}-{last[0]}.{last[1]}-{root.hex()[:16]}"


def places_in(name: str) -> tuple[tuple[int, int], tuple[int, int]] | None:
    """Return the places of the first and the last entry, as a segment's name says them; None if it is no such name."""
    found = _NAME.fullmatch(name)
    return found and ((int(found[1]), int(found[2])), (int(found[3]), int(found[4])))


class SegmentReader(NamedTuple):
    """Finds what a segment has, and reads its blocks, which somebody else gets from where they lie."""

    name: str
    root: bytes
    tail: Tail
    #: How many bytes the whole segment has.
    size: int

    @classmethod
    def of(cls, end: bytes, size: int, name: str = "", root: bytes | None = None) -> "SegmentReader":
        """Return the reader of a segment of that size, of whose end `bytes_of_tail` are known; SegmentDamagedError."""
        tail, found = read_tail(end, name, root)
        reader = cls(name or name_of(tail.first, tail.last, found), found, tail, size)
        if tail.offset(len(tail.blocks)) + bytes_of_tail(end, name) != size:
            raise SegmentDamagedError(
                reader.name, f"it has {size} bytes, which isn't what its blocks and its tail have"
            )
        return reader

    def blocks(self, first: tuple[int, int], until: tuple[int, int] | None) -> range:
        """Return the numbers of the blocks that may have entries from one place to another."""
        places = [(block.position, block.part) for block in self.tail.blocks if block.entries]
        start = max(bisect_right(places, first) - 1, 0)
        end = len(places) if until is None else bisect_right(places, until)
        return range(start, end)

    def span(self, number: int) -> tuple[int, int]:
        """Return where a block begins, and how many bytes it has."""
        return self.tail.offset(number), self.tail.blocks[number].size

    def read(self, number: int, data: bytes) -> Content:
        """Return what a block holds; SegmentDamagedError if its bytes are others than were written."""
        tail = self.tail
        before = tail.blocks[number - 1].digest if number else tail.previous
        if digest_of(before, data) != tail.blocks[number].digest:
            what = f"its {len(data)} bytes aren't what was written" if data else "it is missing"
            raise SegmentDamagedError(self.name, what, number)
        return unpack(data, tail.blocks[number], tail.codec, self.name, number)


def check_segment(data: bytes, name: str, root: bytes) -> None:
    """Refuse a whole segment with another byte than was written, or more or fewer of them; SegmentDamagedError."""
    reader = SegmentReader.of(data, len(data), name, root)
    before = reader.tail.previous
    for number, block in enumerate(reader.tail.blocks):
        offset, size = reader.span(number)
        before = digest_of(before, data[offset : offset + size])
        if before != block.digest:
            raise SegmentDamagedError(name, f"its {size} bytes aren't what was written", number)


def segments_of(file: BinaryIO, root: bytes | None = None) -> Iterator[SegmentReader]:
    """Yield the segments that one file has one after the other, the last one first; SegmentDamagedError.

    All bytes of each are read and compared, a block at a time. With a root, it has to be that of the last one.
    """
    end = file.seek(0, 2)
    expected = root
    while True:
        file.seek(max(end - FOOTER.size, 0))
        size = bytes_of_tail(file.read(min(FOOTER.size, end)))
        file.seek(max(end - size, 0))
        tail, found = read_tail(file.read(min(size, end)), root=expected)
        name = name_of(tail.first, tail.last, found)
        begin = end - size - tail.offset(len(tail.blocks))
        if begin < 0:
            raise SegmentDamagedError(name, f"{-begin} bytes of its beginning are missing")
        reader = SegmentReader(name, found, tail, end - begin)
        for number in range(len(tail.blocks)):
            offset, length = reader.span(number)
            file.seek(begin + offset)
            reader.read(number, file.read(length))
        yield reader
        if not tail.previous:
            if begin:
                raise SegmentDamagedError(name, f"{begin} bytes stand before it, which belong to no segment")
            return
        if begin == 0:
            raise SegmentDamagedError(name, "the segment before it is missing")
        end, expected = begin, tail.previous
