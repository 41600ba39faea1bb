"""Each command goes to the node that has its keys, as it will in a cluster."""

from ci_eventstore.connection.deployments import from_url
from ci_eventstore.connection.node import Node
from ci_eventstore.connection.nodes import Nodes
from ci_eventstore.connection.replies import WRONG_TYPE
from tests.servers import RealServer


async def test_commands_are_routed_by_their_tag(valkey: RealServer, server: Nodes, own: RealServer) -> None:
    """Reads of several partitions are grouped by node, and replies stand in the order of the commands."""
    nodes = Nodes(from_url(valkey.url))
    first, second = nodes.all[0], Node(from_url(own.url), nodes.counters)
    nodes.all.append(second)
    nodes._node_of_tag = {"{ci:0}": first, "{ci:1}": second}.__getitem__
    for number in range(6):
        await nodes.read("SET", f"{{ci:{number % 2}}}:{number}", number)
    assert [await node.read("DBSIZE") for node in (first, second)] == [3, 3]
    commands: list[tuple[str | bytes, ...]] = [("GET", f"{{ci:{number % 2}}}:{number}") for number in range(6)]
    commands.append(("HLEN", b"{ci:1}:1"))
    assert await nodes.read_many(commands) == [*(b"%d" % number for number in range(6)), WRONG_TYPE]
    assert await nodes.read_together("GET", "{ci:1}:5") == b"5"
    assert await nodes.read_at_once([("GET", "{ci:1}:1"), ("GET", "{ci:1}:3")]) == [b"1", b"3"]
    found = [key async for page in nodes.scan("{ci:*}:*") for key in page]
    assert sorted(found) == sorted(f"{{ci:{number % 2}}}:{number}" for number in range(6))
    await server.read("FLUSHALL")
    await nodes.close()
    assert nodes.is_closed
