"""Pack the entries of a block, and unpack them: msgpack in a Zstandard frame, then one of the texts of lines. Pure.

The content of a block is an array of four: entries that don't come right after the one before them, as number and
place; numbers of those that are facts; the payloads, or their columns; the state of the job at the segment's end, or
nothing.
"""

import threading
from collections.abc import Sequence
from typing import NamedTuple

import msgpack
import zstandard

from ci_eventstore.errors import SegmentDamagedError
from ci_eventstore.segments.columns import Columns, join, split
from ci_eventstore.segments.tail import Block
from ci_eventstore.segments.words import WORDS

#: Codecs, which the tail names: payloads one after the other; the same with a dictionary, for logs of a few lines;
#: columns, whose texts are a frame of their own; and columns that also have lines whose texts were packed singly when
#: they were written. Nobody writes the first and the third any more.
PLAIN = 0
WITH_WORDS = 1
LINES = 2
COLUMNS = 3
#: A seventh smaller than level 3, and still a fifth of what sealing takes (`benchmarks/sealed.py`).
LEVEL = 9
#: A tenth smaller than level 9, and than the levels in between, in four to six times its time (0081).
TEXT_LEVEL = 15
#: What takes a moment for a few kilobytes, and an eternity for many.
SMALL_LEVEL = 19


class Entry(NamedTuple):
    """An entry of a job's stream, at its place."""

    position: int
    part: int
    payload: bytes


class Content(NamedTuple):
    """What a block holds: entries by their stream ids, and the state if the block is the last one."""

    entries: Sequence[tuple[bytes, bytes]]
    state: bytes


class _Zstandard(threading.local):
    """What each thread packs with, which takes longer to make than to use."""

    def __init__(self) -> None:
        words = zstandard.ZstdCompressionDict(WORDS, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
        self.compress_texts = zstandard.ZstdCompressor(level=TEXT_LEVEL).compress
        self.compress = {
            COLUMNS: zstandard.ZstdCompressor(level=LEVEL).compress,
            WITH_WORDS: zstandard.ZstdCompressor(level=SMALL_LEVEL, dict_data=words).compress,
        }
        plain = zstandard.ZstdDecompressor()
        self.decompress = {
            PLAIN: plain.decompressobj,
            WITH_WORDS: zstandard.ZstdDecompressor(dict_data=words).decompressobj,
            LINES: plain.decompressobj,
            COLUMNS: plain.decompressobj,
        }


_zstandard = _Zstandard()


def pack(entries: Sequence[Entry], state: bytes, codec: int) -> tuple[bytes, int]:
    """Return a block as it is stored, and how many bytes it has unpacked.

    Columns alone can hold an entry that was unpacked.
    """
    jumps, facts = [], []
    for number, (position, part, _) in enumerate(entries):
        before = entries[number - 1] if number else None
        if before is None:
            continue
        if part == 0 and position == before.position + 1:
            continue
        if part and (position, part) == (before.position, before.part + 1):
            facts.append(number)
        else:
            jumps.append((number, position, part))
    payloads, compress = [entry.payload for entry in entries], _zstandard.compress[codec]
    if codec == COLUMNS:
        *columns, texts = split(payloads)
        content: bytes = msgpack.packb((jumps, facts, columns, state))
        return compress(content) + _zstandard.compress_texts(texts), len(content) + len(texts)
    content = msgpack.packb((jumps, facts, payloads, state))
    return compress(content), len(content)


def unpack(data: bytes, block: Block, codec: int, name: str, number: int) -> Content:
    """Return what a block holds, whose bytes were found right; SegmentDamagedError."""
    try:
        content, *texts = _frames(data, codec, block.raw_size)
        size = len(content) + sum(map(len, texts))
        jumps, facts, payloads, state = msgpack.unpackb(content)
        if codec == LINES:
            runs, others, times, lengths = payloads
            payloads = join(Columns(runs, others, times, lengths, (), b"", *texts))
        elif codec == COLUMNS:
            payloads = join(Columns(*payloads, *texts))
        if (size, len(payloads)) != (block.raw_size, block.entries):
            raise ValueError(f"it has {len(payloads)} entries in {size} bytes, and should have {block.entries}")
        return Content(list(zip(_ids(block, jumps, facts), payloads, strict=True)), state)
    except (KeyError, ValueError, TypeError, zstandard.ZstdError, msgpack.UnpackException) as error:
        raise SegmentDamagedError(name, f"it can't be read: {error}", number) from error


def _frames(data: bytes, codec: int, size: int) -> list[bytes]:
    """Return what each of the frames of a block holds, which is as long as the block is unpacked; ValueError."""
    found = list[bytes]()
    while data:
        size -= zstandard.get_frame_parameters(data).content_size
        if size < 0:
            # Refused before it takes any memory.
            raise ValueError("its frames would have more than it has")
        frame = _zstandard.decompress[codec]()
        found.append(frame.decompress(data))
        if not frame.eof:
            raise ValueError("a frame is cut off")
        data = frame.unused_data
    return found


def _ids(block: Block, jumps: Sequence[Sequence[int]], facts: Sequence[int]) -> list[bytes]:
    """Return the stream ids of a block's entries."""
    position, part = block.position, block.part
    if not (jumps or facts or part):
        return [b"%d-0" % place for place in range(position, position + block.entries)]
    elsewhere = {number: (position, part) for number, position, part in jumps}
    of_facts, ids = set(facts), list[bytes]()
    for number in range(block.entries):
        if number in elsewhere:
            position, part = elsewhere[number]
        elif number in of_facts:
            part += 1
        elif number:
            position, part = position + 1, 0
        ids.append(b"%d-%d" % (position, part))
    return ids
