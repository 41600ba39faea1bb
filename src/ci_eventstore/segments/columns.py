"""Lines of a log as columns: their times apart from their texts, which pack better so than by turns. Pure.

Whatever isn't such a line stays as it is. Each payload comes back byte for byte, and if its text was packed when it was
written, with the mark that it had then.
"""

from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import NamedTuple

from ci_eventstore.segments.payloads import MARK_BYTES, Unpacked, line_of, payload_of


class Columns(NamedTuple):
    """The payloads of a block."""

    #: How many lines come next, then how many others, by turns.
    runs: Sequence[int]
    others: Sequence[bytes]
    #: The microseconds of each line since the one before; of the first one since 1970.
    times: Sequence[int]
    #: How long each text is; none if each ends with its only newline.
    lengths: Sequence[int]
    #: How many lines are as they were written, then how many were unpacked, by turns; none if all are as written.
    written: Sequence[int]
    #: Of each line that was unpacked, one after the other.
    marks: bytes
    texts: bytes


def split(payloads: Sequence[bytes]) -> Columns:
    """Return payloads as columns."""
    runs, others, times, texts, before = [0], list[bytes](), list[int](), list[bytes](), 0
    written, marks = [0], list[bytes]()
    for payload in payloads:
        line = line_of(payload)
        if (line is None) == len(runs) % 2:
            runs.append(0)
        runs[-1] += 1
        if line is None:
            others.append(payload)
            continue
        times.append(line[0] - before)
        texts.append(line[1])
        before = line[0]
        if (type(payload) is Unpacked) == len(written) % 2:
            written.append(0)
        written[-1] += 1
        if type(payload) is Unpacked:
            marks.append(payload.mark)
    are_lines = all(text.find(b"\n") == len(text) - 1 for text in texts if text) and all(texts)
    lengths = [] if are_lines else list(map(len, texts))
    return Columns(runs, others, times, lengths, written if marks else [], b"".join(marks), b"".join(texts))


def join(columns: Columns) -> list[bytes]:
    """Return the payloads of which these are the columns; ValueError."""
    texts, others, payloads = _texts_of(columns), iter(columns.others), list[bytes]()
    lines = iter(_marked(list(map(payload_of, accumulate(columns.times), texts)), columns))
    for number, count in enumerate(columns.runs):
        source = others if number % 2 else lines
        payloads += [payload for _, payload in zip(range(count), source, strict=False)]
    if len(payloads) != sum(columns.runs) or len(payloads) != len(columns.others) + len(texts):
        raise ValueError("its columns have other numbers of entries")
    return payloads


def _marked(lines: list[bytes], columns: Columns) -> list[bytes]:
    """Give the lines that were unpacked their marks."""
    marks, place, used = columns.marks, 0, 0
    if not columns.written and not marks:
        return lines
    for number, count in enumerate(columns.written):
        if number % 2:
            for at in range(place, min(place + count, len(lines))):
                lines[at] = Unpacked(lines[at], marks[used : used + MARK_BYTES])
                used += MARK_BYTES
        place += count
    if place != len(lines) or used != len(marks):
        raise ValueError("its columns don't have a mark for each line that was unpacked")
    return lines


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
