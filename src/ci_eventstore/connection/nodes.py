"""The nodes that hold a store: each command goes to the one that has its keys."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Sequence
from typing import Any

from ci_eventstore.connection.cluster import Cluster
from ci_eventstore.connection.deployments import Deployment
from ci_eventstore.connection.failures import tag_in
from ci_eventstore.connection.node import Node, Sender
from ci_eventstore.connection.outage_log import Outages
from ci_eventstore.connection.replies import Reply
from ci_eventstore.connection.scripts import Script
from ci_eventstore.connection.sharded_subscription import ShardedSubscription
from ci_eventstore.connection.subscription import Subscription
from ci_eventstore.connection.topology import slot_of
from ci_eventstore.connection.way import Command, Counters


class Nodes:
    """Routes each command by the hash tag of its first key, which is its partition's. One server is one node.

    Errors are those of `Node`.
    """

    def __init__(
        self,
        deployment: Deployment,
        replicas: int = 0,
        *,
        is_read_only: bool = False,
        before: "Nodes | None" = None,
    ) -> None:
        """Nothing is connected yet; with `is_read_only`, nothing is ever sent that writes.

        They take over counters and knowledge of the servers from the nodes `before`, of another event loop.
        """
        self.deployment = deployment
        #: How many replicas must have a write before it is acknowledged.
        self.replicas = replicas
        self.counters: Counters = Counters() if before is None else before.counters
        #: Logs of lasting failures, shared by all parts of the store.
        self.outages = Outages()
        #: Returns what has a hash tag; None: there is one server, which has all.
        self._node_of_tag: Callable[[str], Sender] | None = None
        #: Whether several servers hold the store, so that some partitions may be there while others are away.
        self.is_divided = deployment.kind == "cluster"
        self._cluster: Cluster | None = None
        if self.is_divided:
            known = None if before is None else before._cluster
            self._cluster = Cluster(deployment, self.counters, replicas, is_read_only=is_read_only, before=known)
            self._node_of_tag = self._cluster.partition
            self.all = self._cluster.masters
            self._first: Sender = self._cluster.partition("")
            return
        self.all = [Node(deployment, self.counters, replicas, is_read_only=is_read_only)]
        self._first = self.all[0]
        for node, node_before in zip(self.all, before.all if before else (), strict=False):
            node.go_on_as(node_before)

    @property
    def is_closed(self) -> bool:
        """Whether no more commands are sent."""
        return self._first.is_closed

    async def close(self) -> None:
        """Close all connections; calls without an answer raise NotInitializedError."""
        if self._cluster is not None:
            await self._cluster.close()
            return
        for node in self.all:
            await node.close()

    def abandon(self) -> None:
        """Let go of all connections, whose event loop was closed: nobody waits for their end."""
        if self._cluster is not None:
            self._cluster.abandon()
            return
        for node in self.all:
            node.link.abandon()

    def node_of(self, *words: str | int | bytes) -> Sender:
        """Return the node of the first of these words that has a hash tag; without one, the first node."""
        if self._node_of_tag is None:
            return self._first
        tag = next(filter(None, map(tag_in, words)), None)
        return self._first if tag is None else self._node_of_tag(tag)

    def run(
        self,
        script: Script,
        keys: Sequence[str | bytes],
        arguments: Iterable[str | int | bytes],
        *,
        patience_seconds: float | None = None,
    ) -> Coroutine[Any, Any, Reply]:
        """Run a script where its keys are, all of which have one tag; see `Node.run`."""
        # Asked for here, since a call of `node_of` would cost most of what this function does.
        node = self._first if self._node_of_tag is None else self.node_of(*keys[:1])
        return node.run(script, keys, arguments, patience_seconds=patience_seconds)

    def read(self, *command: str | int | bytes) -> Coroutine[Any, Any, Reply]:
        """Send a command that changes nothing, or does no harm if it is done twice; StoreUnavailableError."""
        return self.node_of(*command).read(*command)

    def read_together(self, *command: str | int | bytes) -> Coroutine[Any, Any, Reply]:
        """Send a read, together with others that are asked for at the same time; a cancelled one disturbs no other."""
        return self.node_of(*command).read_together(*command)

    def read_at_once(self, commands: Sequence[Command]) -> Coroutine[Any, Any, list[Reply]]:
        """Send several reads of one tag as a transaction: nothing comes between them; WRONG_TYPE as in `read_many`."""
        return self.node_of(*commands[0]).read_at_once(commands)

    async def read_many(self, commands: Sequence[Command]) -> list[Reply]:
        """Send several reads, to each node those that are its own, and return their replies in the commands' order.

        Other clients' commands may come between them. WRONG_TYPE is the reply for a key of another type.
        """
        if self._node_of_tag is None:
            return await self._first.read_many(commands)
        places: dict[Sender, list[int]] = {}
        for place, command in enumerate(commands):
            places.setdefault(self.node_of(*command), []).append(place)
        found = await asyncio.gather(
            *(node.read_many([commands[place] for place in its]) for node, its in places.items())
        )
        replies: list[Reply] = [None] * len(commands)
        for its, node_replies in zip(places.values(), found, strict=True):
            for place, reply in zip(its, node_replies, strict=True):
                replies[place] = reply
        return replies

    async def scan(self, pattern: str, *, skips_absent: bool = False) -> AsyncIterator[list[str]]:
        """Yield the keys that match a pattern, page by page, node by node; some may come twice.

        It walks all keys: for maintenance, never for a request. If told so, it skips nodes that give no answer.
        """
        for node in await servers_of(self):
            if skips_absent and not await node.is_there():
                continue
            async for page in node.scan_pages("SCAN", "MATCH", pattern):
                yield page

    def scan_members(self, command: str, key: str) -> AsyncIterator[list[str]]:
        """Yield what `SSCAN`, `ZSCAN` or `HSCAN` finds in a key, page by page; some may come twice."""
        return self.node_of(key).scan_pages(command, key)

    def subscription(
        self, on_message: Callable[[str, bytes], None], on_listening: Callable[[list[str]], None]
    ) -> Subscription | ShardedSubscription:
        """Return a subscription that has no channels yet; it ends with this."""
        if self._cluster is not None:
            return ShardedSubscription(self._cluster, on_message, on_listening)
        return self.all[0].link.subscription(on_message, on_listening)


async def servers_of(nodes: Nodes) -> Sequence[Node]:
    """Return all servers of a store, of a cluster those that have slots by now; nobody keeps them. Errors of `Node`."""
    if nodes._cluster is not None:
        await nodes._cluster.look()
    return list(nodes.all)


def unserved_slots(nodes: Nodes) -> int:
    """Return how many slots of a cluster no node was given, as far as is known."""
    return 0 if nodes._cluster is None else nodes._cluster.unserved_slots


def server_of(nodes: Nodes, tag: str) -> Node | None:
    """Return the server that has a hash tag, as far as is known; nobody keeps it. None if none has it."""
    if nodes._cluster is not None:
        return nodes._cluster.master_of(slot_of(tag))
    found = nodes.node_of(tag)
    return found if isinstance(found, Node) else None


async def publish(nodes: Nodes, channels: Iterable[str], message: bytes) -> None:
    """Send a message on some channels, each to where its hash tag is; StoreUnavailableError."""
    command = "SPUBLISH" if nodes.deployment.kind == "cluster" else "PUBLISH"
    await nodes.read_many([(command, channel, message) for channel in channels])


async def time_ms(nodes: Nodes, tag: str) -> int:
    """Return the time of the server that has a partition, in milliseconds since 1970; StoreUnavailableError."""
    seconds, microseconds = await nodes.node_of(tag).read("TIME")
    return int(seconds) * 1000 + int(microseconds) // 1000
