"""What all connections of this program have in common."""

import importlib.metadata

import pytest
from redis.asyncio.connection import Connection
from redis.driver_info import DriverInfo

from ci_eventstore.connection.connections import client_of
from ci_eventstore.connection.deployments import Deployment


def test_connections_look_up_the_version_of_redis_py_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not each of them, in the file system."""
    asked: list[str] = []
    version = importlib.metadata.version
    pool = client_of(Deployment("here", Connection, {"host": "localhost"}), 3).connection_pool

    def ask(name: str) -> str:
        asked.append(name)
        return version(name)

    monkeypatch.setattr("importlib.metadata.version", ask)
    connections = [pool.make_connection() for _ in range(3)]
    assert asked == []
    assert len({id(connection.driver_info) for connection in connections}) == 1


def test_a_clients_own_name_for_itself_stays() -> None:
    """A ready client may say to the server what it is part of."""
    pool = client_of(
        Deployment("here", Connection, {"host": "localhost", "driver_info": DriverInfo("ours")}), 1
    ).connection_pool
    assert pool.make_connection().driver_info.formatted_name == "ours"
