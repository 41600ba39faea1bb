"""Begin the lease of a job that its holder is about to create: the typed face of `hold.lua`."""

from typing import NamedTuple

from ci_eventstore.connection.call_names import Key
from ci_eventstore.connection.nodes import Nodes
from ci_eventstore.connection.scripts import load_script
from ci_eventstore.keys import QueueKeys


class HoldCall(NamedTuple):
    """What `hold.lua` is called with."""

    clock: Key
    leases: Key
    job_id: str
    lease_ms: int


HOLD = load_script(__package__, "hold", call=HoldCall)


async def hold(nodes: Nodes, keys: QueueKeys, job_id: str, lease_seconds: float) -> None:
    """Begin a lease in a queue without a name, unless there is one already. StoreError."""
    await nodes.run(HOLD, *HOLD.order(HoldCall(keys.clock, keys.leases, job_id, int(lease_seconds * 1000))))
