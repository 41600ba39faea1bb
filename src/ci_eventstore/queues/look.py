"""Find held jobs whose holders are gone: the typed face of `look.lua`."""

from typing import NamedTuple

from ci_eventstore.connection.call_names import Key
from ci_eventstore.connection.nodes import Nodes
from ci_eventstore.connection.replies import as_texts
from ci_eventstore.connection.scripts import load_script
from ci_eventstore.keys import QueueKeys


class LookCall(NamedTuple):
    """What `look.lua` is called with."""

    clock: Key
    leases: Key


LOOK = load_script(__package__, "look", call=LookCall, constants={"LOOKED_JOBS": 100, "DEFAULT_LEASE_MS": 30_000})


async def look(nodes: Nodes, keys: QueueKeys) -> tuple[float, list[str]]:
    """Move a partition's clock; return the shortest lease in use, in seconds, and jobs whose lease has run out.

    StoreError.
    """
    lease_ms, found = await nodes.run(LOOK, *LOOK.order(LookCall(keys.clock, keys.leases)))
    return lease_ms / 1000, as_texts(found)
