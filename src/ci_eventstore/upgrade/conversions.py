"""The conversions from earlier format versions, one for each kind of key whose content has changed.

A conversion gets all keys of its kind in a page, and leaves alone what already has the new form: so it may be killed
and repeated at will.
"""

import re
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import NamedTuple

from ci_eventstore.connection.call_names import Key
from ci_eventstore.connection.nodes import Nodes
from ci_eventstore.connection.replies import Reply, as_bytes, as_texts, is_unicode
from ci_eventstore.connection.scripts import load_script
from ci_eventstore.errors import StoreFormatError
from ci_eventstore.events.codec import decode_event
from ci_eventstore.events.log_index import milliseconds_of
from ci_eventstore.events.log_source import at_places, entries_in, range_command
from ci_eventstore.events.records import Place
from ci_eventstore.jobs.records import ENDING, ended_member
from ci_eventstore.keys import JobKeys, Keys, all_keys_pattern
from ci_eventstore.members import sort_key_of
from ci_eventstore.projection.differences import Progress


class Member(NamedTuple):
    """A member, and its new name."""

    old: bytes
    new: bytes


class MoveCall(NamedTuple):
    """What `move_members.lua` is called with."""

    #: A sorted set.
    key: Key
    members: Sequence[Member]


class ChangedEntry(NamedTuple):
    """An entry's place, its old text and its new one."""

    place: int
    old: str
    new: str


class SetCall(NamedTuple):
    """What `set_entries.lua` is called with."""

    #: A list.
    key: Key
    entries: Sequence[ChangedEntry]


MOVE_MEMBERS = load_script(__package__, "move_members", call=MoveCall)
SET_ENTRIES = load_script(__package__, "set_entries", call=SetCall)
#: Entries of a sparse index in one step.
PAGE_ENTRIES = 200
#: Keys that the server looks at for each page.
PAGE_KEYS = 1000
#: The sort key that a member of a listing or of the ended begins with before version 4, in hex digits, and the rest.
#: What is later than any time is no sort key.
_LISTED = re.compile("(0[0-9a-f]{15})(:.*)", re.DOTALL)
#: The same of what follows the user in a backlog's member, where version 1 has a colon after the key.
_WAITING = re.compile("(0[0-9a-f]{15})[\0:](.*)", re.DOTALL)


class Conversion(NamedTuple):
    """How one kind of key is converted."""

    #: What follows the tag in the names of these keys.
    kind: str
    #: What a key of that kind is; one of another type is left to `verify` and `rebuild`.
    type: bytes
    #: Called with keys, each with the rest of its name.
    convert: Callable[[Nodes, Keys, Mapping[str, str]], Awaitable[None]]


def renamed_listed(member: str) -> str | None:
    """Return what a member of a listing or of the ended is called from version 4 on; None if it is called so. Pure."""
    found = _LISTED.fullmatch(member)
    return None if found is None else sort_key_of(int(found[1], 16)) + found[2]


def renamed_waiting(member: str) -> str | None:
    """Return what a member of a backlog is called from version 4 on; None if it is called so. Pure."""
    user, _, rest = member.partition("\0")
    found = _WAITING.fullmatch(rest)
    return None if found is None else f"{user}\0{sort_key_of(int(found[1], 16))}\0{found[2]}"


async def rename_waiting(nodes: Nodes, keys: Keys, backlogs: Mapping[str, str]) -> None:
    """Give backlogs' members the sort keys of version 4, and a NUL after them, where version 1 has a colon."""
    for backlog in backlogs:
        await _rename(nodes, backlog, renamed_waiting)


async def rename_listed(nodes: Nodes, keys: Keys, listings: Mapping[str, str]) -> None:
    """Give members of listings and of the ended the sort keys of version 4."""
    for listing in listings:
        await _rename(nodes, listing, renamed_listed)


async def _rename(nodes: Nodes, key: str, renamed: Callable[[str], str | None]) -> None:
    async for page in nodes.scan_members("ZSCAN", key):
        named = ((member, renamed(member)) for member in page[::2])
        members = [Member(as_bytes(member), as_bytes(name)) for member, name in named if name is not None]
        if members:
            await nodes.run(MOVE_MEMBERS, *MOVE_MEMBERS.order(MoveCall(key, members)))


async def add_times(nodes: Nodes, keys: Keys, indexes: Mapping[str, str]) -> None:
    """Add the time of the event to each entry of sparse indexes, which version 1 doesn't have."""
    for index, job_id in indexes.items():
        await _add_times(nodes, keys.job(job_id), index)


async def _add_times(nodes: Nodes, job: JobKeys, index: str) -> None:
    start = 0
    while entries := as_texts(await nodes.read("LRANGE", index, start, start + PAGE_ENTRIES - 1)):
        old = [(start + place, entry) for place, entry in enumerate(entries) if entry.count(" ") == 2]
        places = [Place(int(entry.partition(" ")[0])) for _, entry in old]
        replies = await nodes.read_many([range_command(job, place, place, 1) for place in places])
        changed = [
            ChangedEntry(place, entry, f"{entry} {_time_in(reply)}")
            for (place, entry), reply in zip(old, replies, strict=True)
        ]
        if changed:
            await nodes.run(SET_ENTRIES, *SET_ENTRIES.order(SetCall(index, changed)))
        start += PAGE_ENTRIES


def _time_in(reply: Reply) -> int:
    """Return the time of the one event of a reply; 0 if it is gone or can't be read, which `verify` reports."""
    try:
        [(place, payload)] = at_places(entries_in(reply))
        return milliseconds_of(decode_event(payload, place.position).timestamp)
    except (ValueError, StoreFormatError):
        return 0


async def index_ended(nodes: Nodes, keys: Keys, hashes: Mapping[str, str]) -> None:
    """Put ended jobs into the indexes of version 3: their logs count as written to at this moment."""
    jobs = [job for key, job_id in hashes.items() if is_unicode(job_id) and (job := keys.job(job_id)).hash == key]
    replies = await nodes.read_many([("HMGET", job.hash, *ENDING, "log") for job in jobs])
    commands, now_ms = list[tuple[str | int, ...]](), 0
    for job, (*ending, log) in zip(jobs, replies, strict=True):
        # What was sealed, version 3 has indexed.
        if log is None and (ended := ended_member(job, ending)):
            # A page is of one node.
            now_ms = now_ms or int((await nodes.node_of(job.hash).read("TIME"))[0]) * 1000
            commands.append(("ZADD", job.ended, "NX", 0, ended))
            commands.append(("ZADD", job.unsealed, "NX", now_ms, job.job_id))
    await nodes.read_many(commands)


async def convert_listings(nodes: Nodes, keys: Keys, listings: Mapping[str, str]) -> None:
    """Drop the listings of jobs of all statuses, which version 3 merges from the others, and convert these."""
    of_all = {key for key, name in listings.items() if name.partition(":")[0] == "all"}
    await nodes.read_many([("UNLINK", key) for key in of_all])
    await rename_listed(nodes, keys, {key: name for key, name in listings.items() if key not in of_all})


#: All that versions 2, 3 and 4 have in another form than the version before; version 5 reads what 4 has.
CONVERSIONS: tuple[Conversion, ...] = (
    Conversion("index", b"list", add_times),
    Conversion("backlog", b"zset", rename_waiting),
    Conversion("job", b"hash", index_ended),
    Conversion("jobs", b"zset", convert_listings),
    Conversion("owned", b"zset", convert_listings),
    Conversion("ended", b"zset", rename_listed),
)


async def convert(nodes: Nodes, keys: Keys, progress: Progress | None) -> None:
    """Convert all keys of a store, page by page; `progress` gets the number of the server's keys so far, and of all."""
    conversions = {conversion.kind: conversion for conversion in CONVERSIONS}
    total = sum([await node.read("DBSIZE") for node in nodes.all])
    done = 0
    async for page in nodes.scan(all_keys_pattern(keys)):
        found = defaultdict[str, dict[str, str]](dict)
        for key, type_of_key in zip(page, await nodes.read_many([("TYPE", key) for key in page]), strict=True):
            tag, _, rest = key.partition("}")
            kind, _, name = rest[1:].partition(":")
            if kind in conversions and type_of_key == conversions[kind].type and f"{tag}}}" in keys.tags:
                found[kind][key] = name
        for kind, its in found.items():
            await conversions[kind].convert(nodes, keys, its)
        done = min(done + PAGE_KEYS, total)
        if progress is not None:
            progress(done, total)
