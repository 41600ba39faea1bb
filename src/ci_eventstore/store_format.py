"""The layout of a store: which version this program writes, and the refusal of every other one."""

from typing import NamedTuple

from ci_eventstore.connection.call_names import Key
from ci_eventstore.connection.nodes import Nodes
from ci_eventstore.connection.replies import as_text
from ci_eventstore.connection.scripts import load_script
from ci_eventstore.errors import StoreFormatError
from ci_eventstore.following.incarnation import new_incarnation
from ci_eventstore.keys import Keys

#: Of keys, hashes and streams; docs/format.md is its table. Another number means another layout.
FORMAT_VERSION = 5
#: Stands in place of the version while a store is upgraded, so that nobody opens it: version 1 expects a number.
NO_VERSION = 0


class InitializeCall(NamedTuple):
    """What `initialize.lua` is called with."""

    store: Key
    format: str
    partitions: str
    incarnation: str


INITIALIZE = load_script("ci_eventstore", "initialize", call=InitializeCall)


async def check_format(nodes: Nodes, keys: Keys, *, is_read_only: bool = False) -> str | None:
    """Write the format into a new store; return the incarnation. StoreFormatError for another format or layout."""
    if is_read_only:
        reply = await nodes.read("HMGET", keys.store, "format", "partitions", "incarnation")
        if reply[0] is None:
            raise StoreFormatError(f"there is no store {keys.prefix!r} yet: open it once with access='write'")
    else:
        call = InitializeCall(keys.store, str(FORMAT_VERSION), str(keys.partitions), new_incarnation())
        reply = await nodes.run(INITIALIZE, *INITIALIZE.order(call))
    version, partitions = (as_text(part or b"") for part in reply[:2])
    if version != str(FORMAT_VERSION):
        raise StoreFormatError(refusal(keys.prefix, version))
    if partitions != str(keys.partitions):
        raise StoreFormatError(
            f"the store {keys.prefix!r} was made with {partitions} partitions, not {keys.partitions}: "
            f"open it with partitions={partitions}, which never changes"
        )
    return None if reply[2] is None else as_text(reply[2])


def refusal(prefix: str, version: str) -> str:
    """Return why a store of another version is refused, and what to do. Pure."""
    if version == str(NO_VERSION):
        return f"the store {prefix!r} is being upgraded, or an upgrade broke off: `ci-eventstore upgrade` finishes it"
    says = f"the store {prefix!r} has format version {version}, this program reads {FORMAT_VERSION}"
    if version.isdecimal() and int(version) < FORMAT_VERSION:
        return f"{says}: run `ci-eventstore upgrade` once, which asks for a backup first"
    return f"{says}: use the program version that wrote it, or another prefix"


async def find_partitions(nodes: Nodes, keys: Keys) -> int | None:
    """Return how many partitions a store has, None if there is none yet; StoreUnavailableError, StoreFormatError."""
    [found] = await nodes.read("HMGET", keys.store, "partitions")
    if found is None:
        return None
    if not found.isdigit():
        raise StoreFormatError(f"the store {keys.prefix!r} has {as_text(found)!r} partitions, which is no number")
    return int(found)
