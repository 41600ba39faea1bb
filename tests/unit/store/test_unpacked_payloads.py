"""Texts that were packed singly are unpacked in segments, and are the same entries as before, however often."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import msgpack
import pytest
import zstandard
from hypothesis import example, given, settings
from hypothesis import strategies as st

from benchmarks.texts import generated_log
from ci_common.models import JobEvent
from ci_eventstore.errors import StoreFormatError
from ci_eventstore.events.codec import decode, decode_texts, encode, encode_event, is_same_entry, mark_of
from ci_eventstore.events.records import Fact, FactType, Record
from ci_eventstore.segments import segment as segments
from ci_eventstore.segments.packing import COLUMNS, WITH_WORDS
from ci_eventstore.segments.payloads import MAX_TEXT_BYTES, Unpacked, unpacked
from ci_eventstore.segments.segment import Origin, Segment, SegmentReader, SegmentWriter

START = datetime(2026, 11, 26, tzinfo=UTC)
TIMES = st.integers(0, 10**12).map(lambda number: START + timedelta(microseconds=number)) | st.sampled_from(
    [START, datetime(2500, 1, 1, tzinfo=UTC), datetime(1970, 1, 1, tzinfo=UTC)]
)
#: Long enough to be packed.
LONG = st.builds(
    lambda part, count: part * (count // len(part) + 1),
    st.sampled_from(["ok\n", "no newline ", "\n", "ü\r\n", "a\nb", "\0"]) | st.text(min_size=1, max_size=30),
    st.sampled_from([512, 600, 1000, 5000, 70_000]),
)
SHORT = st.sampled_from(["", "\n", "ok\n", "ü", "two\nlines\n"]) | st.text(max_size=30)
PIECES = st.builds(lambda text, time: JobEvent("log", text, timestamp=time), LONG, TIMES)


def typed(data: bytes, code: int = 1, time: bytes = b"\xd7\xff" + bytes.fromhex("00000fa0672ff300")) -> bytes:
    """Return the payload of a log event that holds something of a type of its own."""
    return b"\x94\x01\xa3log" + time + msgpack.packb(msgpack.ExtType(code, data))


PACKED = zstandard.ZstdCompressor(level=3).compress(b"text\n" * 300)
#: Frames, types and times that no program of ours writes, or that claim what isn't so.
ODD = [
    typed(PACKED, code=2),
    typed(PACKED[:-3]),
    typed(PACKED[:9] + b"\xff" + PACKED[10:]),
    typed(b""),
    typed(zstandard.ZstdCompressor(write_content_size=False).compress(b"text\n" * 300)),
    typed(zstandard.ZstdCompressor().compress(b"\xff" * 600)),
    typed(zstandard.ZstdCompressor().compress(b"\xed\xa0\x80" * 300)),
    typed(zstandard.ZstdCompressor().compress(b"text\n" * (MAX_TEXT_BYTES // 5 + 1))),
    # It claims to have gigabytes.
    typed(b"\x28\xb5\x2f\xfd\xe0" + (1 << 40).to_bytes(8, "little") + PACKED[7:]),
    typed(PACKED, time=b"\xd7\xff" + bytes.fromhex("00000004672ff300")),
    typed(PACKED, time=b"\xd7\xff" + bytes.fromhex("fffffffc672ff300")),
    typed(PACKED) + b"\xc0",
    b"\x95" + typed(PACKED)[1:] + b"\xc3",
    typed(PACKED)[:-30],
    b"\x94\x02" + typed(PACKED)[2:],
    b"\x94\x01\xa3log\xd7\xff",
    b"",
]
OTHERS = st.one_of(
    st.sampled_from(ODD),
    st.binary(max_size=40),
    st.builds(lambda event: encode_event(JobEvent("log", event.data, timestamp=START.replace(tzinfo=None))), PIECES),
    st.builds(lambda event: encode_event(JobEvent("log", event.data, True, event.timestamp)), PIECES),
    st.builds(lambda event: encode_event(JobEvent("complete", event.data, True, event.timestamp)), PIECES),
    st.builds(lambda time: encode(Fact(FactType.STARTED, time, {"start_time": time})), TIMES),
)
LINES = st.builds(lambda text, time: encode_event(JobEvent("log", text, timestamp=time)), SHORT, TIMES)
LOGS = st.lists(st.one_of(PIECES.map(encode_event), PIECES.map(encode_event), LINES, OTHERS), min_size=1, max_size=30)


def decoded(payload: bytes) -> Record | str:
    """Return the record in a payload, or why there is none."""
    try:
        return decode(payload, 7)
    except StoreFormatError as error:
        return str(error)


def sealed(payloads: Sequence[bytes]) -> Segment:
    """Return the segment of entries with these payloads."""
    writer = SegmentWriter(Origin("ci", "job-1", "0123456789abcdef"))
    for position, payload in enumerate(payloads, 1):
        writer.add(position, 0, payload, (100, 1), 1_764_000_000_000 + position)
    return writer.finish(b"state", mark_of(payloads[-1]))


def payloads_of(segment: Segment) -> list[bytes]:
    """Return the payloads that a segment has."""
    reader = SegmentReader.of(segment.data, len(segment.data), segment.name, segment.root)
    found = []
    for number in reader.blocks((0, 0), None):
        offset, size = reader.span(number)
        found += [payload for _, payload in reader.read(number, segment.data[offset : offset + size]).entries]
    return found


@given(PIECES)
def test_a_packed_text_is_unpacked(event: JobEvent) -> None:
    """It holds an equal event, for all who decode it, and has the mark that it had."""
    payload = encode_event(event)
    whole = unpacked(payload)
    assert isinstance(whole, Unpacked)
    assert whole.endswith((event.data or "").encode())
    assert decode(whole, 7) == decode(payload, 7)
    assert decode_texts([whole, whole], 7) == decode_texts([payload, payload], 7)
    assert mark_of(whole) == mark_of(payload)
    assert unpacked(whole) is whole


@pytest.mark.parametrize("payload", ODD)
def test_what_could_be_another_event_stays_as_it_is(payload: bytes) -> None:
    """Damage, what has more elements, a text that isn't UTF-8 or too long, a time that would be written otherwise."""
    assert unpacked(payload) is payload


@given(LOGS)
def test_anything_else_is_what_it_was(payloads: Sequence[bytes]) -> None:
    """Whatever a payload is, it decodes as before, or is refused for the same reason."""
    for payload in payloads:
        whole = unpacked(payload)
        assert whole is payload or (decoded(whole), mark_of(whole)) == (decoded(payload), mark_of(payload))


@settings(deadline=None, max_examples=60)
@given(payloads=LOGS, block_bytes=st.sampled_from([400, 20_000, segments.BLOCK_BYTES]))
@example(payloads=[encode_event(JobEvent("log", "ok\n" * 400, timestamp=START))], block_bytes=segments.BLOCK_BYTES)
def test_entries_are_the_same_over_generations(payloads: Sequence[bytes], block_bytes: int) -> None:
    """They hold equal events, and have the marks of what was written, in a segment made of one made of one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(segments, "BLOCK_BYTES", block_bytes)
        first = sealed(payloads)
        found = payloads_of(first)
        second = sealed(found)
    assert list(map(mark_of, found)) == list(map(mark_of, payloads))
    assert list(map(decoded, found)) == list(map(decoded, payloads))
    assert all(is_same_entry(one, other) for one, other in zip(found, payloads, strict=True))
    assert second == first
    assert [type(payload) for payload in payloads_of(second)] == [type(payload) for payload in found]
    if first.tail.codec == WITH_WORDS:
        assert found == list(payloads)


def test_same_entries_are_told_from_others() -> None:
    """By their bytes, or by their marks if one was unpacked; no entry is only the same as no entry."""
    one, other = (encode_event(JobEvent("log", text * 900, timestamp=START)) for text in ("a\n", "b\n"))
    of_one, of_other = unpacked(one), unpacked(other)
    assert is_same_entry(one, of_one)
    assert is_same_entry(of_one, one)
    assert is_same_entry(of_one, of_one)
    assert is_same_entry(None, None)
    assert not is_same_entry(of_one, of_other)
    assert not is_same_entry(one, of_other)
    assert not is_same_entry(one, other)
    assert not is_same_entry(None, of_one)
    assert not is_same_entry(of_one, None)
    assert not is_same_entry(encode_event(JobEvent("log", "short", timestamp=START)), of_one)


def test_entries_from_columns_make_no_segment_with_words() -> None:
    """Only columns say what their marks were: so also a few of them, as stay when the rest of a log was deleted."""
    pieces = [encode_event(JobEvent("log", f"{n} is short\n" * 60, timestamp=START)) for n in range(3)]
    for payloads in ([unpacked(pieces[0])], [pieces[0], unpacked(pieces[1])]):
        segment = sealed(payloads)
        assert segment.tail.codec == COLUMNS
        assert list(map(mark_of, payloads_of(segment))) == list(map(mark_of, payloads))


@pytest.mark.parametrize("size", [1000, 4096, 65_536])
def test_pieces_take_a_fifth_of_their_text(size: int) -> None:
    """As a slow log has them, each packed by itself when it was written; the generated log is a bad one."""
    text = generated_log(600_000)
    pieces = [text[start : start + size] for start in range(0, len(text), size)]
    payloads = [
        encode_event(JobEvent("log", piece, timestamp=START + timedelta(microseconds=40_123 * n)))
        for n, piece in enumerate(pieces)
    ]
    assert len(sealed(payloads).data) / len(text) <= 0.2
