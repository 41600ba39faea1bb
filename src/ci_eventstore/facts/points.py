"""How far somebody has read the facts of all partitions, as one text that says nothing to people. Pure."""

import base64
import binascii
from collections.abc import Iterator, Sequence

#: An entry of a partition's facts: milliseconds and a number.
Entry = tuple[int, int]
NOWHERE: Entry = (0, 0)

#: No number of an entry has more bits.
_BITS = 64


def entry_of(text: str) -> Entry:
    """Read the id of an entry."""
    milliseconds, _, number = text.partition("-")
    return int(milliseconds), int(number)


def text_of(entry: Entry) -> str:
    """Return the id of an entry, as the store has it."""
    return f"{entry[0]}-{entry[1]}"


def write_points(entries: Sequence[Entry]) -> str:
    """Return the last entries of all partitions, in their order, as a text."""
    newest = max((milliseconds for milliseconds, _ in entries), default=0)
    packed = bytearray(_packed(newest))
    for milliseconds, number in entries:
        # Most are close to the newest one.
        packed += _packed(newest - milliseconds) + _packed(number)
    return base64.urlsafe_b64encode(packed).rstrip(b"=").decode()


def read_points(text: str, partitions: int) -> list[Entry] | None:
    """Read what `write_points` wrote of this many partitions; None for any other text."""
    try:
        packed = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        newest, *rest = _unpacked(packed)
    except (ValueError, binascii.Error):
        return None
    if len(rest) != 2 * partitions or any(before > newest for before in rest[::2]):
        return None
    return [(newest - before, number) for before, number in zip(rest[::2], rest[1::2], strict=True)]


def _packed(number: int) -> bytes:
    """Return a number in groups of seven bits, the lowest first; the highest bit says that another one follows."""
    groups = bytearray()
    while number > 0x7F:
        groups.append(number & 0x7F | 0x80)
        number >>= 7
    groups.append(number)
    return bytes(groups)


def _unpacked(packed: bytes) -> Iterator[int]:
    number = shift = 0
    for group in packed:
        number |= (group & 0x7F) << shift
        shift += 7
        if number >= 1 << _BITS:
            raise ValueError("no entry has such a number")
        if not group & 0x80:
            yield number
            number = shift = 0
    if shift:
        raise ValueError("it ends in the middle of a number")
