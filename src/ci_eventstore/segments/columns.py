"""Lines of a log as columns: their times apart from their texts, which pack better so than by turns. Pure.

Whatever isn't such a line stays as it is, and each payload comes back byte for byte.
"""

from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import NamedTuple

#: How the payload of a log event with an aware time begins: version 1, "log", and a timestamp's kind and type.
_HEAD = b"\x94\x01\xa3log\xd7\xff"
#: Then come eight bytes: nanoseconds, and after them seconds.
_TIME_END = len(_HEAD) + 8
_SECONDS = (1 << 34) - 1
_MICROSECONDS = 1_000_000


class Columns(NamedTuple):
    """The payloads of a block."""

    #: How many lines come next, then how many others, by turns.
    runs: Sequence[int]
    others: Sequence[bytes]
    #: The microseconds of each line since the one before; of the first one since 1970.
    times: Sequence[int]
    #: How long each text is; none if each ends with its only newline.
    lengths: Sequence[int]
    texts: bytes


def split(payloads: Sequence[bytes]) -> Columns:
    """Return payloads as columns."""
    runs, others, times, texts, before = [0], list[bytes](), list[int](), list[bytes](), 0
    for payload in payloads:
        line = _line_of(payload)
        if (line is None) == len(runs) % 2:
            runs.append(0)
        runs[-1] += 1
        if line is None:
            others.append(payload)
        else:
            times.append(line[0] - before)
            texts.append(line[1])
            before = line[0]
    are_lines = all(text.find(b"\n") == len(text) - 1 for text in texts if text) and all(texts)
    return Columns(runs, others, times, [] if are_lines else list(map(len, texts)), b"".join(texts))


def join(columns: Columns) -> list[bytes]:
    """Return the payloads of which these are the columns; ValueError."""
    texts, others, payloads = _texts_of(columns), iter(columns.others), list[bytes]()
    lines = map(_payload_of, accumulate(columns.times), texts)
    for number, count in enumerate(columns.runs):
        source = others if number % 2 else lines
        payloads += [payload for _, payload in zip(range(count), source, strict=False)]
    if len(payloads) != sum(columns.runs) or len(payloads) != len(columns.others) + len(texts):
        raise ValueError("its columns have other numbers of entries")
    return payloads


def _texts_of(columns: Columns) -> list[bytes]:
    if columns.lengths:
        ends = [0, *accumulate(columns.lengths)]
        texts = [columns.texts[start:end] for start, end in pairwise(ends)]
    else:
        texts = [line + b"\n" for line in columns.texts.split(b"\n")[:-1]]
    size = sum(columns.lengths or map(len, texts))
    if len(texts) != len(columns.times) or size != len(columns.texts):
        raise ValueError("it doesn't have a time for each text")
    return texts


def _line_of(payload: bytes) -> tuple[int, bytes] | None:
    """Return the microseconds and the text of a line; None for what comes back otherwise."""
    if not payload.startswith(_HEAD):
        return None
    packed = int.from_bytes(payload[len(_HEAD) : _TIME_END])
    time = (packed & _SECONDS) * _MICROSECONDS + (packed >> 34) // 1000
    kind = payload[_TIME_END] if len(payload) > _TIME_END else 0
    text = payload[_TIME_END + (1 if kind < 0xD9 else 2 if kind == 0xD9 else 3) :]
    return (time, text) if _payload_of(time, text) == payload else None


def _payload_of(time: int, text: bytes) -> bytes:
    seconds, microseconds = divmod(time, _MICROSECONDS)
    packed = ((microseconds * 1000) << 34) | seconds
    size = len(text)
    if size < 32:
        head = bytes((0xA0 | size,))
    elif size < 256:
        head = bytes((0xD9, size))
    else:
        head = b"\xda" + (size & 0xFFFF).to_bytes(2)
    return _HEAD + packed.to_bytes(8) + head + text
