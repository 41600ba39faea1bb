"""Which node of a cluster serves which slot, as nodes say it. Pure."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from redis.crc import key_slot

from ci_eventstore.connection.addresses import HostPort, shown_host

#: How many slots every cluster has.
SLOTS = 16384
#: What a node says in place of a name that it wasn't given, and of an address that it doesn't know.
_UNKNOWN = ("", "?")
_REDIRECTION = re.compile(r"(MOVED|ASK) (\d+) (\S*):(\d+)")


def slot_of(key: str) -> int:
    """Return the slot of a key, which is that of its hash tag."""
    return key_slot(key.encode("utf-8", "surrogateescape"))


@dataclass(frozen=True, slots=True)
class Redirection:
    """What a node replies to a command whose key it hasn't, or not any more."""

    slot: int
    node: HostPort
    #: Whether only this command goes there, since the slot is on its way.
    is_asking: bool


def read_redirection(reply: str, asked: HostPort) -> Redirection | None:
    """Return where an error reply sends its command; None if it is none that does.

    A node that doesn't know the address of another one leaves the host out: it has that of the node that was `asked`.
    """
    found = _REDIRECTION.fullmatch(reply.strip())
    if found is None or int(found[2]) >= SLOTS:
        return None
    host = asked[0] if found[3] in _UNKNOWN else found[3]
    return Redirection(int(found[2]), (host, int(found[4])), found[1] == "ASK")


def why_no_node(reply: str, asked: HostPort) -> str | None:
    """Return what to do about what a server replies that is no node of a cluster; None if it may be one."""
    place = shown_host(*asked)
    if "cluster support disabled" in reply:
        return f"{place} is no node of a cluster: write redis://{place}"
    if reply.startswith("ERR unknown command"):
        return f"{place} is no node of a cluster: a Sentinel is reached by redis+sentinel://{place}/NAME"
    return None


class SlotMap:
    """The master of each slot, as far as it is known."""

    def __init__(self) -> None:
        #: None for those that nobody serves.
        self.owners: list[HostPort | None] = [None] * SLOTS

    @classmethod
    def read(cls, reply: Any, asked: HostPort) -> "SlotMap":
        """Read what a node replies to `CLUSTER SLOTS`; ValueError if it is anything else.

        Each entry is a range of slots, its master, and replicas of it. Of a node, the preferred name comes first, and
        may be unknown: then its other names are used, which come last, or else the host of the node that was `asked`.
        """
        found = cls()
        try:
            for first, last, master, *_ in reply:
                owner = _address(master, asked)
                if not 0 <= first <= last < SLOTS:
                    raise ValueError
                found.owners[first : last + 1] = [owner] * (last + 1 - first)
        except (TypeError, ValueError, IndexError, UnicodeDecodeError):
            raise ValueError("what the node says of its cluster's slots can't be read") from None
        return found

    @property
    def masters(self) -> list[HostPort]:
        """All masters, each once, by their first slots."""
        return list(dict.fromkeys(owner for owner in self.owners if owner is not None))

    @property
    def unserved(self) -> int:
        """How many slots nobody serves."""
        return self.owners.count(None)

    def move(self, slot: int, owner: HostPort) -> None:
        """Note what a redirection says."""
        self.owners[slot] = owner


def _address(node: Sequence[Any], asked: HostPort) -> HostPort:
    """Return how a node is reached."""
    host, port = node[0], node[1]
    others = _other_names(node[3]) if len(node) > 3 else {}
    names = [b"" if host is None else host, others.get(b"ip", b""), others.get(b"hostname", b"")]
    known = next((name.decode() for name in names if name.decode() not in _UNKNOWN), asked[0])
    return known, int(port)


def _other_names(flat: Sequence[bytes]) -> Mapping[bytes, bytes]:
    return dict(zip(flat[::2], flat[1::2], strict=True))
