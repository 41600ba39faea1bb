"""Send commands and scripts: the one module that configures redis-py, and the edge where its errors become ours."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from typing import Any, cast
from weakref import WeakSet

from hiredis import pack_command
from redis import exceptions
from redis.asyncio import Redis
from redis.asyncio.connection import BlockingConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.maint_notifications import MaintNotificationsConfig

from ci_eventstore.errors import (
    AuthenticationError,
    NotInitializedError,
    NotReplicatedError,
    OutcomeUnknownError,
    StoreError,
    StoreFullError,
    StoreUnavailableError,
)
from ci_eventstore.server.clock import ClockReading
from ci_eventstore.server.counters import Counters
from ci_eventstore.server.deployments import Deployment
from ci_eventstore.server.pipeline import Pipeline
from ci_eventstore.server.replies import Reply, as_info, as_texts
from ci_eventstore.server.retry import failed_start, is_passing, pauses, was_never_executed
from ci_eventstore.server.scripts import Script
from ci_eventstore.server.subscription import Subscription

logger = logging.getLogger("ci_eventstore.server")

#: How long a command is tried again while the server can't be reached; a restart takes less.
PATIENCE_SECONDS = 20.0
#: The same when nothing was reached yet, so that a wrong address is told soon.
FIRST_PATIENCE_SECONDS = 1.0
#: The same while the server says that it is loading its data.
LOADING_PATIENCE_SECONDS = 300.0
#: The same while the server is out of memory, which seldom passes by itself.
FULL_PATIENCE_SECONDS = 2.0
#: How long a write waits for the replicas; below the socket's timeout.
REPLICATION_SECONDS = 2.0
COMMAND_CONNECTIONS = 32
LISTENING_CONNECTIONS = 1000

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


class Server:
    """A server of one deployment: a pool for commands, another for listening."""

    def __init__(self, deployment: Deployment, replicas: int = 0) -> None:
        self.deployment = deployment
        #: How many replicas must have a write before it is acknowledged.
        self._replicas = replicas
        self._commands = _client(deployment, COMMAND_CONNECTIONS)
        self._listening = _client(deployment, LISTENING_CONNECTIONS)
        self._pipeline_of_scripts = Pipeline(self._commands.connection_pool)
        self._pipeline_of_reads = Pipeline(self._commands.connection_pool)
        self._reached = False
        self._closed = False
        self._clock: ClockReading | None = None
        self.counters = Counters()
        self._subscriptions: WeakSet[Subscription] = WeakSet()

    async def close(self) -> None:
        """Close all connections; what is still waiting for an answer raises NotInitializedError."""
        self._closed = True
        for subscription in list(self._subscriptions):
            await subscription.close()
        await self._commands.aclose(close_connection_pool=True)
        await self._listening.aclose(close_connection_pool=True)
        self.deployment.release()

    async def info(self) -> dict[str, str]:
        """Return what the server says of itself; nothing if it doesn't know the command, as `fakeredis`."""
        try:
            return as_info(await self.read("INFO"))
        except StoreError as error:
            if isinstance(error.__cause__, exceptions.ResponseError) and "unknown command" in str(error):
                return {}
            raise

    async def read(self, *command: str | int | bytes) -> Reply:
        """Send a command that changes nothing, or does no harm if it is done twice; StoreUnavailableError."""
        return await self._persist(command[0], lambda _: self._commands.execute_command(*command), is_write=False)

    async def read_many(self, commands: Sequence[Sequence[str | int | bytes]]) -> list[Reply]:
        """Send several reads together and return their replies; other clients' commands may come between them."""
        return await self._pipeline(commands, is_transaction=False)

    async def read_at_once(self, commands: Sequence[Sequence[str | int | bytes]]) -> list[Reply]:
        """Send several reads of one slot as a transaction: nothing comes between them."""
        return await self._pipeline(commands, is_transaction=True)

    async def _pipeline(self, commands: Sequence[Sequence[str | int | bytes]], *, is_transaction: bool) -> list[Reply]:
        async def send(is_again: bool) -> list[Reply]:
            pipeline = self._commands.pipeline(transaction=is_transaction)
            for command in commands:
                pipeline.execute_command(*command)
            return await pipeline.execute()

        return cast(list[Reply], await self._persist("pipeline", send, is_write=False))

    async def scan(self, pattern: str) -> AsyncIterator[str]:
        """Yield the keys that match a pattern. It walks all keys: for maintenance, never for a request."""
        cursor = b"0"
        while True:
            cursor, keys = await self.read("SCAN", cursor, "MATCH", pattern, "COUNT", 1000)
            for key in as_texts(keys):
                yield key
            if cursor == b"0":
                return

    async def read_together(self, *command: str | int | bytes) -> Reply:
        """Send a read, together with others that are asked for at the same time; a cancelled one disturbs no other."""
        return await self._persist(
            command[0], lambda is_again: self._send(self._pipeline_of_reads, command, is_again), is_write=False
        )

    def subscription(
        self, on_message: Callable[[str, bytes], None], on_listening: Callable[[str], None]
    ) -> Subscription:
        """Return a subscription that has no channels yet; it ends with this."""
        subscription = Subscription(self._listening.connection_pool, on_message, on_listening)
        self._subscriptions.add(subscription)
        return subscription

    async def run(
        self,
        script: Script,
        keys: Sequence[str],
        arguments: Iterable[str | int | bytes],
        *,
        patience_seconds: float | None = None,
    ) -> Reply:
        """Run a script. It is sent again after a lost reply, so it must know its call by an argument.

        It is tried again for at most `patience_seconds`, PATIENCE_SECONDS if that isn't given.
        OutcomeUnknownError: no answer came; it was executed before this is raised, or never will be.
        StoreUnavailableError: it wasn't and won't be.
        """
        started, clock = time.monotonic(), self._clock
        if clock is None or not clock.is_fresh(started):
            clock = await self._read_clock(patience_seconds)
            started = time.monotonic()
        deadline_ms = clock.deadline_ms(started, _or_default(patience_seconds))
        values = [*keys, *arguments, deadline_ms]
        failure = None
        if not self._replicas and not self._closed:
            # So nearly all calls go; without this a job's creation takes a tenth more time.
            try:
                reply = await self._pipeline_of_scripts.execute("EVALSHA", script.sha, len(keys), *values)
            except exceptions.RedisError as error:
                failure = error
            else:
                self._reached = True
                return reply
        return await self._insist(script, len(keys), values, clock, failure, started, patience_seconds)

    async def _insist(
        self,
        script: Script,
        key_count: int,
        values: list[str | int | bytes],
        clock: ClockReading,
        failure: exceptions.RedisError | None,
        started: float,
        patience_seconds: float | None,
    ) -> Reply:
        """Run a script until there is an answer, or patience is over; `failure` is that of a try already made."""
        deadline_ms = cast(int, values[-1])

        async def send(is_again: bool) -> Reply:
            nonlocal clock, deadline_ms, failure
            first, failure = failure, None
            try:
                return await self._evaluate(script, key_count, values, is_again, first)
            except exceptions.ResponseError as error:
                if not str(error).startswith("EXPIRED"):
                    raise
            self._clock = None
            try:
                clock = await self._read_clock(patience_seconds)
            except StoreUnavailableError as error:
                # An earlier try may have taken effect, and only lost its answer.
                raise OutcomeUnknownError(script.name) from error
            deadline_ms = values[-1] = clock.deadline_ms(time.monotonic(), _or_default(patience_seconds))
            return await self._evaluate(script, key_count, values, is_again)

        try:
            return await self._persist(
                script.name, send, is_write=True, started=started, patience_seconds=patience_seconds
            )
        except OutcomeUnknownError:
            await asyncio.sleep(clock.seconds_until_past(deadline_ms, time.monotonic()))
            raise

    async def _evaluate(
        self,
        script: Script,
        key_count: int,
        values: Sequence[str | int | bytes],
        is_again: bool,
        failure: exceptions.RedisError | None = None,
    ) -> Reply:
        try:
            if failure is not None:
                raise failure
            return await self._write(script.name, ("EVALSHA", script.sha, key_count, *values), is_again)
        except exceptions.NoScriptError:
            return await self._write(script.name, ("EVAL", script.source, key_count, *values), is_again)

    async def _send(self, pipeline: Pipeline, command: Sequence[str | int | bytes], is_again: bool) -> Reply:
        """Send a command with others; again on a connection of its own, lest it share their fate again and again."""
        if is_again:
            return await self._commands.execute_command(*command)
        return await pipeline.execute(*command)

    async def _write(self, what: str, command: Sequence[str | int | bytes], is_again: bool) -> Reply:
        """Send a write; with replicas, WAIT for them on the same connection, since it is that connection's writes."""
        if not self._replicas:
            return await self._send(self._pipeline_of_scripts, command, is_again)
        pipeline = self._commands.pipeline(transaction=False)
        pipeline.execute_command(*command)
        pipeline.execute_command("WAIT", self._replicas, int(REPLICATION_SECONDS * 1000))
        reply, answered = await pipeline.execute(raise_on_error=False)
        for result in (reply, answered):
            if isinstance(result, Exception):
                raise result
        if answered < self._replicas:
            raise NotReplicatedError(what, self._replicas, answered)
        return reply

    async def _read_clock(self, patience_seconds: float | None) -> ClockReading:
        """Return a reading of the server's clock, from which the deadline of a command is counted."""
        asked_at = time.monotonic()
        if self._clock is None or not self._clock.is_fresh(asked_at):
            seconds, micros = await self._persist(
                "TIME",
                lambda _: self._commands.execute_command("TIME"),
                is_write=False,
                patience_seconds=patience_seconds,
            )
            self._clock = ClockReading(int(seconds) * 1000 + int(micros) // 1000, asked_at, time.monotonic())
        return self._clock

    async def _persist(
        self,
        what: object,
        send: Callable[[bool], Awaitable[Reply]],
        *,
        is_write: bool,
        started: float | None = None,
        patience_seconds: float | None = None,
    ) -> Reply:
        """Send until there is an answer, or patience is over; `send` is told whether it has been sent before."""
        started, may_have_arrived = started or time.monotonic(), False
        for turn, pause in enumerate(pauses()):
            if self._closed:
                raise NotInitializedError
            try:
                reply = await send(turn > 0)
            except exceptions.RedisError as error:
                may_have_arrived = may_have_arrived or not was_never_executed(error)
                if not is_passing(error) or time.monotonic() - started + pause > self._patience(
                    error, patience_seconds
                ):
                    self.counters.errors += 1
                    raise _translate(error, what, self.deployment.name, is_write and may_have_arrived) from error
                self.counters.retries += 1
                logger.debug("sending again", extra={"command": str(what), "error": str(error)})
            else:
                self._reached = True
                return reply
            await asyncio.sleep(pause)
        raise AssertionError("pauses never end")

    def _patience(self, error: Exception, patience_seconds: float | None) -> float:
        if isinstance(error, exceptions.BusyLoadingError):
            patience = LOADING_PATIENCE_SECONDS
        elif isinstance(error, exceptions.OutOfMemoryError):
            patience = FULL_PATIENCE_SECONDS
        else:
            patience = PATIENCE_SECONDS if self._reached else FIRST_PATIENCE_SECONDS
        return patience if patience_seconds is None else min(patience, patience_seconds)


class _Connection:
    """What is done otherwise than by redis-py's connections, whichever of them is used."""

    def pack_command(self, *args: Any) -> list[bytes]:
        """Return the command as the server reads it; in C, as redis-py does in its synchronous connections only."""
        return [pack_command(args)]

    async def send_packed_command(self: Any, command: Any, check_health: bool = True) -> None:
        """Send a command. On Python 3.11 the `wait_for` that redis-py sends under may swallow a cancellation."""
        if not self.is_connected:
            await self.connect()
        patience, self.socket_timeout = self.socket_timeout, None
        try:
            async with asyncio.timeout(patience):
                await super().send_packed_command(command, check_health)  # type: ignore[misc]
        except TimeoutError:
            raise exceptions.TimeoutError("Timeout writing to socket") from None
        finally:
            self.socket_timeout = patience


def _or_default(patience_seconds: float | None) -> float:
    return PATIENCE_SECONDS if patience_seconds is None else patience_seconds


def _client(deployment: Deployment, connections: int) -> Redis:
    options = {**deployment.connection_options, **PINNED, "retry": Retry(NoBackoff(), 0)}
    options.pop("max_connections", None)
    connection_class = type("Connection", (_Connection, deployment.connection_class), {})
    pool = BlockingConnectionPool(max_connections=connections, timeout=10, connection_class=connection_class, **options)
    client = Redis(connection_pool=pool)
    # Replies are read as the protocol says, in `replies`, whatever shapes a version of redis-py makes of them.
    client.response_callbacks.clear()
    return client


def _translate(error: exceptions.RedisError, what: object, where: str, is_unknown: bool) -> Exception:
    """Return our error for one of redis-py's; one that has no meaning of its own here is returned as it is."""
    if isinstance(error, exceptions.AuthenticationError | exceptions.AuthorizationError) or str(error).startswith(
        ("NOAUTH", "WRONGPASS", "NOPERM")
    ):
        return AuthenticationError(f"{where} refuses access: {error}. Put user and password into the URL")
    if isinstance(error, exceptions.OutOfMemoryError):
        return StoreFullError(f"{where} is out of memory and takes no writes: raise its maxmemory, or delete jobs")
    start = failed_start(error)
    if start is not None and not is_unknown:
        return start
    if is_passing(error) or is_unknown:
        return OutcomeUnknownError(str(what)) if is_unknown else StoreUnavailableError(f"{where}: {error}")
    return StoreError(f"{where}, {what}: {error}")
