"""Listen to sharded channels of a cluster: those of each slot at its node, on one connection to each."""

import asyncio
import logging
from collections.abc import Callable, Iterable

from ci_eventstore.connection.addresses import HostPort
from ci_eventstore.connection.cluster import Cluster
from ci_eventstore.connection.outcomes import PAUSES_SECONDS
from ci_eventstore.connection.subscription import Subscription
from ci_eventstore.connection.topology import slot_of
from ci_eventstore.tasks import begin

logger = logging.getLogger("ci_eventstore.connection")

#: How long after a refusal a node is asked again, unless another one has the slot by then.
AGAIN_SECONDS = PAUSES_SECONDS[3]


class ShardedSubscription:
    """A `Subscription` to all nodes: channels follow their slots, and are confirmed again at each new node.

    Channels of one slot that were named together are confirmed together.
    """

    def __init__(
        self, cluster: Cluster, on_message: Callable[[str, bytes], None], on_listening: Callable[[list[str]], None]
    ) -> None:
        self._cluster = cluster
        self._on_message = on_message
        self._on_listening = on_listening
        #: The slot of each channel, in the order in which they were named.
        self._slots: dict[str, int] = {}
        #: Where each one is listened to.
        self._places: dict[str, HostPort] = {}
        self._listeners: dict[HostPort, Subscription] = {}
        self._leaving = set[asyncio.Task[None]]()
        self._again: asyncio.TimerHandle | None = None
        self._is_closed = False

    def listen(self, *channels: str) -> None:
        """Begin to listen to some channels."""
        self._cluster.on_move.add(self._follow)
        self._slots.update({channel: slot_of(channel) for channel in channels})
        for channel in channels:
            # Named again, it is confirmed again.
            self._places.pop(channel, None)
        self._place(channels)

    def ignore(self, channel: str) -> None:
        """Stop listening to a channel."""
        self._slots.pop(channel, None)
        listener = self._listeners.get(self._places.pop(channel, ("", 0)))
        if listener is not None:
            listener.ignore(channel)

    async def close(self) -> None:
        """Close the connections and stop listening."""
        self._is_closed = True
        self._cluster.on_move.discard(self._follow)
        if self._again is not None:
            self._again.cancel()
        listeners, self._listeners = list(self._listeners.values()), {}
        await asyncio.gather(*(listener.close() for listener in listeners), *self._leaving)

    def _follow(self) -> None:
        """Let channels follow their slots, and leave nodes that have none."""
        self._again = None
        if self._is_closed:
            return
        self._place(self._slots)
        for address in self._listeners.keys() - {*self._cluster.addresses}:
            task = begin(self._listeners.pop(address).close(), logger, "leaving a node's channels")
            self._leaving.add(task)
            task.add_done_callback(self._leaving.discard)

    def _place(self, channels: Iterable[str]) -> None:
        """Listen to some channels at the nodes that have their slots now, and there alone."""
        joining: dict[HostPort, list[str]] = {}
        for channel in channels:
            owner, place = self._cluster.owner(self._slots[channel]), self._places.get(channel)
            if place is not None and owner != place:
                # Also if nobody has the slot: its node may come back as another one.
                del self._places[channel]
                self._listeners[place].ignore(channel)
            if owner is None:
                self._cluster.look_soon()
            elif owner != place:
                self._places[channel] = owner
                joining.setdefault(owner, []).append(channel)
        for owner, its in joining.items():
            self._listener_at(owner).listen(*its)

    def _listener_at(self, address: HostPort) -> Subscription:
        found = self._listeners.get(address)
        if found is None:

            def give_up(channels: list[str], words: str) -> None:
                self._give_up(address, channels, words)

            link = self._cluster.node_at(address).link
            found = self._listeners[address] = link.subscription(self._on_message, self._on_listening, give_up)
        return found

    def _give_up(self, address: HostPort, channels: list[str], words: str) -> None:
        """Look for channels elsewhere, at once if the node said where; else a moment later."""
        for channel in channels:
            if self._places.get(channel) == address:
                del self._places[channel]
        if channels:
            logger.info("listening again", extra={"error": words})
        self._cluster.note_refusal(address, words)
        if channels and self._again is None and not self._is_closed:
            self._again = asyncio.get_running_loop().call_later(AGAIN_SECONDS, self._follow)
