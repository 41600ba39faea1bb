"""Make connections: the one module that configures redis-py, and that knows its private attributes."""

import asyncio
import logging
from collections.abc import Callable
from functools import cache, lru_cache
from importlib.metadata import version
from typing import Any
from weakref import WeakKeyDictionary

from hiredis import pack_command
from redis import exceptions
from redis.asyncio import Redis
from redis.asyncio.connection import BlockingConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.driver_info import DriverInfo
from redis.maint_notifications import MaintNotificationsConfig

from ci_eventstore.connection.deployments import Deployment
from ci_eventstore.connection.failures import note_reply, note_unreached, reply_of
from ci_eventstore.connection.sentinels import Sentinels
from ci_eventstore.connection.tls import SharedContext, add_hint
from ci_eventstore.tasks import begin

logger = logging.getLogger("ci_eventstore.connection")


class RedisPy:
    """Private attributes of redis-py's asyncio connections and pools. A version of redis-py may change each of them.

    Nobody else uses any; `tests/integration/store/test_redis_py.py` says which version changed one.
    """

    #: By the class that has them.
    CONNECTION = ("_reader", "_writer", "_parser")
    POOL = ("_available_connections", "_in_use_connections")

    @staticmethod
    def transport_of(connection: Any) -> asyncio.WriteTransport | None:
        """Return the transport of a connection; None if it isn't connected, or has none, as those of `fakeredis`."""
        writer = connection._writer
        return writer.transport if isinstance(writer, asyncio.StreamWriter) else None

    @staticmethod
    def writer_of(connection: Any) -> Any:
        """Return what a connection writes to; None if it isn't connected."""
        return connection._writer

    @staticmethod
    def write_plainly(connection: Any, data: bytes) -> None:
        """Write on a connection that has no transport."""
        connection._writer.writelines([data])

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


#: Set on every connection, whatever the URL or the given client says.
PINNED: dict[str, Any] = {
    "protocol": 2,
    "decode_responses": False,
    "encoding": "utf-8",
    "encoding_errors": "strict",
    "socket_timeout": 10.0,
    "socket_connect_timeout": 5.0,
    "health_check_interval": 0,
    "retry_on_timeout": False,
    "retry_on_error": [],
    "maint_notifications_config": MaintNotificationsConfig(enabled=False),
}


def client_of(deployment: Deployment, connections: int, sentinels: Sentinels | None = None) -> Redis:
    """Return a client with a pool of its own; nothing is connected yet. Sentinels say where its server is."""
    connection_class, options = _class_and_options(deployment, sentinels)
    pool = RenewablePool(max_connections=connections, timeout=10, connection_class=connection_class, **options)
    client = Redis(connection_pool=pool)
    # Replies are read as the protocol says, in `replies`, whatever shapes a version of redis-py makes of them.
    client.response_callbacks.clear()
    return client


def sentinels_of(deployment: Deployment, on_move: Callable[[], None]) -> Sentinels | None:
    """Return the Sentinels that say where a deployment's server is, if there are any; see `Sentinels`."""
    if deployment.sentinels is None:
        return None
    connection_class, options = _class_and_options(deployment.sentinels, None)
    return Sentinels(deployment, lambda host, port: connection_class(host=host, port=port, **options), on_move)


def _class_and_options(deployment: Deployment, sentinels: Sentinels | None) -> tuple[type[Any], dict[str, Any]]:
    options = {**deployment.connection_options, **PINNED, "retry": Retry(NoBackoff(), 0)}
    options.pop("max_connections", None)
    if not options.keys() & {"lib_name", "lib_version"}:
        options.setdefault("driver_info", _driver_info())
    own = {"sentinels": sentinels, "context": SharedContext(options)}
    return type("Connection", (_Connection, deployment.connection_class), own), options


class RenewablePool(BlockingConnectionPool):
    """A pool whose connections are made anew when the address may lead to another server.

    Once it is closed it has no open connection, and opens none: neither for who waits for one, nor for who comes later.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._is_closed = False
        self._returning: set[asyncio.Task[None]] = set()
        self._generation = 0
        #: Of connections that were handed out: when, counted in renewals.
        self._handed_out: WeakKeyDictionary[Any, int] = WeakKeyDictionary()

    def renew(self) -> None:
        """Hand out only connections that are made from now on; those in use stay as they are until they come back."""
        self._generation += 1

    def abandon(self) -> None:
        """Let go of all connections, whose event loop was closed: they can't be closed as usual."""
        for connection in RedisPy.connections_of(self):
            transport = RedisPy.transport_of(connection)
            RedisPy.forget_streams(connection)
            # Its transport would have the loop close the socket. uvloop has closed it already, and hands out none.
            opened = None if transport is None else transport.get_extra_info("socket")
            if (inner := getattr(opened, "_sock", None)) is not None:
                inner.close()

    async def get_connection(self, *args: Any, **options: Any) -> Any:
        """Return a connection that is connected; of what fails here it is noted that no command was sent."""
        try:
            self._check_open()
            connection = await super().get_connection(*args, **options)  # type: ignore[no-untyped-call]
            try:
                generation = self._generation
                if self._handed_out.get(connection, generation) != generation:
                    await connection.disconnect(nowait=True)
                    await connection.connect()
                self._check_open()
            except BaseException:
                await self.release(connection)
                raise
        except exceptions.RedisError as error:
            note_unreached(error)
            raise
        self._handed_out[connection] = generation
        return connection

    def _check_open(self) -> None:
        if self._is_closed:
            raise exceptions.ConnectionError("the connections to this server were closed")

    async def release(self, connection: Any) -> None:
        """Take a connection back, soon if the caller is cancelled while it waits for its turn: it would be dropped."""
        if self._is_closed:
            await connection.disconnect(nowait=True)
        try:
            await super().release(connection)
        except asyncio.CancelledError:
            if connection in self._in_use_connections:
                task = begin(self.release(connection), logger, "giving a connection back")
                self._returning.add(task)
                task.add_done_callback(self._returning.discard)
            raise

    async def aclose(self) -> None:
        """Close all connections, at once: to a server that stands still, their last bytes would never leave."""
        self._is_closed = True
        for connection in RedisPy.connections_of(self):
            if (transport := RedisPy.transport_of(connection)) is not None:
                transport.abort()
        await super().aclose()


class _Connection:
    """Behaviour that differs from redis-py's connections, whichever of their classes is used."""

    #: They say where the server is; None: its address is known.
    sentinels: Sentinels | None
    context: SharedContext

    def set_parser(self: Any, parser_class: type[Any]) -> None:
        """Have errors keep the server's own words."""
        super().set_parser(_parser_of(parser_class))  # type: ignore[misc, arg-type]

    def pack_command(self, *args: Any) -> list[bytes]:
        """Return the command as the server reads it; in C, as redis-py does in its synchronous connections only."""
        return [pack_command(args)]

    async def connect(self: Any) -> None:
        """Connect; of what fails it is noted that no command was sent, and credentials are taken out of its words."""
        try:
            self.context.give_to(self)
            if self.sentinels is None:
                await super().connect()  # type: ignore[misc]
            else:
                await self.sentinels.lead(self, super().connect)  # type: ignore[misc]
        except BaseException as error:
            # redis-py leaves a connection open on which nobody has finished introducing this process.
            await self.disconnect(nowait=True)
            if isinstance(error, exceptions.RedisError):
                note_unreached(error)
                add_hint(self, error)
                self._hide_credentials(error)
            raise

    async def disconnect(self: Any, nowait: bool = False, **given: Any) -> None:
        """Close the connection; where nobody waits for that, cut it off: TLS says goodbye for as long as it takes."""
        if nowait and (transport := RedisPy.transport_of(self)) is not None:
            transport.abort()
        await super().disconnect(nowait, **given)  # type: ignore[misc]

    def _hide_credentials(self: Any, error: exceptions.RedisError) -> None:
        """Servers repeat the arguments of a command that they don't know, that of `AUTH` included."""
        if self.password:
            error.args = tuple(str(part).replace(self.password, "***") for part in error.args)
            reply = reply_of(error)
            if reply is not None:
                note_reply(error, reply.replace(self.password, "***"))

    async def send_packed_command(self: Any, command: Any, check_health: bool = True) -> None:
        """Send a command, unless the connection was closed: only a pool connects. Several tasks may send at once.

        redis-py sends under `wait_for`, which swallows some cancellations on Python 3.11; and whoever fails there
        closes the connection, even if it was made anew meanwhile.
        """
        writer = RedisPy.writer_of(self)
        if writer is None:
            raise exceptions.ConnectionError("Connection closed.")
        try:
            async with asyncio.timeout(self.socket_timeout):
                writer.writelines([command] if isinstance(command, bytes) else command)
                await writer.drain()
        except BaseException as error:
            if RedisPy.writer_of(self) is writer:
                await self.disconnect(nowait=True)
            if isinstance(error, TimeoutError):
                raise exceptions.TimeoutError("Timeout writing to socket") from None
            if isinstance(error, OSError):
                raise exceptions.ConnectionError(f"Error while writing to socket: {error}") from error
            raise


class _Parser:
    """Makes redis-py's errors of the server's, and keeps the server's words."""

    @classmethod
    def parse_error(cls, response: str) -> Exception:
        """Return the error for an error reply."""
        try:
            error: Exception = super().parse_error(response)  # type: ignore[misc]
        except (ValueError, TypeError):
            # Some classes of redis-py's take the text to pieces, which it may not have.
            error = exceptions.ResponseError(response)
        note_reply(error, response)
        return error


#: The name of connections beside "redis-py": by the format's number an upgrade tells programs apart.
DRIVER = "ci-eventstore-f5"


@cache
def _driver_info() -> DriverInfo:
    """Return how connections introduce themselves to the server.

    Made once: each connection would look up versions in the file system, for a millisecond.
    """
    return DriverInfo().add_upstream_driver(DRIVER, version("ci-eventstore"))


@lru_cache
def _parser_of(parser_class: type[Any]) -> type[Any]:
    return parser_class if issubclass(parser_class, _Parser) else type("Parser", (_Parser, parser_class), {})
