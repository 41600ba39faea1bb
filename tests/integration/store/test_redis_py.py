"""The private attributes of redis-py that the store uses are there, and used in one class only."""

import ast
import asyncio

import pytest
import redis

from ci_eventstore.connection.connections import RedisPy
from ci_eventstore.connection.nodes import Nodes
from tests.unit.structure.source import source_modules

CHANGED = f"redis-py {redis.__version__} has changed {{}}: mend ci_eventstore/connection/connections.py"


def changed(owner: object, names: tuple[str, ...]) -> list[str]:
    """Return what to say of the attributes that an object lacks."""
    return [CHANGED.format(f"{type(owner).__name__}.{name}") for name in names if not hasattr(owner, name)]


async def test_the_private_attributes_are_there(server: Nodes) -> None:
    """A version of redis-py that changes one is named."""
    pool = server.all[0].link.commands.connection_pool
    connection = await pool.get_connection()
    try:
        assert changed(connection, RedisPy.CONNECTION) + changed(pool, RedisPy.POOL) == []
        assert RedisPy.connections_of(pool).count(connection) == 1, CHANGED.format("how a pool keeps connections")
        assert isinstance(RedisPy.transport_of(connection), asyncio.WriteTransport), CHANGED.format("_writer")
        assert isinstance(RedisPy.error_parser_of(connection)("ERR no"), redis.ResponseError), CHANGED.format("_parser")
    finally:
        await connection.disconnect(nowait=True)
        await pool.release(connection)


def test_a_changed_attribute_is_told_with_the_version() -> None:
    """So that whoever raises the version knows what to mend."""
    [said] = changed(object(), ("_writer",))
    assert said.startswith(f"redis-py {redis.__version__} has changed object._writer: ")


@pytest.mark.parametrize("name", [*RedisPy.CONNECTION, *RedisPy.POOL])
def test_one_class_uses_them(name: str) -> None:
    """Elsewhere, only objects' own attributes have such names."""
    found = [
        f"{module.name}:{node.lineno}"
        for module in source_modules()
        if module.name != "ci_eventstore.connection.connections"
        for node in module.nodes
        if isinstance(node, ast.Attribute) and node.attr == name and ast.unparse(node.value) != "self"
    ]
    assert found == []
