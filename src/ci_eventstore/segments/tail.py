"""The tail of a segment: who it belongs to, what it holds, and where each of its blocks lies. Pure.

A segment is its blocks, then its tail, which ends in a footer of a fixed size. So a reader begins at the end, and reads
no block that it doesn't need. docs/format.md has the bytes.
"""

import hashlib
import struct
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgpack

from ci_eventstore.errors import SegmentDamagedError

VERSION = 1
DIGEST_BYTES = 20
#: A frame that whoever unpacks Zstandard skips: these four bytes, its length, and what it holds.
SKIPPED = 0x184D2A50
#: The beginning of the root, the length of the tail, and what tells a segment from other files.
FOOTER = struct.Struct("<4sI4s")
MAGIC = b"ciS\x01"
_DIGITS = frozenset("0123456789abcdef")
_SKIPPED_HEAD = struct.Struct("<II")
#: What a segment has beside its blocks and its tail.
FRAME_BYTES = _SKIPPED_HEAD.size + FOOTER.size
#: A tail has a row for each block and the sparse index; a longer one is none.
MAX_TAIL_BYTES = 64 * 1024 * 1024


class Block(NamedTuple):
    """A row of the table of blocks."""

    #: As it lies there, and unpacked.
    size: int
    raw_size: int
    #: How many entries it has, and the place of the first one; it may hold nothing but the state.
    entries: int
    position: int
    part: int
    #: How many lines and bytes of text the log has before it.
    lines: int
    text_bytes: int
    #: Of its first event, in milliseconds since 1970; 0 if that has none, or the segment is a small one.
    time: int
    #: Of the block and the digest before it: of the block before, or the root of the segment before.
    digest: bytes


class Tail(NamedTuple):
    """What a segment says of itself."""

    codec: int
    #: The version of the entries' payloads.
    schema: int
    #: The store's name, the job's id, and its incarnation, which is the token of the job's creation.
    store: str
    job_id: str
    incarnation: str | None
    #: The places of the first and the last entry.
    first: tuple[int, int]
    last: tuple[int, int]
    #: How many events it has, and how much text.
    events: int
    lines: int
    text_bytes: int
    #: The mark of the last entry.
    mark: str
    #: The root of the segment before, nothing for the first one.
    previous: bytes
    blocks: Sequence[Block]
    #: Entries of the log's sparse index, as lists have them.
    milestones: Sequence[str]
    #: Named sections that later programs add, each with its version; what isn't known is left alone.
    sections: dict[str, Any]

    def offset(self, number: int) -> int:
        """Return where a block begins."""
        return sum(block.size for block in self.blocks[:number])


def digest_of(before: bytes, data: bytes) -> bytes:
    """Return the digest of a block, or of a tail, which goes by the one before it."""
    return hashlib.blake2b(before + data, digest_size=DIGEST_BYTES).digest()


def pack_tail(tail: Tail) -> tuple[bytes, bytes]:
    """Return the bytes that end a segment, and its root."""
    known = (
        VERSION,
        tail.codec,
        tail.schema,
        tail.store,
        tail.job_id,
        _as_bytes(tail.incarnation),
        *tail.first,
        *tail.last,
        tail.events,
        tail.lines,
        tail.text_bytes,
        _as_bytes(tail.mark),
        tail.previous,
        [list(block) for block in tail.blocks],
        [int(number) for entry in tail.milestones for number in entry.split(" ")],
        tail.sections,
    )
    packed: bytes = msgpack.packb(known)
    root = digest_of(b"", packed)
    head = _SKIPPED_HEAD.pack(SKIPPED, len(packed) + FOOTER.size)
    return head + packed + FOOTER.pack(root[:4], len(packed), MAGIC), root


def bytes_of_tail(end: bytes, name: str = "") -> int:
    """Return how many bytes at a segment's end have its tail, from the last of them; SegmentDamagedError."""
    if len(end) < FOOTER.size:
        raise SegmentDamagedError(name, f"it has {len(end)} bytes, and is cut off")
    _, length, magic = FOOTER.unpack(end[-FOOTER.size :])
    if magic != MAGIC:
        raise SegmentDamagedError(name, f"it ends with {magic!r}, and not as a segment does")
    if length > MAX_TAIL_BYTES:
        raise SegmentDamagedError(name, f"its tail would have {length} bytes")
    return int(length) + FRAME_BYTES


def read_tail(end: bytes, name: str = "", root: bytes | None = None) -> tuple[Tail, bytes]:
    """Return the tail that a segment's last bytes have, and the root; SegmentDamagedError.

    With the root that is to be found, or the beginning of it, any other one is refused.
    """
    size = bytes_of_tail(end, name)
    if len(end) < size:
        raise SegmentDamagedError(name, f"{len(end)} bytes are there of a tail of {size}")
    if _SKIPPED_HEAD.unpack(end[-size:][: _SKIPPED_HEAD.size]) != (SKIPPED, size - _SKIPPED_HEAD.size):
        raise SegmentDamagedError(name, "its tail doesn't begin as one does")
    packed = end[len(end) - size + _SKIPPED_HEAD.size : len(end) - FOOTER.size]
    found = digest_of(b"", packed)
    if found[:4] != end[-FOOTER.size :][:4]:
        raise SegmentDamagedError(name, "its tail isn't what was written")
    if root is not None and not found.startswith(root):
        raise SegmentDamagedError(name, f"its root is {found.hex()}, not {root.hex()}")
    try:
        return _tail_of(msgpack.unpackb(packed)), found
    except (ValueError, TypeError, IndexError, msgpack.UnpackException) as error:
        raise SegmentDamagedError(name, f"its tail can't be read: {error}") from error


def _tail_of(known: Sequence[Any]) -> Tail:
    if known[0] != VERSION:
        raise ValueError(f"version {known[0]!r} is unknown, this program reads {VERSION}")
    codec, schema, store, job_id, incarnation, *numbers = known[1:13]
    first, last = (numbers[0], numbers[1]), (numbers[2], numbers[3])
    mark, previous, blocks, milestones, sections = known[13:18]
    texts = [" ".join(map(str, milestones[start : start + 4])) for start in range(0, len(milestones), 4)]
    rows = tuple(Block(*row[: len(Block._fields)]) for row in blocks)
    of_whom = (codec, schema, store, job_id, _as_text(incarnation))
    sizes = (numbers[4], numbers[5], numbers[6])
    return Tail(*of_whom, first, last, *sizes, _as_text(mark) or "", previous, rows, texts, sections)


def _as_bytes(digits: str | None) -> str | bytes | None:
    """Return hex digits as half as many bytes, and any other text as it is."""
    return bytes.fromhex(digits) if digits and len(digits) % 2 == 0 and set(digits) <= _DIGITS else digits


def _as_text(packed: str | bytes | None) -> str | None:
    return packed.hex() if isinstance(packed, bytes) else packed
