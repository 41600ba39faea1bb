"""What indexes hold that has no place there: members whose jobs are elsewhere or gone, and wrong tickets of users."""

from collections.abc import AsyncIterator, Sequence
from typing import Any, NamedTuple

from ci_eventstore.connection.call_names import Key
from ci_eventstore.connection.nodes import Nodes
from ci_eventstore.connection.replies import WRONG_TYPE, as_bytes, as_text
from ci_eventstore.connection.scripts import load_script
from ci_eventstore.events.log_source import LogSource
from ci_eventstore.events.records import Place
from ci_eventstore.jobs.records import parts_in
from ci_eventstore.jobs.state import JobState
from ci_eventstore.keys import JobKeys, Keys, QueueKeys
from ci_eventstore.members import backlog_member, listing_member, member_job_id, read_backlog_member
from ci_eventstore.projection.differences import Difference

#: The fields that say where a job belongs.
PLACING = ("status", "user_id", "created_at", "end_time", "queue", "claim", "ends_if_lost", "log")
#: The kinds of sorted sets, by what their keys' names begin with.
KINDS = ("jobs", "owned", "ids", "backlog", "leases", "ended", "unsealed")
#: Those in which every job stands that was sealed, or may.
BY_ID = ("ids", "unsealed")
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
        if self.kind in ("ids", "leases", "unsealed"):
            return member
        return read_backlog_member(member)[2] if self.kind == "backlog" else member_job_id(member)

    def has(self, member: str, keys: JobKeys, state: JobState) -> bool:
        """Return whether a job in that state belongs here, as that member."""
        if self.kind == "ids":
            return True
        if self.kind in ("ended", "unsealed"):
            ended = state.ended_member(keys.job_id)
            return bool(ended) and member == (ended if self.kind == "ended" else keys.job_id)
        if self.kind == "leases":
            return state.claim is not None and state.lease_queue == self.name
        if self.kind == "backlog":
            is_waiting = state.status == "queued" and state.queue == self.name
            return is_waiting and member == backlog_member(state.user_id, state.created_at, keys.job_id)
        place = listing_member(state.created_at, keys.job_id)
        return member == place and self.key in keys.listings(state.user_id, state.status)


def sorted_set(keys: Keys, key: str) -> SortedSet | None:
    """Return the sorted set that a key names; None if it is none of these."""
    tag, _, rest = key.partition("}")
    kind, _, name = rest[1:].partition(":")
    return SortedSet(key, tag + "}", kind, name) if kind in KINDS and tag + "}" in keys.tags else None


class Strays:
    """The strays of one store."""

    def __init__(self, nodes: Nodes, keys: Keys, source: LogSource) -> None:
        self._nodes = nodes
        self._keys = keys
        self._source = source

    async def verify(self, index: SortedSet, *, mends: bool) -> AsyncIterator[Difference]:
        """Yield the strays of one sorted set; if `mends`, a script looks at each again and removes it.

        A job that has a stream but no readable hash makes no strays: the job itself is mended first.
        """
        [kind] = await self._nodes.read_many([("TYPE", index.key)])
        if kind not in (b"zset", b"none"):
            yield Difference("store", f"index {index.key}", "a sorted set", kind.decode())
            return
        async for page in self._nodes.scan_members("ZSCAN", index.key):
            members = page[::2]
            for start in range(0, len(members), PAGE_MEMBERS):
                for suspect in await self._suspects(index, members[start : start + PAGE_MEMBERS]):
                    if difference := await self._judge(index, suspect, mends=mends):
                        yield difference

    async def _suspects(self, index: SortedSet, members: Sequence[str]) -> list[str]:
        jobs = [self._keys.job(index.job_id(member)) for member in members]
        replies = await self._nodes.read_many([("HMGET", as_bytes(keys.hash), *PLACING) for keys in jobs])
        found = list(zip(members, jobs, replies, strict=True))
        if index.kind in BY_ID:
            # A job whose record is packed has a place in both, whatever its segment says.
            found = [each for each in found if each[1].tag != index.tag or each[2] is WRONG_TYPE or not each[2][-1]]
        jobs, replies = [keys for _, keys, _ in found], [reply for _, _, reply in found]
        states = await parts_in(self._nodes, self._source, jobs, PLACING, replies)
        return [
            member
            for (member, keys, _), state in zip(found, states, strict=True)
            if not _belongs(index, member, keys, state)
        ]

    async def _judge(self, index: SortedSet, member: str, *, mends: bool) -> Difference | None:
        keys = self._keys.job(index.job_id(member))
        difference = Difference(f"job {keys.job_id}", f"listing {index.key}", None, member)
        if keys.tag != index.tag:
            # The job's keys are in another partition, so it doesn't belong here whatever they say.
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
            [state] = await parts_in(self._nodes, self._source, [keys], PLACING, [values])
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


def _belongs(index: SortedSet, member: str, keys: JobKeys, state: JobState | None) -> bool:
    return state is not None and keys.tag == index.tag and index.has(member, keys, state)


PAGE_USERS = 500


class TicketCall(NamedTuple):
    """What `mend_ticket.lua` is called with."""

    dispatch: Key
    backlog: Key
    tickets: Key
    user: bytes
    channel: str


MEND_TICKET = load_script(__package__, "mend_ticket", call=TicketCall)


class Tickets:
    """The tickets of one store."""

    def __init__(self, nodes: Nodes) -> None:
        self._nodes = nodes

    async def verify(self, queue: QueueKeys, *, mends: bool) -> AsyncIterator[Difference]:
        """Yield tickets that are lost, were handed out or stand for nobody; if `mends`, make them anew or remove them.

        A ticket that looks wrong twice was wrong all the time: taking one changes it in the same step.
        """
        [kind] = await self._nodes.read_many([("TYPE", queue.tickets)])
        if kind != b"hash":
            return
        async for page in self._nodes.scan_members("HSCAN", queue.tickets):
            pairs = list(zip(page[::2], page[1::2], strict=True))
            for start in range(0, len(pairs), PAGE_USERS):
                suspects = await self._wrong(queue, pairs[start : start + PAGE_USERS])
                again = [(user, await self._ticket(queue, user)) for user, _, _ in suspects]
                still = await self._wrong(queue, [(user, ticket) for user, ticket in again if ticket is not None])
                for user, ticket, what in still:
                    if (user, ticket, what) in suspects:
                        if mends:
                            all_keys = queue.dispatch, queue.backlog, queue.tickets
                            call = TicketCall(*all_keys, as_bytes(user), queue.channel)
                            await self._nodes.run(MEND_TICKET, *MEND_TICKET.order(call))
                        yield Difference("store", f"ticket of user {user!r} in {queue.tickets}", what, ticket)

    async def _ticket(self, queue: QueueKeys, user: str) -> str | None:
        reply = await self._nodes.read("HGET", queue.tickets, as_bytes(user))
        return None if reply is None else as_text(reply)

    async def _wrong(self, queue: QueueKeys, pairs: Sequence[tuple[str, str]]) -> list[tuple[str, str, str]]:
        """Return users and tickets that look wrong, and what is expected there."""
        commands: list[tuple[Any, ...]] = []
        for user, ticket in pairs:
            name, stream_id = as_bytes(user), ticket if _place(ticket) else "0-1"
            commands.append(("XRANGE", queue.dispatch, stream_id, stream_id))
            commands.append(("ZRANGEBYLEX", queue.backlog, b"[" + name + b"\0", b"(" + name + b"\1", "LIMIT", 0, 1))
        replies = await self._nodes.read_many([*commands, ("TYPE", queue.dispatch)])
        is_stream = replies.pop() == b"stream"
        groups = await self._nodes.read("XINFO", "GROUPS", queue.dispatch) if is_stream else []
        last, found = _last_handed_out(groups), []
        for (user, ticket), entries, waiting in zip(pairs, replies[::2], replies[1::2], strict=True):
            place = _place(ticket)
            if not isinstance(waiting, list) or not waiting:
                found.append((user, ticket, "none, as no job waits"))
            elif place is None or not isinstance(entries, list) or not entries or place <= last:
                found.append((user, ticket, "a ticket that waits"))
        return found


def _place(ticket: str) -> Place | None:
    try:
        return Place.parse(as_bytes(ticket))
    except ValueError:
        return None


def _last_handed_out(groups: Any) -> Place:
    for group in groups:
        fields = dict(zip(group[::2], group[1::2], strict=True))
        if fields.get(b"name") == b"controllers":
            return Place.parse(fields[b"last-delivered-id"])
    return Place(0)
