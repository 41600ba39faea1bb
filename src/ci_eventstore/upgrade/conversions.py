"""What differs between the format versions: kinds of keys, and how what they hold is converted.

Whoever changes what a kind of key holds adds its conversion to the table. A conversion goes through a key page by page,
leaves what is in the new form alone, and so may be killed and repeated at will.
"""

from collections.abc import Awaitable, Callable
from typing import NamedTuple

from ci_eventstore.connection.nodes import Nodes
from ci_eventstore.connection.replies import Reply, as_bytes, as_texts
from ci_eventstore.connection.scripts import load_script
from ci_eventstore.errors import StoreFormatError
from ci_eventstore.events.codec import decode_event
from ci_eventstore.events.log_index import milliseconds_of
from ci_eventstore.events.log_source import at_places, entries_in, range_command
from ci_eventstore.events.records import Place
from ci_eventstore.keys import Keys, all_keys_pattern
from ci_eventstore.projection.differences import Progress

MOVE_MEMBERS = load_script(__package__, "move_members")
SET_ENTRIES = load_script(__package__, "set_entries")
#: Entries of a sparse index in one step.
PAGE_ENTRIES = 200
#: Keys that the server looks at for each page.
PAGE_KEYS = 1000
#: Digits of a sort key.
SORT_KEY = 16


class Conversion(NamedTuple):
    """How one kind of key is converted."""

    #: What follows the tag in the names of these keys.
    kind: str
    #: Called with a key and the rest of its name.
    convert: Callable[[Nodes, Keys, str, str], Awaitable[None]]


async def separate_backlog(nodes: Nodes, keys: Keys, backlog: str, queue: str) -> None:
    """Put a NUL between sort key and id of a backlog's members, where version 1 has a colon."""
    async for page in nodes.scan_members("ZSCAN", backlog):
        arguments = list[str | int | bytes]()
        for member in page[::2]:
            user, _, rest = member.partition("\0")
            if rest[SORT_KEY : SORT_KEY + 1] == ":":
                named = f"{user}\0{rest[:SORT_KEY]}\0{rest[SORT_KEY + 1 :]}"
                arguments += [as_bytes(member), as_bytes(named)]
        if arguments:
            await nodes.run(MOVE_MEMBERS, [backlog], arguments)


async def add_times(nodes: Nodes, keys: Keys, index: str, job_id: str) -> None:
    """Add the time of the event to each entry of a sparse index, which version 1 doesn't have."""
    job, start = keys.job(job_id), 0
    while entries := as_texts(await nodes.read("LRANGE", index, start, start + PAGE_ENTRIES - 1)):
        old = [(start + place, entry) for place, entry in enumerate(entries) if entry.count(" ") == 2]
        places = [Place(int(entry.partition(" ")[0])) for _, entry in old]
        replies = await nodes.read_many([range_command(job, place, place, 1) for place in places])
        arguments = list[str | int | bytes]()
        for (number, entry), reply in zip(old, replies, strict=True):
            arguments += [number, entry, f"{entry} {_time_in(reply)}"]
        if arguments:
            await nodes.run(SET_ENTRIES, [index], arguments)
        start += PAGE_ENTRIES


def _time_in(reply: Reply) -> int:
    """Return the time of the one event of a reply; 0 if it is gone or can't be read, which `verify` reports."""
    try:
        [(place, payload)] = at_places(entries_in(reply))
        return milliseconds_of(decode_event(payload, place.position).timestamp)
    except (ValueError, StoreFormatError):
        return 0


#: All that version 2 has in another form than version 1.
CONVERSIONS: tuple[Conversion, ...] = (Conversion("index", add_times), Conversion("backlog", separate_backlog))


async def convert(nodes: Nodes, keys: Keys, progress: Progress | None) -> None:
    """Convert all keys of a store, page by page; `progress` is told how many of the server's keys were looked at."""
    conversions = {conversion.kind: conversion.convert for conversion in CONVERSIONS}
    total = sum([await node.read("DBSIZE") for node in nodes.all])
    done = 0
    async for page in nodes.scan(all_keys_pattern(keys)):
        for key in page:
            tag, _, rest = key.partition("}")
            kind, _, name = rest[1:].partition(":")
            if kind in conversions and f"{tag}}}" in keys.tags:
                await conversions[kind](nodes, keys, key, name)
        done = min(done + PAGE_KEYS, total)
        if progress is not None:
            progress(done, total)
