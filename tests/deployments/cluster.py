"""A cluster on this machine: primaries with replicas, of which nodes come and go, and slots move."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from redis import ResponseError
from redis.crc import key_slot

from tests.deployments.members import FINDERS, Member, launch_all, remove_all, spare_port
from tests.servers import wait_until

SLOTS = 16_384
#: How a slot moves: the keys one by one, as Redis 7 does it, or all at the same moment (Valkey 9).
How = Literal["keys", "at_once"]
PATIENCE_SECONDS = 90.0
#: How long `MIGRATE` may take for a key.
MIGRATE_MS = 30_000


class Node(Member):
    """A server of a cluster."""

    def __init__(self, binary: Path, node_timeout_ms: int, *configuration: str) -> None:
        super().__init__(
            binary,
            "cluster-enabled yes",
            "cluster-announce-ip 127.0.0.1",
            f"cluster-node-timeout {node_timeout_ms}",
            # Nodes go where the test sends them, and what is left of a cluster serves its slots.
            "cluster-allow-replica-migration no",
            "cluster-require-full-coverage no",
            "cluster-replica-validity-factor 0",
            *configuration,
        )
        #: By this the cluster knows it.
        self.id = ""
        self._choose_bus()

    def move_to_other_ports(self) -> None:
        """Choose both ports again."""
        super().move_to_other_ports()
        self._choose_bus()

    def _choose_bus(self) -> None:
        self.bus_port = spare_port()
        self.arguments = ["--cluster-port", str(self.bus_port)]

    def view(self) -> list["Seen"]:
        """Return how it sees the cluster."""
        return [Seen.read(line) for line in self.ask("CLUSTER", "NODES").splitlines() if line]


@dataclass(frozen=True, slots=True)
class Seen:
    """A node as another one sees it."""

    id: str
    flags: frozenset[str]
    #: The id of the node that it is a replica of; "-" for none.
    primary_id: str
    epoch: int
    is_linked: bool
    slots: tuple[range, ...]

    @classmethod
    def read(cls, line: str) -> "Seen":
        """Read a line of `CLUSTER NODES`."""
        node_id, _, flags, primary_id, _, _, epoch, link, *slots = line.split(" ")
        owned = [part.partition("-") for part in slots if not part.startswith("[")]
        ranges = tuple(range(int(first), int(last or first) + 1) for first, _, last in owned)
        return cls(node_id, frozenset(flags.split(",")), primary_id, int(epoch), link == "connected", ranges)

    def owns(self, slot: int) -> bool:
        """Tell whether a slot is its own."""
        return any(slot in owned for owned in self.slots)


class Cluster:
    """A running cluster, and what an operator does with it.

    What waits for servers is a coroutine, and lets the test's other tasks go on meanwhile.
    """

    def __init__(self, binary: Path, masters: int, replicas: int, node_timeout_ms: int, *configuration: str) -> None:
        self._make: Callable[[], Node] = lambda: Node(binary, node_timeout_ms, *configuration)
        #: Primaries first, as they were at the beginning; those that were removed are gone.
        self.nodes = [self._make() for _ in range(masters * (1 + replicas))]
        self._masters = masters
        #: Which program its nodes are: "redis" or "valkey".
        self.binary = binary.name.partition("-")[0]

    @property
    def url(self) -> str:
        """Names the nodes that were its first primaries and are still there."""
        return f"redis+cluster://{','.join(node.address for node in self.nodes[: self._masters])}"

    def start(self) -> None:
        """Start all nodes, and wait until they are a cluster."""
        launch_all(self.nodes)
        for number, node in enumerate(self.nodes):
            node.id = str(node.ask("CLUSTER", "MYID"))
            node.ask("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            if number < self._masters:
                first, end = (SLOTS * place // self._masters for place in (number, number + 1))
                node.ask("CLUSTER", "ADDSLOTSRANGE", first, end - 1)
        for node in self.nodes:
            # Each meets each: gossip alone takes seconds.
            self._introduce(node)
        wait_until(self._all_know_all, "nodes that know each other", PATIENCE_SECONDS)
        for number, node in enumerate(self.nodes[self._masters :]):
            node.ask("CLUSTER", "REPLICATE", self.nodes[number % self._masters].id)
        self._wait_ready()

    async def wait_ready(self) -> None:
        """Wait until all nodes that are up agree, every slot is served, and every replica is linked."""
        await asyncio.to_thread(self._wait_ready)

    def primaries(self) -> list[Node]:
        """Return the nodes that are up and own slots."""
        views = [(node, _myself(node)) for node in self._up()]
        return [node for node, seen in views if "master" in seen.flags and seen.slots]

    def owner_of(self, slot: int) -> Node:
        """Return the node that serves a slot; LookupError if none does at the moment."""
        owners = [(seen.epoch, node) for node in self._up() if (seen := _myself(node)).owns(slot)]
        if not owners:
            raise LookupError(f"nobody serves slot {slot}")
        return max(owners, key=lambda owner: owner[0])[1]

    def owner_of_key(self, key: str) -> Node:
        """Return the node that serves a key, or all keys of a hash tag."""
        return self.owner_of(key_slot(key.encode()))

    def replicas_of(self, primary: Node) -> list[Node]:
        """Return the replicas of a node that are up."""
        return [node for node in self._up() if _myself(node).primary_id == primary.id]

    async def fail_over(self, node: Node) -> Node:
        """Let a replica of a primary take over, whether that is up or not; return the new primary."""
        return await asyncio.to_thread(self._fail_over, node)

    async def move_slot(
        self, slot: int, to: Node, how: How = "keys", *, half_way: Callable[[], Awaitable[None]] | None = None
    ) -> float:
        """Move a slot; return how many seconds it took. With `half_way`, keys stop there until it returns."""
        source = self.owner_of(slot)
        began = time.monotonic()
        if source is to:
            return 0.0
        if how == "at_once":
            await asyncio.to_thread(_move_at_once, source, to, range(slot, slot + 1))
        else:
            await self._move_keys(slot, source, to, half_way)
        wait = f"slot {slot} at {to.address}"
        await asyncio.to_thread(wait_until, lambda: self._all_see(slot, to), wait, PATIENCE_SECONDS)
        return time.monotonic() - began

    async def add_node(self, replica_of: Node | None = None) -> Node:
        """Add a node, which has no slots yet, or is a replica."""
        node = self._make()
        self.nodes.append(node)
        await asyncio.to_thread(self._join, node, replica_of)
        return node

    async def remove_node(self, node: Node, how: How = "keys") -> None:
        """Take a node out of the cluster after its slots went to the other primaries, and kill it."""
        if node.is_up:
            owned = _myself(node).slots
            others = [other for other in self.primaries() if other is not node]
            if how == "at_once":
                for slots in owned:
                    await asyncio.to_thread(_move_at_once, node, others[0], slots)
            else:
                await self._give_slots([slot for slots in owned for slot in slots], node, others)
        await asyncio.to_thread(self._forget, node)

    async def restart_all(self) -> None:
        """Kill all nodes at once, start them again and wait until they are a cluster."""
        for node in self.nodes:
            node.kill()
        await asyncio.to_thread(self.start_again)

    def start_again(self) -> None:
        """Start all nodes, which were killed, and wait until they are a cluster."""
        launch_all(self.nodes)
        self._wait_ready()

    def _up(self) -> list[Node]:
        return [node for node in self.nodes if node.is_up]

    def _all_know_all(self) -> bool:
        ids = {node.id for node in self.nodes}
        return all(_knows(node, ids) for node in self._up())

    def _wait_ready(self) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline:
            with suppress(TimeoutError):
                wait_until(self._is_ready, "a cluster that agrees", 0.5)
                return
            for node in self._up():
                if not _myself(node).slots:
                    # Redis 7 leaves it to gossip that a node is a replica now, which takes half a node timeout.
                    self._introduce(node)
        views = "\n\n".join(node.ask("CLUSTER", "NODES") for node in self._up())
        raise TimeoutError(f"no cluster that agrees within {PATIENCE_SECONDS:g} seconds:\n{views}")

    def _introduce(self, node: Node) -> None:
        for other in self._up():
            if node is not other:
                node.ask("CLUSTER", "MEET", "127.0.0.1", other.port, other.bus_port)

    def _is_ready(self) -> bool:
        up = self._up()
        for node in up:
            state = node.ask("CLUSTER", "INFO")
            if "cluster_state:ok" not in state or f"cluster_slots_ok:{SLOTS}" not in state:
                return False
        ours = {node.id for node in up}
        views = [
            sorted((one.id, one.primary_id, str(one.slots)) for one in node.view() if one.id in ours) for node in up
        ]
        replication = [node.info("replication") for node in up]
        linked = all(one["role"] == "master" or one["master_link_status"] == "up" for one in replication)
        return linked and all(view == views[0] for view in views)

    def _all_see(self, slot: int, owner: Node) -> bool:
        return all(any(seen.id == owner.id and seen.owns(slot) for seen in node.view()) for node in self._up())

    def _fail_over(self, node: Node) -> Node:
        slots = [seen.slots for one in self._up() for seen in one.view() if seen.id == node.id and seen.slots]
        replicas = self.replicas_of(node)
        if not replicas or not slots:
            raise LookupError(f"{node.address} has no slots, or no replica that is up")
        successor, slot = replicas[0], slots[0][0].start
        deadline = time.monotonic() + PATIENCE_SECONDS

        def is_successor() -> bool:
            return "master" in _myself(successor).flags and _myself(successor).owns(slot)

        while not is_successor():
            with suppress(ResponseError):
                # Without FORCE it waits for the old primary, and loses nothing.
                successor.ask("CLUSTER", "FAILOVER", *([] if node.is_up else ["FORCE"]))
            with suppress(TimeoutError):
                # Primaries that have voted lately don't vote again for a while.
                wait_until(is_successor, "a new primary", 6)
            if time.monotonic() > deadline:
                raise TimeoutError(f"{successor.address} doesn't become primary:\n{successor.log[-2000:]}")
        wait_until(lambda: self._all_see(slot, successor), "nodes that know the new primary", PATIENCE_SECONDS)
        return successor

    async def _move_keys(
        self, slot: int, source: Node, to: Node, half_way: Callable[[], Awaitable[None]] | None
    ) -> None:
        to.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", source.id)
        source.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", to.id)
        if half_way is not None:
            half = int(source.ask("CLUSTER", "COUNTKEYSINSLOT", slot)) // 2
            await asyncio.to_thread(_migrate, source, to, slot, half)
            await half_way()
        await asyncio.to_thread(_migrate, source, to, slot)
        # The new owner first: were it the other way round, nobody would serve the slot in between.
        for node in [to, source, *self.primaries()]:
            node.ask("CLUSTER", "SETSLOT", slot, "NODE", to.id)

    def _join(self, node: Node, replica_of: Node | None) -> None:
        launch_all([node])
        node.id = str(node.ask("CLUSTER", "MYID"))
        self._introduce(node)
        wait_until(self._all_know_all, "nodes that know the new one", PATIENCE_SECONDS)
        if replica_of is not None:
            node.ask("CLUSTER", "REPLICATE", replica_of.id)
        self._wait_ready()

    async def _give_slots(self, slots: Sequence[int], source: Node, others: Sequence[Node]) -> None:
        busy = [slot for slot in slots if int(source.ask("CLUSTER", "COUNTKEYSINSLOT", slot))]
        for place, slot in enumerate(busy):
            await self.move_slot(slot, others[place % len(others)])
        if empty := sorted({*slots} - {*busy}):
            await asyncio.to_thread(self._give_empty, empty, source, others[0])

    def _give_empty(self, slots: Sequence[int], source: Node, to: Node) -> None:
        # Without a newer epoch, replicas would go on believing the old owner.
        to.ask("CLUSTER", "BUMPEPOCH")
        for node in [to, source, *(one for one in self.primaries() if one not in (to, source))]:
            for slot in slots:
                node.ask("CLUSTER", "SETSLOT", slot, "NODE", to.id)
        wait_until(lambda: self._all_see(slots[-1], to), "the slots' new owner", PATIENCE_SECONDS)

    def _forget(self, node: Node) -> None:
        self.nodes.remove(node)
        node.remove()
        for other in self._up():
            with suppress(ResponseError):
                other.ask("CLUSTER", "FORGET", node.id)


def _myself(node: Node) -> Seen:
    return next(seen for seen in node.view() if "myself" in seen.flags)


def _knows(node: Node, ids: set[str]) -> bool:
    seen = {one.id: one for one in node.view()}
    return ids <= seen.keys() and all(
        seen[one].is_linked and not seen[one].flags & {"handshake", "fail", "fail?"} for one in ids
    )


def _migrate(source: Node, to: Node, slot: int, count: int | None = None) -> None:
    """Move the keys of a slot one by one, or so many of them."""
    while count is None or count > 0:
        keys = source.ask("CLUSTER", "GETKEYSINSLOT", slot, 1)
        if not keys:
            return
        source.ask("MIGRATE", "127.0.0.1", to.port, keys[0], 0, MIGRATE_MS)
        count = None if count is None else count - 1


def _move_at_once(source: Node, to: Node, slots: range) -> None:
    source.ask("CLUSTER", "MIGRATESLOTS", "SLOTSRANGE", slots[0], slots[-1], "NODE", to.id)
    wait_until(lambda: _myself(to).owns(slots[0]), f"slot {slots[0]} at {to.address}", PATIENCE_SECONDS)


@contextmanager
def running_cluster(
    masters: int = 3,
    replicas: int = 1,
    binary: Literal["redis", "valkey"] = "valkey",
    node_timeout_ms: int = 15_000,
    configuration: Sequence[str] = (),
) -> Iterator[Cluster]:
    """Start a cluster, for a fixture that isn't a coroutine; all of it is gone in the end.

    With a `node_timeout_ms` of 2000 a replica takes over by itself; on a busy machine also where nobody died.
    """
    cluster = Cluster(FINDERS[binary](), masters, replicas, node_timeout_ms, *configuration)
    try:
        cluster.start()
        yield cluster
    finally:
        remove_all(cluster.nodes)


@asynccontextmanager
async def cluster_of(
    masters: int = 3,
    replicas: int = 1,
    binary: Literal["redis", "valkey"] = "valkey",
    node_timeout_ms: int = 15_000,
    configuration: Sequence[str] = (),
) -> AsyncIterator[Cluster]:
    """Start a cluster, as `running_cluster` does."""
    opened = running_cluster(masters, replicas, binary, node_timeout_ms, configuration)
    cluster = await asyncio.to_thread(opened.__enter__)
    try:
        yield cluster
    finally:
        opened.__exit__(None, None, None)
