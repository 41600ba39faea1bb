"""Ask which jobs a claim would get: the typed face of `peek.lua`."""

from typing import NamedTuple

from ci_eventstore.connection.call_names import Key
from ci_eventstore.connection.nodes import Nodes
from ci_eventstore.connection.replies import as_texts
from ci_eventstore.connection.scripts import load_script
from ci_eventstore.keys import QueueKeys, read_backlog_member

#: How many jobs are foreseen by a caller that asks for more than one: it needs not ask again for those.
FORESEEN_JOBS = 256


class PeekCall(NamedTuple):
    """What `peek.lua` is called with."""

    dispatch: Key
    backlog: Key
    leases: Key
    clock: Key
    offers: Key
    offered: Key
    #: How many jobs whose leases have run out, and how many jobs together.
    expired_count: int
    limit: int
    lease_ms: int
    controller: str
    #: "<session>-<number>", a session's numbers go up; "" from those that make no offers.
    question: str
    #: How long its offer stands; 0: it makes none.
    offer_ms: int
    #: Token of the last claim that its offers have brought, as far as it knows.
    newest: str


PEEK = load_script(__package__, "peek", call=PeekCall, constants={"OFFERED_TTL_MS": 86_400_000})


class Waiting(NamedTuple):
    """A job that waits in a queue."""

    user_id: str
    sort_key: str
    job_id: str
    #: Its member of the backlog.
    text: str

    @classmethod
    def of(cls, text: str) -> "Waiting":
        """Return the job that a member of a backlog stands for."""
        return cls(*read_backlog_member(text), text)


class Peeked(NamedTuple):
    """What a claim would get, and what the last offer has brought."""

    #: Ids of jobs whose leases have run out.
    expired: list[str]
    waiting: list[Waiting]
    #: The last job that the session's offers have brought, as "<token of the claim> <job id>"; "": none.
    given: str
    is_offer_made: bool


async def peek(
    nodes: Nodes, keys: QueueKeys, count: int, lease_ms: int, offer: tuple[str, str, int, str] = ("", "", 0, "")
) -> Peeked:
    """Ask whose turn it is in one partition; take back an offer that stands, or make one if it is nobody's. StoreError.

    `offer` is what `Offer.ask` returns.
    """
    together = min(count, 1) * (FORESEEN_JOBS if count > 1 else 1)
    call = PeekCall(
        keys.dispatch,
        keys.backlog,
        keys.leases,
        keys.clock,
        keys.offers,
        keys.offered,
        count,
        together,
        lease_ms,
        *offer,
    )
    expired, waiting, given, is_made = await nodes.run(PEEK, *PEEK.order(call))
    jobs = [Waiting.of(text) for text in as_texts(waiting)]
    return Peeked(as_texts(expired), jobs, given.decode(), bool(is_made))
