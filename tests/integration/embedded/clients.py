"""Clients of an embedded server."""

from redis.asyncio import Redis
from redis.asyncio.connection import ConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from ci_eventstore.embedded import EmbeddedConnection, EmbeddedServer


def client_of(server: EmbeddedServer) -> Redis:
    """Return a client that repeats nothing by itself."""
    pool = ConnectionPool(connection_class=EmbeddedConnection, server=server, retry=Retry(NoBackoff(), 0))
    return Redis.from_pool(pool)
