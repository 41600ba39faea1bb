"""Forget controllers that are gone: the typed face of `tidy.lua`."""

from typing import NamedTuple

from ci_eventstore.connection.call_names import Key
from ci_eventstore.connection.nodes import Nodes
from ci_eventstore.connection.scripts import load_script
from ci_eventstore.keys import QueueKeys
from ci_eventstore.queues.claimed import GONE_MS


class TidyCall(NamedTuple):
    """What `tidy.lua` is called with."""

    dispatch: Key
    #: The controllers' last calls.
    calls: Key
    offers: Key
    offered: Key
    clock: Key
    #: The one that signs off; "": none does.
    controller: str
    #: How long one gives no sign of life that is gone.
    gone_ms: int


TIDY = load_script(__package__, "tidy", call=TidyCall)


async def tidy(nodes: Nodes, keys: QueueKeys, controller: str = "") -> None:
    """Forget a controller that has no jobs in one partition, and those that are long gone. StoreError."""
    call = TidyCall(keys.dispatch, keys.calls, keys.offers, keys.offered, keys.clock, controller, GONE_MS)
    await nodes.run(TIDY, *TIDY.order(call))
