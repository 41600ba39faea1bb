"""Members of sorted sets in which their jobs have no place: of listings, the ids, queues' backlogs and leases."""

from collections.abc import AsyncIterator, Sequence
from typing import NamedTuple

from ci_eventstore.connection.call_names import Key
from ci_eventstore.connection.nodes import Nodes
from ci_eventstore.connection.replies import WRONG_TYPE, Reply, as_bytes
from ci_eventstore.connection.scripts import load_script
from ci_eventstore.errors import ProjectionDamagedError
from ci_eventstore.jobs.state import JobState, part_of_state
from ci_eventstore.keys import JobKeys, Keys, backlog_member, listing_member, member_job_id, read_backlog_member
from ci_eventstore.projection.differences import Difference

#: The fields that say where a job belongs.
PLACING = ("status", "user_id", "created_at", "queue", "claim", "ends_if_lost")
#: The kinds of sorted sets, by what their keys' names begin with.
KINDS = ("jobs", "owned", "ids", "backlog", "leases")
PAGE_MEMBERS = 500
#: How often one member is looked at again because its job was changing.
LOOKS = 10


class SeenField(NamedTuple):
    """A field of a hash, as it was read; "" if there is none."""

    name: str
    value: bytes


class StrayCall(NamedTuple):
    """What `mend_stray.lua` is called with: the job's state is as it was read."""

    listing: Key
    hash: Key
    stream: Key
    member: bytes
    has_stream: int
    #: Those that say where the job belongs.
    seen: Sequence[SeenField]


MEND_STRAY = load_script(__package__, "mend_stray", call=StrayCall)


class SortedSet(NamedTuple):
    """One of these sorted sets."""

    key: str
    tag: str
    kind: str
    #: What follows the kind in the key's name: of a queue its name.
    name: str

    def job_id(self, member: str) -> str:
        """Return the id of the job that a member stands for."""
        if self.kind in ("ids", "leases"):
            return member
        return read_backlog_member(member)[2] if self.kind == "backlog" else member_job_id(member)

    def has(self, member: str, keys: JobKeys, state: JobState) -> bool:
        """Tell whether a job in that state has a place here, as that member."""
        if self.kind == "ids":
            return True
        if self.kind == "leases":
            return state.claim is not None and state.lease_queue == self.name
        if self.kind == "backlog":
            is_waiting = state.status == "queued" and state.queue == self.name
            return is_waiting and member == backlog_member(state.user_id, state.created_at, keys.job_id)
        place = listing_member(state.created_at, keys.job_id)
        return member == place and self.key in keys.listings(state.user_id, state.status)


def sorted_set(keys: Keys, key: str) -> SortedSet | None:
    """Return what a key of the store is the name of, if it is one of these."""
    tag, _, rest = key.partition("}")
    kind, _, name = rest[1:].partition(":")
    return SortedSet(key, tag + "}", kind, name) if kind in KINDS and tag + "}" in keys.tags else None


class Strays:
    """The strays of one store."""

    def __init__(self, nodes: Nodes, keys: Keys) -> None:
        self._nodes = nodes
        self._keys = keys

    async def verify(self, index: SortedSet, *, mends: bool) -> AsyncIterator[Difference]:
        """Yield the strays of one sorted set; remove them, if asked to, each by a script that looks again.

        A job whose hash can't be read, though it has a stream, makes no strays: the job itself is mended first.
        """
        [kind] = await self._nodes.read_many([("TYPE", index.key)])
        if kind not in (b"zset", b"none"):
            yield Difference("store", f"index {index.key}", "a sorted set", kind.decode())
            return
        async for page in self._nodes.scan_members("ZSCAN", index.key):
            members = page[::2]
            for start in range(0, len(members), PAGE_MEMBERS):
                for suspect in await self._suspects(index, members[start : start + PAGE_MEMBERS]):
                    difference = await self._judge(index, suspect, mends=mends)
                    if difference is not None:
                        yield difference

    async def _suspects(self, index: SortedSet, members: Sequence[str]) -> list[str]:
        jobs = [self._keys.job(index.job_id(member)) for member in members]
        replies = await self._nodes.read_many([("HMGET", as_bytes(keys.hash), *PLACING) for keys in jobs])
        return [
            member
            for member, keys, reply in zip(members, jobs, replies, strict=True)
            if not _belongs(index, member, keys, _state(keys, reply))
        ]

    async def _judge(self, index: SortedSet, member: str, *, mends: bool) -> Difference | None:
        keys = self._keys.job(index.job_id(member))
        difference = Difference(f"job {keys.job_id}", f"listing {index.key}", None, member)
        if keys.tag != index.tag:
            # Of another partition: its job's keys are elsewhere, so it has no place here whatever they say.
            if mends:
                await self._nodes.read("ZREM", index.key, as_bytes(member))
            return difference
        for look in range(LOOKS if mends else 1):
            values, has_stream, score = await self._nodes.read_at_once(
                [
                    ("HMGET", as_bytes(keys.hash), *PLACING),
                    ("EXISTS", as_bytes(keys.stream)),
                    ("ZSCORE", index.key, as_bytes(member)),
                ]
            )
            state = _state(keys, values)
            is_source = has_stream or values is WRONG_TYPE
            if score is None or _belongs(index, member, keys, state) or (is_source and state is None):
                return difference if look else None
            if mends and await self._mend(index, keys, member, values, has_stream) != b"changed":
                break
        return difference

    async def _mend(
        self, index: SortedSet, keys: JobKeys, member: str, values: Sequence[bytes | None], has_stream: int
    ) -> bytes:
        """Remove a member by `mend_stray.lua`, and return its answer."""
        seen = [SeenField(name, value or b"") for name, value in zip(PLACING, values, strict=True)]
        call = StrayCall(index.key, as_bytes(keys.hash), as_bytes(keys.stream), as_bytes(member), has_stream, seen)
        reply: bytes = await self._nodes.run(MEND_STRAY, *MEND_STRAY.order(call))
        return reply


def _state(keys: JobKeys, reply: Reply) -> JobState | None:
    """Return what a hash says of where its job belongs; None if it is missing or can't be read."""
    if reply is WRONG_TYPE:
        return None
    try:
        return part_of_state(keys.job_id, PLACING, reply)
    except ProjectionDamagedError:
        return None


def _belongs(index: SortedSet, member: str, keys: JobKeys, state: JobState | None) -> bool:
    return state is not None and keys.tag == index.tag and index.has(member, keys, state)
