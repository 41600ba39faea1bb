"""Segments hold what was put in, give it back by any part, and show each byte that isn't as it was written."""

import base64
import hashlib
import io
import itertools
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from ci_common.models import JobEvent
from ci_eventstore.errors import SegmentDamagedError
from ci_eventstore.events.codec import decode_event, encode_event
from ci_eventstore.segments.packing import COLUMNS, LINES, PLAIN, WITH_WORDS, unpack
from ci_eventstore.segments.segment import (
    BLOCK_BYTES,
    Origin,
    Segment,
    SegmentReader,
    SegmentWriter,
    check_segment,
    name_of,
    segments_of,
)
from ci_eventstore.segments.tail import Block, bytes_of_tail, pack_tail
from ci_eventstore.segments.words import WORDS

ORIGIN = Origin("ci", "job-1", "0123456789abcdef")
#: Entries have a millisecond since then for each place.
START_MS = 1_764_000_000_000
Place = tuple[int, int]
Log = Sequence[tuple[Place, bytes]]


#: How an entry comes after the one before it, as an event, a fact or an event after a hole, and how big it is.
STEPS = st.lists(
    st.tuples(st.sampled_from(["event", "event", "fact", "hole"]), st.sampled_from([0, 4, 160, BLOCK_BYTES // 3])),
    min_size=1,
    max_size=60,
)


def log_of(steps: Sequence[tuple[str, int]]) -> Log:
    """Return entries at places as streams have them, each with bytes of its own."""
    position, part, log = 0, 0, []
    for number, (kind, size) in enumerate(steps):
        if kind == "fact":
            part += 1
        else:
            position, part = position + (1 if kind == "event" else 7), 0
        log.append(((position, part), (b"%04d" % number * (size // 4))[:size]))
    return log


def written(log: Log, state: bytes = b"state", origin: Origin = ORIGIN) -> Segment:
    """Return the segment of a log in which each entry is a line of as many bytes as its payload has."""
    writer = SegmentWriter(origin)
    for (position, part), payload in log:
        writer.add(position, part, payload, (len(payload), 1), START_MS + position)
    return writer.finish(state, "89abcdef", ["1000 900 80000 1764000000000"])


def reader_of(segment: Segment) -> SegmentReader:
    """Return the reader of a segment, of which it is given no more than the tail."""
    size = bytes_of_tail(segment.data[-40:])
    return SegmentReader.of(segment.data[-size:], len(segment.data), segment.name, segment.root)


def entries_of(segment: Segment, first: Place = (0, 0), until: Place | None = None) -> Log:
    """Return what the blocks have that may have entries from one place to another."""
    reader, found = reader_of(segment), []
    for number in reader.blocks(first, until):
        offset, size = reader.span(number)
        for stream_id, payload in reader.read(number, segment.data[offset : offset + size]).entries:
            position, part = stream_id.split(b"-")
            found.append(((int(position), int(part)), payload))
    return [(place, payload) for place, payload in found if place >= first and (until is None or place <= until)]


def small_log(lines: int) -> Log:
    """Return as many short lines as a small job prints, as events."""
    return [((n, 0), b"\x94\x01\xa3log\xd6\xffT3!\x00\xb0step %2d ... ok\n" % n) for n in range(1, lines + 1)]


@settings(deadline=None, max_examples=60)
@given(steps=STEPS, ends=st.tuples(st.integers(0, 59), st.integers(0, 59)))
def test_any_part_of_a_log_comes_back(steps: Sequence[tuple[str, int]], ends: tuple[int, int]) -> None:
    """All of it, and what lies between any two places, whatever the blocks are."""
    log = log_of(steps)
    segment = written(log)
    assert entries_of(segment) == list(log)
    first, until = sorted(log[end % len(log)][0] for end in ends)
    assert entries_of(segment, first, until) == [entry for entry in log if first <= entry[0] <= until]


@settings(deadline=None, max_examples=30)
@given(steps=STEPS, cuts=st.sets(st.integers(1, 59)))
def test_a_log_may_be_cut_anywhere(steps: Sequence[tuple[str, int]], cuts: set[int]) -> None:
    """Segments of any parts of a log, one after the other in a file, are that log; each names the one before."""
    log = log_of(steps)
    edges = [0, *sorted(cut for cut in cuts if cut < len(log)), len(log)]
    segments: list[Segment] = []
    for start, end in pairwise(edges):
        previous = segments[-1].root if segments else b""
        segments.append(written(log[start:end], origin=ORIGIN._replace(previous=previous)))
    assert [entry for segment in segments for entry in entries_of(segment)] == list(log)
    file = io.BytesIO(b"".join(segment.data for segment in segments))
    assert [found.root for found in segments_of(file, segments[-1].root)] == [one.root for one in reversed(segments)]


@pytest.mark.parametrize("count", [1, 30, 4000])
def test_its_end_says_all_but_the_entries(count: int) -> None:
    """The tail has whose the log is, what it holds, where the blocks lie; the state is in the last block."""
    log = [((n, 0), b"%d" % n * 40) for n in range(1, count + 1)]
    segment = written(log, b"the state")
    reader = reader_of(segment)
    tail = reader.tail
    assert (tail.store, tail.job_id, tail.incarnation, tail.mark) == ("ci", "job-1", "0123456789abcdef", "89abcdef")
    assert (tail.first, tail.last, tail.events, tail.lines) == ((1, 0), (count, 0), count, count)
    assert tail.text_bytes == sum(len(payload) for _, payload in log)
    assert tail.milestones == ["1000 900 80000 1764000000000"]
    assert segment.name == f"1.0-{count}.0-{segment.root.hex()[:16]}"
    offset, size = reader.span(len(tail.blocks) - 1)
    assert reader.read(len(tail.blocks) - 1, segment.data[offset : offset + size]).state == b"the state"
    block = tail.blocks[len(tail.blocks) // 2]
    before = [payload for (position, _), payload in log if position < block.position]
    assert (block.lines, block.text_bytes) == (len(before), sum(map(len, before)))
    with_entries = [block for block in tail.blocks if block.entries]
    # Nobody needs the time of a small segment's only block.
    times = [0] if tail.codec == WITH_WORDS else [START_MS + block.position for block in with_entries]
    assert [block.time for block in with_entries] == times


def with_sections(segment: Segment, sections: dict[str, Any]) -> Segment:
    """Return the segment as a later program would have written it, with sections in its tail."""
    tail = segment.tail._replace(sections=sections)
    end, root = pack_tail(tail)
    blocks = segment.data[: tail.offset(len(tail.blocks))]
    return Segment(name_of(tail.first, tail.last, root), root, blocks + end, tail)


@pytest.mark.parametrize("count", [1, 4000])
def test_sections_of_later_programs_are_left_alone(count: int) -> None:
    """They are read with all else, are in the root, and are verified; a chain of such segments is whole."""
    log = [((n, 0), b"%d" % n * 40) for n in range(1, count + 1)]
    sections = {"steps": [1, [[0, 12, "build"], [12, 40, "test"]]], "artifacts": [7, {"bytes": b"\x00\xff"}, None]}
    plain = written(log)
    segment = with_sections(plain, sections)
    assert (reader_of(plain).tail.sections, reader_of(segment).tail.sections) == ({}, sections)
    assert reader_of(segment).tail == reader_of(plain).tail._replace(sections=sections)
    assert entries_of(segment) == log
    assert segment.root != plain.root
    check_segment(segment.data, segment.name, segment.root)
    after = written([((count + 1, 0), b"x")], origin=ORIGIN._replace(previous=segment.root))
    file = io.BytesIO(segment.data + after.data)
    assert [found.tail.sections for found in segments_of(file, after.root)] == [{}, sections]
    other = segment.data.replace(b"build", b"guild")
    with pytest.raises(SegmentDamagedError, match="tail"):
        check_segment(other, segment.name, segment.root)


def test_a_range_needs_few_blocks() -> None:
    """A line of a long log is in one block, and so is its end."""
    log = [((n, 0), bytes([n % 251]) * 100) for n in range(1, 20_001)]
    reader = reader_of(written(log))
    assert len(reader.tail.blocks) > 10
    assert len(reader.blocks((777, 0), (777, 0))) == 1
    assert len(reader.blocks((19_999, 0), None)) <= 2


@pytest.mark.parametrize("lines", [1, 30])
def test_every_flipped_bit_is_told(lines: int) -> None:
    """There is no bit of a segment that may be another one."""
    segment = written(small_log(lines))
    for place in range(len(segment.data)):
        for bit in range(8):
            data = bytearray(segment.data)
            data[place] ^= 1 << bit
            with pytest.raises(SegmentDamagedError):
                list(segments_of(io.BytesIO(bytes(data))))


def test_every_truncation_is_told() -> None:
    """Neither the end of a segment nor its beginning may be missing; nor may there be more."""
    data = written(small_log(30)).data
    for size in range(len(data)):
        with pytest.raises(SegmentDamagedError):
            list(segments_of(io.BytesIO(data[:size])))
    for start in range(1, len(data)):
        with pytest.raises(SegmentDamagedError):
            list(segments_of(io.BytesIO(data[start:])))
    for more in (b"x" + data, data + b"x", data + data):
        with pytest.raises(SegmentDamagedError):
            list(segments_of(io.BytesIO(more)))


def test_the_block_that_is_damaged_is_named() -> None:
    """Others are right; the root doesn't say which one it is, the digests do."""
    segment = written([((n, 0), bytes([n % 251]) * 1000) for n in range(1, 1000)])
    reader = reader_of(segment)
    data = bytearray(segment.data)
    data[reader.span(3)[0] + 5] ^= 1
    with pytest.raises(SegmentDamagedError, match="block 3") as caught:
        list(segments_of(io.BytesIO(bytes(data))))
    assert (caught.value.segment, caught.value.block) == (segment.name, 3)


def test_another_segment_is_not_the_one_with_the_root() -> None:
    """A file that is consistent and not what was sealed is refused if the root is known."""
    one, other = written(small_log(3)), written(small_log(4))
    with pytest.raises(SegmentDamagedError, match=one.root.hex()):
        list(segments_of(io.BytesIO(other.data), one.root))


def test_a_missing_segment_is_told() -> None:
    """A file that has the last segment only lacks the one before."""
    first = written(small_log(3))
    last = written([((4, 0), b"x")], origin=ORIGIN._replace(previous=first.root))
    with pytest.raises(SegmentDamagedError, match="the segment before it is missing"):
        list(segments_of(io.BytesIO(last.data)))


def test_anyone_unpacks_a_long_log() -> None:
    """What has more than a few lines is plain frames: whoever unpacks Zstandard passes over the tail."""
    start = datetime(2026, 11, 26, tzinfo=UTC)
    lines = [JobEvent("log", f"line {n}\n", timestamp=start + timedelta(milliseconds=n)) for n in range(1, 2000)]
    segment = written([((n, 0), encode_event(line)) for n, line in enumerate(lines, 1)])
    assert len(segment.data) < 3 * sum(map(len, (line.data or "" for line in lines))) / 10
    unpacked = zstandard.ZstdDecompressor().stream_reader(io.BytesIO(segment.data), read_across_frames=True).read()
    assert b"line 1\n" in unpacked
    assert b"line 1999\n" in unpacked


def test_a_small_job_is_small() -> None:
    """Thirty lines take no more than what they are packed, and a hundred bytes and some."""
    log = small_log(30)
    plain = len(zstandard.ZstdCompressor(level=19).compress(b"".join(payload for _, payload in log)))
    assert len(written(log).data) < plain + 160


#: A segment of codec 0, which programs wrote until they had columns: 399 lines.
OLDER = base64.b85decode(
    "D77#BV9`583;<>xMj@~#%K;1-"
    "LM9JN4i+WAn_Ei*vt*d0lrp6xSJ8_M=!67L05$+N01JB2h|9&iXvF10UNquz;TMg#T=YdFE*E^!h|9%ZG~yBff`$VF1H<9(p+Li7"
    "hr{7OK*50o4-^7)z=Q|}8WK2IXdnQ>f&~c-7&HirdeMl>1-"
    ")p*<zikm;&LG`8gaSsi$+{7`l1n+3%+Q?<zg=yak+@SXvF2>FB);Vs27d642!>L#O0!1G~#kWFB);Vm=}$>T*!+?TrT{g5toa;Xv"
    "F1$FB);V*o#J7E`l!_ak==5MqCC8FB);V_=`qdF6u=iE*JEo5toa3(TK~1ylBMb!Y>+ex#){VTrT*c5toa-XvF0r`l1n+0fCRG5s"
    ";t#KLg=!1`_y35LiLrPw)rdmH*uT+<&fru7B=7_dj<(_n(XIJMuU8JNKXKpZm}Kll#y8=l<tj`i}UU`_KL7`se!R{^kC2|GE2fFM"
    "UV;=KgcPbNzGwxqrETx&Pe%=@C^;t12k9Fa013SpWc(kdTnX1#@&^bY)N~O&Ey)007(o5&-"
    "}KqGM^LYHwmKF~kS~BSmM4tIh8L0L=l90L=l9%>j?iBiY0RiL1@;!~l|+%>k0lJkiYoj{yJx006`kt2G39LJ5ElAmfH2xdScYm&L"
    "@xnG_2E%>j=9%>j?iBiR7N6i_5o@E#ePjOH_R)zH2|ajZhG#*lykT`xg>0001EX;T3"
)


def test_older_segments_are_read() -> None:
    """What was packed without columns is there as it was written, and its root is the same."""
    reader = SegmentReader.of(OLDER, len(OLDER))
    assert (reader.tail.codec, reader.name) == (PLAIN, "1.0-399.0-015d2f4160e22b0f")
    assert all_entries_of(reader, OLDER) == [
        (b"%d-0" % n, b"\x94\x01\xa3log\xd6\xffT3!\x00\xb6line %4d of 399 ... ok\n" % n) for n in range(1, 400)
    ]


#: A segment of codec 2, which programs wrote until columns had texts that were packed singly: 399 events, three of them
#: of thirty lines each.
WITH_PACKED_TEXTS = base64.b85decode(
    "D77#BV2KCy1OVg*l#q~=mdu0!lf*le0i$ehXV?D#7+PR!2X_U>C;=$7Fa2P$0rda?xNK=|Wgsy#GazqfATv2RATBO0Aa8350RS;+"
    "HJdQBz-tG0iZV7fI7ts6YX^7_$0gkW0FZBH0sxqFmQh>0+yRWw00v<qpZVfL&HxWW9)yOF!~hEbAYBswKoLqETV-cu7Bm9h0qp{1"
    "Kr#*l105U}D77#BU??K(4FGm+QWKyT6mte`T&n7BX=#%r_OdH(##aDL08Ica%d#X%k|arzB*|bf7z_r3!C>&LXyh{PtZ3vi?5t=?"
    ">T0o~&Wc7ZgU*UZE@RG$MlM6nibgKuv!ap9=vmRoW$>(M<N^>J2*WT4cMAds0)+sBfr2c{vMd{oMx)VaG#ZT_kH_Qjcsw4DMx)Va"
    "G#ZUYW3gB)7K_DVu}CBmi9{liNF)x2!{Kl^91e#<p-?CkE))udbIv*EoU<&;vTSi2$8j9TXIDozC-?Puac5>_WMg7mjTUxgRYlcm"
    "wOXxKsZ=VJN~Kb%)9G|Nold9IsZ=VJN~Kb%RC@2d_uhMN+qP}nwr$(8EXxMp_kG{@ecQHe+qP}nc3szXUDtJ8(=<)fG)>d=JkRqy"
    "&+|OXvMkH8EX(r$|NsAg@4ffld+(fc&N=6t$8mv-s1e}w_TRy)RLcPoBm{p#Q1Ju*2)9#jnP*xnXQlS;5~%RXy|j*V<(z8EJPXz<"
    "M%vW%rd9Mmf6Tx9lmGaO|L_l9=>HEP`}aUhrdc!0-aioUw?g)RgxLQB;eRX0|8Em98n)fG?Zz4+Kve-KwJ-f35P<*yl#q~=kpPg8"
    "ki-RZbYXO5D77#BAOHaX08lDT7?A(~0Nel)0RjP{V`-&oZ(=Pm#0UW+MQ4et&F=vK%>j=9%>j?i0gufqKEwoxtIhAk0Fs%_0&mSL"
    "vCRRG0RR91&j0`cn!R<n0mKwFz=dq(b92-aX$}|pjLl3|8jfR`A`k%00gnL90gufqJ^;iNLDr>|(*y~*=m~grHu;7v$)56Tkbs3Q"
    "PNjta003iYQvm"
)


def test_packed_texts_are_read_as_they_were_sealed() -> None:
    """What was packed with columns before these had packed texts is there byte for byte."""
    reader = SegmentReader.of(WITH_PACKED_TEXTS, len(WITH_PACKED_TEXTS))
    assert (reader.tail.codec, reader.name) == (LINES, "1.0-399.0-852e4ea5dbd2d7eb")
    texts = [f"line {n} of 399 ... ok\n" * (1 if n % 133 else 30) for n in range(1, 400)]
    events = [
        JobEvent("log", text, timestamp=datetime(2026, 11, 26, tzinfo=UTC) + timedelta(microseconds=1_000_003 * n))
        for n, text in enumerate(texts, 1)
    ]
    entries = all_entries_of(reader, WITH_PACKED_TEXTS)
    assert [decode_event(payload, 0) for _, payload in entries] == [replace(event, id=0) for event in events]
    payloads = [payload for _, payload in entries]
    assert hashlib.sha256(b"".join(payloads)).hexdigest()[:16] == "7bc66a74d7d8f3c5"
    assert all(type(payload) is bytes for payload in payloads)


def all_entries_of(reader: SegmentReader, data: bytes) -> list[tuple[bytes, bytes]]:
    """Return all entries that a whole segment has."""
    return [
        entry
        for number in reader.blocks((0, 0), None)
        for entry in reader.read(number, data[slice(*itertools.accumulate(reader.span(number)))]).entries
    ]


def test_blocks_are_small_for_who_reads_a_line() -> None:
    """Short lines have blocks of 128 KiB of text, long pieces of 256 KiB, and nothing has more than a piece beyond."""
    start = datetime(2026, 11, 26, tzinfo=UTC)
    for size, most in ((60, 128 * 1024), (1000, 256 * 1024), (9000, 256 * 1024)):
        count = 1024 * 1024 // size
        events = [JobEvent("log", f"{n:>{size}}", timestamp=start + timedelta(microseconds=n)) for n in range(1, count)]
        blocks = reader_of(written([((n, 0), encode_event(one)) for n, one in enumerate(events, 1)])).tail.blocks
        assert all(most * 3 / 4 < block.raw_size < most + size + 9000 for block in blocks[:-2])


def test_a_block_that_claims_too_much_is_not_unpacked() -> None:
    """Its row says how long it is: frames that would have more are refused, though they are as written."""
    block = Block(10, 1000, 1, 1, 0, 0, 0, 0, b"")
    bomb = zstandard.ZstdCompressor().compress(bytes(64 * 1024 * 1024))
    some = zstandard.ZstdCompressor().compress(bytes(500))
    for codec in (PLAIN, WITH_WORDS, LINES, COLUMNS):
        for data in (bomb, some + bomb, some + some + some):
            with pytest.raises(SegmentDamagedError, match="would have more"):
                unpack(data, block, codec, "name", 0)


def test_the_words_never_change() -> None:
    """Segments that were written with them are read with them."""
    assert hashlib.sha256(WORDS).hexdigest() == "ea835fdd5b3c4aa80bd99252d6d3e615d6c5d806c37d021ecb5ac3c58aaccc97"
