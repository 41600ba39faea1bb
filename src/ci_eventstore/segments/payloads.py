"""Payloads of lines: the one form that columns give back, and how packed texts get it. Pure.

A text that was packed by itself can't be packed again to the same bytes, so its payload isn't the one that was written.
It is the same entry: it holds the same event, and remembers the mark of what was written.
"""

import hashlib
import threading

import msgpack
import zstandard

#: How the payload of a log event with an aware time begins: version 1, "log", and a timestamp's kind and type.
_HEAD = b"\x94\x01\xa3log\xd7\xff"
#: Then come eight bytes: nanoseconds, and after them seconds.
_TIME_END = len(_HEAD) + 8
#: The same for a time of whole seconds, of which four bytes come.
_SECONDS_HEAD = b"\x94\x01\xa3log\xd6\xff"
_SECONDS_END = len(_SECONDS_HEAD) + 4
_SECONDS = (1 << 34) - 1
_MICROSECONDS = 1_000_000
#: How msgpack begins what has a type of its own, and the type of a packed text (`events/codec.py`).
_TYPED = frozenset(bytes((kind,)) for kind in b"\xc7\xc8\xc9\xd4\xd5\xd6\xd7\xd8")
_ZSTANDARD = 1
#: A text of more bytes stays as it was packed: who reads a line unpacks all of its block.
MAX_TEXT_BYTES = 1024 * 1024
MARK_BYTES = 4


class Unpacked(bytes):
    """A payload whose text was packed when it was written; `mark` is that of the bytes it had then."""

    mark: bytes

    def __new__(cls, payload: bytes, mark: bytes) -> "Unpacked":
        """Make one of the payload that it is now."""
        made = super().__new__(cls, payload)
        made.mark = mark
        return made


class _Zstandard(threading.local):
    """What each thread unpacks with, which takes longer to make than to use."""

    def __init__(self) -> None:
        self.decompress = zstandard.ZstdDecompressor().decompress


_zstandard = _Zstandard()


def mark_in(payload: bytes) -> bytes:
    """Return the mark of an entry: the first bytes of its payload's SHA-1, as it was written."""
    if isinstance(payload, Unpacked):
        return payload.mark
    return hashlib.sha1(payload, usedforsecurity=False).digest()[:MARK_BYTES]


def unpacked(payload: bytes) -> bytes:
    """Return a log event's payload with its text unpacked; any other one as it is.

    What the result decodes to equals what the payload decodes to. Whatever can't promise that stays as it is.
    """
    if type(payload) is Unpacked:
        return payload
    has_microseconds = payload.startswith(_HEAD)
    end = _TIME_END if has_microseconds else _SECONDS_END
    if payload[end : end + 1] not in _TYPED or not (has_microseconds or payload.startswith(_SECONDS_HEAD)):
        # Fast path for almost every one.
        return payload
    if has_microseconds:
        time = time_of(payload)
        if payload[len(_HEAD) : end] != _packed_time(time):
            return payload
    else:
        time = int.from_bytes(payload[len(_SECONDS_HEAD) : end]) * _MICROSECONDS
    text = _unpacked_text(payload[end:])
    return payload if text is None else Unpacked(payload_of(time, text), mark_in(payload))


def _unpacked_text(data: bytes) -> bytes | None:
    """Return the text that was packed by itself, UTF-8; None for anything else."""
    try:
        typed = msgpack.unpackb(data)
        if typed.code != _ZSTANDARD or zstandard.get_frame_parameters(typed.data).content_size > MAX_TEXT_BYTES:
            return None
        text = _zstandard.decompress(typed.data)
        text.decode()
    except (ValueError, AttributeError, zstandard.ZstdError, msgpack.UnpackException):
        # Whoever reads the entry is told what is wrong with it.
        return None
    return text


def line_of(payload: bytes) -> tuple[int, bytes] | None:
    """Return the microseconds since 1970 and the text of a line; None for what `payload_of` makes otherwise."""
    if not payload.startswith(_HEAD):
        return None
    time = time_of(payload)
    kind = payload[_TIME_END] if len(payload) > _TIME_END else 0
    head = 1 if kind < 0xD9 else 2 if kind == 0xD9 else 3 if kind == 0xDA else 5
    text = payload[_TIME_END + head :]
    return (time, text) if payload_of(time, text) == payload else None


def time_of(payload: bytes) -> int:
    """Return the microseconds since 1970 of a payload that begins as a line does."""
    packed = int.from_bytes(payload[len(_HEAD) : _TIME_END])
    return (packed & _SECONDS) * _MICROSECONDS + (packed >> 34) // 1000


def payload_of(time: int, text: bytes) -> bytes:
    """Return the payload of a line: the one that `msgpack` makes, unless its time is one of whole seconds."""
    size = len(text)
    if size < 32:
        head = bytes((0xA0 | size,))
    elif size < 256:
        head = bytes((0xD9, size))
    elif size < 65536:
        head = b"\xda" + size.to_bytes(2)
    else:
        head = b"\xdb" + size.to_bytes(4)
    return _HEAD + _packed_time(time) + head + text


def _packed_time(time: int) -> bytes:
    seconds, microseconds = divmod(time, _MICROSECONDS)
    return ((microseconds * 1000) << 34 | seconds).to_bytes(8)
