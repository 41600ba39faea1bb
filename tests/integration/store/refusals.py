"""What has a real server refuse commands for a while."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from ci_eventstore.errors import StoreFullError, StoreUnavailableError
from tests.servers import RealServer


@asynccontextmanager
async def setting(admin: Redis, name: str, value: str) -> AsyncIterator[None]:
    before = (await admin.config_get(name))[name]
    await admin.config_set(name, value)
    try:
        yield
    finally:
        await admin.config_set(name, before or "")


@asynccontextmanager
async def out_of_memory(admin: Redis, server: RealServer) -> AsyncIterator[None]:
    async with setting(admin, "maxmemory", "1"):
        yield


@asynccontextmanager
async def without_replicas(admin: Redis, server: RealServer) -> AsyncIterator[None]:
    async with setting(admin, "min-replicas-to-write", "1"):
        yield


@asynccontextmanager
async def unable_to_save(admin: Redis, server: RealServer) -> AsyncIterator[None]:
    """Have a folder where the snapshot belongs."""
    async with setting(admin, "save", "3600 1"):
        in_the_way = server.folder / "dump.rdb"
        in_the_way.unlink(missing_ok=True)
        in_the_way.mkdir()
        (in_the_way / "file").touch()
        await admin.bgsave()
        await saved(admin, "err")
        try:
            yield
        finally:
            (in_the_way / "file").unlink()
            in_the_way.rmdir()
            await admin.bgsave()
            await saved(admin, "ok")


async def saved(admin: Redis, status: str) -> None:
    async with asyncio.timeout(30):
        while (await admin.info("persistence"))["rdb_last_bgsave_status"] != status:  # noqa: ASYNC110 - it has no event
            await asyncio.sleep(0.05)


@asynccontextmanager
async def busy(admin: Redis, server: RealServer) -> AsyncIterator[None]:
    """Keep the server in a script of somebody else's."""
    # redis-py would send a script again that takes longer than its timeout.
    other = Redis(unix_socket_path=str(server.socket_path), socket_timeout=None, retry=Retry(NoBackoff(), 0))
    async with setting(admin, "busy-reply-threshold", "1"), other:
        endless = asyncio.create_task(other.execute_command("EVAL", "while true do end", 0))
        await asyncio.sleep(0.1)
        try:
            yield
        finally:
            await admin.execute_command("SCRIPT", "KILL")
            await asyncio.gather(endless, return_exceptions=True)


@asynccontextmanager
async def demoted(admin: Redis, server: RealServer) -> AsyncIterator[None]:
    await admin.execute_command("REPLICAOF", "127.0.0.1", 1)
    try:
        yield
    finally:
        await admin.execute_command("REPLICAOF", "NO", "ONE")


@asynccontextmanager
async def cut_off_replica(admin: Redis, server: RealServer) -> AsyncIterator[None]:
    async with setting(admin, "replica-serve-stale-data", "no"), demoted(admin, server):
        yield


@asynccontextmanager
async def loading(admin: Redis, server: RealServer) -> AsyncIterator[None]:
    """Have the server read its data again, slowly."""
    await admin.execute_command("DEBUG", "POPULATE", 300)
    async with (
        setting(admin, "key-load-delay", "10000"),
        setting(admin, "loading-process-events-interval-bytes", "1024"),
    ):
        await admin.execute_command("CONFIG", "SET", "save", "")
        async with Redis(unix_socket_path=str(server.socket_path)) as other:
            reload = asyncio.create_task(other.execute_command("DEBUG", "RELOAD"))
            await asyncio.sleep(0.3)
            try:
                yield
            finally:
                await asyncio.gather(reload, return_exceptions=True)


@asynccontextmanager
async def without_a_free_connection(admin: Redis, server: RealServer) -> AsyncIterator[None]:
    """Cut all connections but the administrator's, and let nobody else in."""
    async with setting(admin, "maxclients", "1"):
        await admin.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        yield


State = Callable[[Redis, RealServer], Any]
#: What is refused, how, and what it is told with when it lasts.
PASSING: dict[str, tuple[State, str, type[Exception]]] = {
    "OOM": (out_of_memory, "OOM command not allowed", StoreFullError),
    "NOREPLICAS": (without_replicas, "NOREPLICAS Not enough good replicas to write.", StoreUnavailableError),
    "MISCONF": (unable_to_save, "MISCONF", StoreUnavailableError),
    "BUSY": (busy, "is busy running a script", StoreUnavailableError),
    "READONLY": (demoted, "READONLY You can't write against a read only replica.", StoreUnavailableError),
    "MASTERDOWN": (cut_off_replica, "MASTERDOWN Link with MASTER is down", StoreUnavailableError),
    "LOADING": (loading, "is loading the dataset in memory", StoreUnavailableError),
    "max clients": (without_a_free_connection, "max number of clients reached", StoreUnavailableError),
}
