"""Shapes of the server's replies, RESP2 and undecoded, and how they are read."""

from collections.abc import Sequence
from typing import Any, cast

#: Any reply: bytes, int, None, or a list of these.
Reply = Any

#: One stream entry: id, then field and value by turns.
StreamEntry = tuple[bytes, Sequence[bytes]]


def as_text_map(reply: Reply) -> dict[str, str]:
    """Read `HGETALL`: names and values by turns."""
    flat = cast(Sequence[bytes], reply)
    return {name.decode(): value.decode() for name, value in zip(flat[::2], flat[1::2], strict=True)}


def as_texts(reply: Reply) -> list[str]:
    """Read a list of text, such as the members of a set."""
    return [item.decode() for item in cast(Sequence[bytes], reply)]


def as_optional_texts(reply: Reply) -> list[str | None]:
    """Read `HMGET`: text, or None where there is no such field."""
    return [None if item is None else item.decode() for item in cast(Sequence[bytes | None], reply)]


def as_entries(reply: Reply) -> Sequence[StreamEntry]:
    """Read `XRANGE` and `XREVRANGE`."""
    return cast(Sequence[StreamEntry], reply)


def as_info(reply: Reply) -> dict[str, str]:
    """Read `INFO`: lines of `name:value` below headings."""
    lines = cast(bytes, reply).decode(errors="replace").splitlines()
    return dict(line.split(":", 1) for line in lines if ":" in line and not line.startswith("#"))
