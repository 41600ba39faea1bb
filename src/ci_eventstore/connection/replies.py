"""Shapes of the server's replies, RESP2 and undecoded, and how they are read."""

from collections.abc import Sequence
from typing import Any, Final, cast

from redis.exceptions import ResponseError

#: Any reply: bytes, int, None, or a list of these.
Reply = Any

#: In place of the reply to a read of a key that is of another type than it should be.
WRONG_TYPE: Final = object()

#: One stream entry: id, then field and value by turns.
StreamEntry = tuple[bytes, Sequence[bytes]]


def checked_type(reply: Reply) -> Reply:
    """Return one reply of several, WRONG_TYPE for the error that says so; raise any other error."""
    if isinstance(reply, Exception):
        if isinstance(reply, ResponseError) and "WRONGTYPE" in str(reply):
            return WRONG_TYPE
        raise reply
    return reply


def as_text(item: bytes) -> str:
    """Read a text; bytes that aren't UTF-8, as only damage has them, are escaped as Python's `surrogateescape` does."""
    return item.decode("utf-8", "surrogateescape")


def as_count(reply: Reply) -> int:
    """Read how many there are in a key; none in one of another type."""
    return 0 if reply is WRONG_TYPE else int(reply)


def as_bytes(text: str) -> bytes:
    """Write a text as it was when `as_text` read it."""
    return text.encode("utf-8", "surrogateescape")


def is_unicode(text: str) -> bool:
    """Tell whether a text was UTF-8 when it was read."""
    return text.isascii() or not any("\udc80" <= character <= "\udcff" for character in text)


def as_text_map(reply: Reply) -> dict[str, str]:
    """Read `HGETALL`: names and values by turns; nothing for a key of another type."""
    flat = [] if reply is WRONG_TYPE else cast(Sequence[bytes], reply)
    return {as_text(name): as_text(value) for name, value in zip(flat[::2], flat[1::2], strict=True)}


def as_map(reply: Reply) -> dict[str, str]:
    """Read names and values by turns, those that are text."""
    flat = cast(Sequence[Reply], reply)
    pairs = zip(flat[::2], flat[1::2], strict=False)
    return {name.decode(): value.decode() for name, value in pairs if isinstance(value, bytes)}


def as_texts(reply: Reply) -> list[str]:
    """Read a list of text, such as the members of a set; nothing for a key of another type."""
    return [] if reply is WRONG_TYPE else [as_text(item) for item in cast(Sequence[bytes], reply)]


def as_optional_texts(reply: Reply) -> list[str | None]:
    """Read `HMGET`: text, or None where there is no such field."""
    return [None if item is None else as_text(item) for item in cast(Sequence[bytes | None], reply)]


def as_entries(reply: Reply) -> Sequence[StreamEntry]:
    """Read `XRANGE` and `XREVRANGE`."""
    return cast(Sequence[StreamEntry], reply)


def as_info(reply: Reply) -> dict[str, str]:
    """Read `INFO`: lines of `name:value` below headings."""
    lines = cast(bytes, reply).decode(errors="replace").splitlines()
    return dict(line.split(":", 1) for line in lines if ":" in line and not line.startswith("#"))
