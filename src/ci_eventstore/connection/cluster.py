"""The nodes of a cluster: which there are, and which has which slot, looked at again and again."""

import asyncio
import logging
import random
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import cast

from redis import exceptions

from ci_eventstore.connection.addresses import HostPort
from ci_eventstore.connection.deployments import Deployment
from ci_eventstore.connection.failures import MisledError, note_reply, note_unreached, reply_of
from ci_eventstore.connection.node import Node, patience_of
from ci_eventstore.connection.outage_log import Outages
from ci_eventstore.connection.outcomes import Kind, Outcome
from ci_eventstore.connection.routes import Asking, Partition, Route, Unserved
from ci_eventstore.connection.topology import Redirection, SlotMap, read_redirection, why_no_node
from ci_eventstore.connection.way import Counters, Target, Way
from ci_eventstore.tasks import begin

logger = logging.getLogger("ci_eventstore.connection")

#: How often it is looked who has which slot, about, though nothing failed.
LOOK_SECONDS = 5.0
#: The longest pause before and after a look that was asked for, so that not all processes look at the same moment.
JITTER_SECONDS = 0.4
#: How long one node is asked before the next one is; longer after all were asked without an answer.
ASK_SECONDS = 1.0
#: After a node has said nothing for so long to commands that wait, it is looked whether another one has its slots.
SILENCE_SECONDS = 1.0
#: How long a node without slots is kept: one that gets its first is asked for its keys before it has it.
KEPT_SECONDS = 10.0
#: How long a node that has gone has for answers on their way.
GRACE_SECONDS = 1.0


class _Anyone(Way):
    """The way to any node: where a try goes is decided by what is sent."""

    def after(
        self, error: exceptions.RedisError, outcome: Outcome, target: Target, sent_at: float
    ) -> tuple[Outcome, Target | None]:
        """Go on."""
        return outcome, None


class Cluster:
    """Nodes come and go. Nobody keeps one: those of a partition are reached by its `Partition`, all by `masters`."""

    def __init__(
        self,
        deployment: Deployment,
        counters: Counters,
        replicas: int,
        *,
        is_read_only: bool,
        before: "Cluster | None" = None,
    ) -> None:
        """Nothing is connected yet; it goes on with what the cluster `before`, of another event loop, knows."""
        self._deployment = deployment
        self._counters = counters
        self._replicas = replicas
        self._is_read_only = is_read_only
        self._slots: SlotMap = SlotMap() if before is None else before._slots
        self._nodes: dict[HostPort, Node] = {}
        self._partitions: dict[str, Partition] = {}
        #: The nodes that have slots, as far as is known.
        self.masters: list[Node] = []
        #: Nodes that have gone, and have a moment for answers on their way.
        self._leaving: dict[Node, asyncio.Task[None]] = {}
        #: When a redirection led to a node that has no slot, as far as others say.
        self._named_at: dict[HostPort, float] = {}
        self._anyone = _Anyone(deployment.name, patience_of, counters)
        self._anyone.target = Unserved(0)
        self._anyone.was_reached = before is not None and before._anyone.was_reached
        self._keeper: asyncio.Task[None] | None = None
        self._wanted = asyncio.Event()
        #: One look at a time.
        self._looking = asyncio.Lock()
        self._doubted: HostPort | None = None
        self._ask_seconds = ASK_SECONDS
        self._outages = Outages()
        #: Called each time that slots may have another node.
        self.on_move: set[Callable[[], None]] = set()
        self._lead_all()

    @property
    def is_closed(self) -> bool:
        """Whether no more commands are sent."""
        return self._anyone.is_closed

    @property
    def addresses(self) -> Iterable[HostPort]:
        """Where the nodes are that have slots, as far as is known."""
        return self._slots.masters

    @property
    def unserved_slots(self) -> int:
        """How many slots no node has, as far as is known."""
        return self._slots.unserved

    def partition(self, tag: str) -> Partition:
        """Return what is sent to the partition of a hash tag."""
        found = self._partitions.get(tag)
        if found is None:
            route = Route(tag, self._deployment.name, self._counters, self._follow, self.look_soon)
            route.is_closed, route.was_reached = self.is_closed, self._anyone.was_reached
            found = Partition(route, tag, self._replicas, is_read_only=self._is_read_only)
            self._partitions[tag] = found
            self._lead(route)
        return found

    def master_of(self, slot: int) -> Node | None:
        """Return the node that has a slot, None if none is known to; nobody keeps it."""
        address = self._slots.owners[slot]
        return None if address is None else self.node_at(address)

    def owner(self, slot: int) -> HostPort | None:
        """Return where the node is that has a slot, None if none is known to."""
        return self._slots.owners[slot]

    def node_at(self, address: HostPort) -> Node:
        """Return the node of an address; nobody keeps it."""
        found = self._nodes.get(address)
        if found is None:
            deployment = self._deployment.at(*address)
            # Replicas are waited for by those who write, which is what partitions are for.
            found = Node(deployment, self._counters, is_read_only=self._is_read_only)
            self._nodes[address] = found
        return found

    def note_refusal(self, asked: HostPort, words: str) -> None:
        """Take notice of what a node replied to one that would listen there; "" if it isn't there."""
        redirection = read_redirection(words, asked)
        if redirection is None or self._slots.owners[redirection.slot] == redirection.node:
            self.look_soon(asked)
        else:
            self._follow(redirection)

    async def look(self) -> None:
        """Ask who has which slot; StoreUnavailableError if no node answers, AuthenticationError and so on."""
        async with self._looking:
            self._take(cast(SlotMap, await self._anyone.persist(Kind.READ, "CLUSTER SLOTS", self._ask)))
        self._start()

    def look_soon(self, doubted: HostPort | None = None) -> None:
        """Ask who has which slot, in the background; the node of the `doubted` address comes last."""
        if not self.is_closed:
            self._doubted = doubted
            self._start()
            self._wanted.set()

    async def close(self) -> None:
        """Close all connections; calls without an answer raise NotInitializedError."""
        self._end()
        keepers = [*self._leaving.values(), *filter(None, (self._keeper,))]
        nodes = [*self._nodes.values(), *self._leaving]
        for task in keepers:
            task.cancel()
        await asyncio.gather(*keepers, return_exceptions=True)
        for node in nodes:
            await node.close()
        self._deployment.release()

    def abandon(self) -> None:
        """Let go of all connections, whose event loop was closed."""
        self._end()
        for node in (*self._nodes.values(), *self._leaving):
            node.link.abandon()

    def _end(self) -> None:
        self._anyone.is_closed = True
        for partition in self._partitions.values():
            partition.route.is_closed = True

    def _start(self) -> None:
        if self._keeper is None or self._keeper.done():
            self._keeper = begin(self._keep_looking(), logger, "looking at the cluster's nodes")

    async def _keep_looking(self) -> None:
        while True:
            await self._wait()
            try:
                async with self._looking:
                    self._take(await self._ask())
            except exceptions.RedisError as error:
                logger.debug("no node says who has which slot", extra={"error": str(error)})
            except Exception as error:  # noqa: BLE001 - it is logged; nobody would find the nodes any more
                self._outages.fault(logger, "looking at the cluster's nodes", error)
            await asyncio.sleep(random.uniform(JITTER_SECONDS / 4, JITTER_SECONDS))

    async def _wait(self) -> None:
        """Wait until it is time to look again, until somebody wants it, or until a node says nothing."""
        due = time.monotonic() + LOOK_SECONDS * random.uniform(0.8, 1.2)
        while time.monotonic() < due and not self._wanted.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(SILENCE_SECONDS):
                    await self._wanted.wait()
                    await asyncio.sleep(random.uniform(0.0, JITTER_SECONDS / 4))
            for address, node in self._nodes.items():
                if node.link.is_silent(SILENCE_SECONDS):
                    self.look_soon(address)
        self._wanted.clear()

    async def _ask(self, target: Target | None = None, is_again: bool = False) -> SlotMap:
        """Return what the first node says that answers; the last error of redis-py's if none does."""
        failure = exceptions.RedisError("there are no nodes")
        for address in self._known():
            try:
                async with asyncio.timeout(self._ask_seconds):
                    reply = await self.node_at(address).link.alone("CLUSTER", "SLOTS")
                slots = SlotMap.read(reply, address)
                if slots.masters:
                    self._ask_seconds = ASK_SECONDS
                    return slots
                failure = exceptions.ClusterDownError("no slot is served")
                note_reply(failure, "CLUSTERDOWN no slot is served")
            except TimeoutError:
                failure = exceptions.TimeoutError("no answer in time")
                note_unreached(failure)
            except ValueError as error:
                failure = exceptions.InvalidResponse(str(error))
            except exceptions.RedisError as error:
                why = why_no_node(reply_of(error) or "", address)
                failure = error if why is None else MisledError(why)
        # They may all be far, not away.
        self._ask_seconds = min(2 * self._ask_seconds, LOOK_SECONDS)
        raise failure

    def _known(self) -> Iterator[HostPort]:
        """Yield all addresses: nodes in any order, the one that is doubted last, then those of the URL."""
        masters = self._slots.masters
        random.shuffle(masters)
        yield from sorted(masters, key=lambda address: address == self._doubted)
        yield from (address for address in self._deployment.addresses if address not in masters)

    def _follow(self, redirection: Redirection) -> Target | None:
        self._named_at[redirection.node] = time.monotonic()
        if redirection.is_asking:
            return Asking(self.node_at(redirection.node).link)
        self._slots.move(redirection.slot, redirection.node)
        self._lead_all()
        self.look_soon()
        return None

    def _take(self, slots: SlotMap) -> None:
        """Go by what a node said."""
        is_new, self._slots, self._anyone.was_reached = slots.owners != self._slots.owners, slots, True
        if is_new:
            self._lead_all()
        now, masters = time.monotonic(), set(slots.masters)
        self._named_at = {node: at for node, at in self._named_at.items() if at > now - KEPT_SECONDS}
        for address in self._nodes.keys() - masters - self._named_at.keys():
            node = self._nodes.pop(address)
            self._leaving[node] = begin(self._leave(node), logger, "closing the connections to a node")

    async def _leave(self, node: Node) -> None:
        if not node.link.is_silent(SILENCE_SECONDS):
            await asyncio.sleep(GRACE_SECONDS)
        try:
            await node.close()
        finally:
            del self._leaving[node]

    def _lead_all(self) -> None:
        self.masters[:] = [self.node_at(address) for address in self._slots.masters]
        for partition in self._partitions.values():
            self._lead(partition.route)
        for tell in list(self.on_move):
            tell()

    def _lead(self, route: Route) -> None:
        node = self.master_of(route.slot)
        route.was_reached = self._anyone.was_reached
        route.lead(None if node is None else node.link)
