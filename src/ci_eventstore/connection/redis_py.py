"""What the store needs of redis-py that redis-py doesn't promise: its private attributes, in one class."""

import asyncio
from collections.abc import Callable
from typing import Any


class RedisPy:
    """Private attributes of redis-py's asyncio connections and pools. A version of redis-py may change each of them.

    Nobody else uses any; `tests/integration/store/test_redis_py.py` says which version changed one.
    """

    #: By the class that has them.
    CONNECTION = ("_reader", "_writer", "_parser")
    POOL = ("_available_connections", "_in_use_connections")

    @staticmethod
    def transport_of(connection: Any) -> asyncio.WriteTransport | None:
        """Return the transport of a connected connection; None if it isn't a stream's, as those of `fakeredis`."""
        writer = getattr(connection, "_writer", None)
        return writer.transport if isinstance(writer, asyncio.StreamWriter) else None

    @staticmethod
    def forget_streams(connection: Any) -> None:
        """Have a connection close nothing, since its event loop was closed."""
        connection._reader = connection._writer = None

    @staticmethod
    def error_parser_of(connection: Any) -> Callable[[str], Exception]:
        """Return what makes an exception of an error that the server replies."""
        parse_error: Callable[[str], Exception] = connection._parser.parse_error
        return parse_error

    @staticmethod
    def connections_of(pool: Any) -> list[Any]:
        """Return all connections of a pool, those in use too."""
        return [*pool._available_connections, *pool._in_use_connections]
