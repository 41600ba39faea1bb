"""Users' tickets in queues: each user with waiting jobs has one that nobody was handed yet."""

from collections.abc import AsyncIterator, Sequence
from typing import Any, NamedTuple

from ci_eventstore.connection.call_names import Key
from ci_eventstore.connection.nodes import Nodes
from ci_eventstore.connection.replies import as_bytes, as_text
from ci_eventstore.connection.scripts import load_script
from ci_eventstore.events.records import Place
from ci_eventstore.keys import QueueKeys
from ci_eventstore.projection.differences import Difference

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
        """Yield tickets that are lost, were handed out or stand for nobody; make them anew or remove them, if asked to.

        A ticket that two looks find so was wrong all the time: those that are taken change in the same step.
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
                            call = TicketCall(
                                queue.dispatch, queue.backlog, queue.tickets, as_bytes(user), queue.channel
                            )
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
