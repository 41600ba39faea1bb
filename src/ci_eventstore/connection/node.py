"""Send commands and scripts, again if need be: the edge where redis-py's errors become ours."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass
from typing import cast

from redis import exceptions

from ci_eventstore.connection.deployments import Deployment
from ci_eventstore.connection.failures import outcome_of
from ci_eventstore.connection.link import Counters, Link
from ci_eventstore.connection.outcomes import Cause, Kind, Outcome, Patience, Renew
from ci_eventstore.connection.pipeline import Pipeline
from ci_eventstore.connection.replies import Reply, as_info, as_map, as_texts, checked_type, is_unicode
from ci_eventstore.connection.scripts import ClockReading, Script
from ci_eventstore.errors import (
    MissingRightsError,
    NotReplicatedError,
    OutcomeUnknownError,
    ReadOnlyAccessError,
    StoreError,
    StoreUnavailableError,
)

#: How long a command is tried again while the server can't be reached; a restart or a failover takes less.
PATIENCE_SECONDS = 20.0
#: The same when nothing was reached yet, so that a wrong address is reported soon.
FIRST_PATIENCE_SECONDS = 1.0
#: The same while the server refuses for a reason that passes by itself.
REFUSAL_PATIENCE_SECONDS = 10.0
#: The same while the server is out of memory or can't save, which seldom passes by itself.
FULL_PATIENCE_SECONDS = 5.0
#: The same while the server is loading its data.
LOADING_PATIENCE_SECONDS = 300.0
#: Commands that write, of those that aren't scripts.
WRITES = frozenset({"SET", "DEL", "SADD", "SREM", "HSET", "HDEL", "ZREM"})
#: How long a write waits for the replicas; below the socket's timeout.
REPLICATION_SECONDS = 2.0


class Node:
    """A server of one deployment: a pool for commands, another for listening."""

    def __init__(
        self, deployment: Deployment, counters: Counters, replicas: int = 0, *, is_read_only: bool = False
    ) -> None:
        """Nothing is connected yet; with `is_read_only`, nothing is ever sent that writes."""
        self._is_read_only = is_read_only
        #: How many replicas must have a write before it is acknowledged.
        self.replicas = replicas
        self.link = Link(deployment, _patience_of, counters)
        self._clock: ClockReading | None = None
        #: Whether it was last seen as a "master" or a "replica"; "" if that is unknown.
        self.role = ""

    def go_on_as(self, before: "Node") -> None:
        """Take over what another event loop's node knows of the server."""
        self.role = before.role
        self.link.was_reached = before.link.was_reached

    async def close(self) -> None:
        """Close all connections; calls without an answer raise NotInitializedError."""
        await self.link.close()

    async def info(self) -> dict[str, str]:
        """Return the server's `INFO`; nothing if it doesn't know the command, or doesn't allow it."""
        try:
            return as_info(await self.read("INFO"))
        except MissingRightsError:
            return {}
        except StoreError as error:
            if isinstance(error.__cause__, exceptions.ResponseError) and "unknown command" in str(error):
                return {}
            raise

    async def read(self, *command: str | int | bytes) -> Reply:
        """Send a command that changes nothing, or does no harm if it is done twice; StoreUnavailableError."""
        if self._is_read_only and command[0] in WRITES:
            raise ReadOnlyAccessError(str(command[0]))
        return await self.link.persist(
            Kind.READ, str(command[0]), lambda _: self.link.commands.execute_command(*command), words=command
        )

    async def read_many(self, commands: Sequence[Sequence[str | int | bytes]]) -> list[Reply]:
        """Send several reads together and return their replies; other clients' commands may come between them.

        WRONG_TYPE is the reply for a key of another type.
        """
        return await self._pipeline(commands, is_transaction=False)

    async def read_at_once(self, commands: Sequence[Sequence[str | int | bytes]]) -> list[Reply]:
        """Send several reads of one slot as a transaction: nothing comes between them; WRONG_TYPE as in `read_many`."""
        return await self._pipeline(commands, is_transaction=True)

    async def _pipeline(self, commands: Sequence[Sequence[str | int | bytes]], *, is_transaction: bool) -> list[Reply]:
        async def send(is_again: bool) -> list[Reply]:
            if is_again:
                pipeline = self.link.commands.pipeline(transaction=is_transaction)
                for command in commands:
                    pipeline.execute_command(*command)
                # redis-py would put the command before the server's words.
                replies = await pipeline.execute(raise_on_error=False)
            elif is_transaction:
                *queued, replies = await self.link.bulk.execute_all([("MULTI",), *commands, ("EXEC",)])
                if isinstance(replies, Exception):
                    raise next((reply for reply in queued if isinstance(reply, Exception)), replies)
            else:
                replies = await self.link.bulk.execute_all(commands)
            return [checked_type(reply) for reply in replies]

        if not commands:
            return []
        return cast(list[Reply], await self.link.persist(Kind.READ, "pipeline", send, words=commands[0]))

    async def scan_pages(self, command: str, *arguments: str) -> AsyncIterator[list[str]]:
        """Yield what `SCAN`, `SSCAN` or `HSCAN` finds, page by page; some of it may come twice.

        `arguments` stand around the cursor: a key before it, options after it. What isn't UTF-8 is left out of keys'
        names, none of which is then the store's, and escaped as Python does in others.
        """
        before, options = ((), arguments) if command == "SCAN" else (arguments[:1], arguments[1:])
        cursor = b"0"
        while True:
            cursor, found = await self.read(command, *before, cursor, *options, "COUNT", 1000)
            page = as_texts(found)
            yield [text for text in page if is_unicode(text)] if command == "SCAN" else page
            if cursor == b"0":
                return

    async def read_together(self, *command: str | int | bytes) -> Reply:
        """Send a read, together with others that are asked for at the same time; a cancelled one disturbs no other."""
        return await self.link.persist(
            Kind.READ, str(command[0]), lambda is_again: self._send(self.link.reads, command, is_again), words=command
        )

    async def look_at_role(self) -> None:
        """Make all connections anew if the server was a primary and is a replica now, as after a failover."""
        sent_at = time.monotonic()
        try:
            said = await self.read_together("HELLO")
        except StoreError:
            return
        role = as_map(said).get("role", "")
        if self.role == "master" and role != "master":
            self.link.renew(Renew.ALL, sent_at)
        else:
            self.role = role

    async def run(
        self,
        script: Script,
        keys: Sequence[str | bytes],
        arguments: Iterable[str | int | bytes],
        *,
        patience_seconds: float | None = None,
    ) -> Reply:
        """Run a script. It is sent again after a lost reply, so it must know its call by an argument.

        It takes at most `patience_seconds`; if that isn't given, as long as the server's state asks for.
        OutcomeUnknownError: no answer came; it was executed before this is raised, or never will be.
        StoreUnavailableError: it wasn't and won't be.
        """
        if self._is_read_only:
            raise ReadOnlyAccessError(script.name)
        started, clock = time.monotonic(), self._clock
        if clock is None or not clock.is_fresh(started):
            clock = await self._read_clock(patience_seconds, keys[:1])
            started = time.monotonic()
        deadline_ms = clock.deadline_ms(started, PATIENCE_SECONDS if patience_seconds is None else patience_seconds)
        values = [*keys, *arguments, deadline_ms]
        failure = None
        if not self.replicas and not self.link.is_closed and patience_seconds is None:
            # Fast path for almost every call; without it, creating a job is 10 % slower.
            try:
                reply = await self.link.scripts.execute("EVALSHA", script.sha, len(keys), *values)
            except exceptions.RedisError as error:
                failure = error
            else:
                self.link.was_reached = True
                return reply
        run = _Run(script, len(keys), values, clock, failure, patience_seconds)
        return await self._insist(run, started)

    async def _insist(self, run: "_Run", started: float) -> Reply:
        """Run a script until there is an answer, or patience is over."""

        async def send(is_again: bool) -> Reply:
            failure, run.failure = run.failure, None
            try:
                return await self._evaluate(run, is_again, failure)
            except exceptions.ResponseError as error:
                if outcome_of(error, Kind.SCRIPT).cause is not Cause.EXPIRED:
                    raise
            self._clock = None
            try:
                run.clock = await self._read_clock(run.patience_seconds, run.values[:1])
            except StoreUnavailableError as error:
                # An earlier try may have taken effect, and only lost its answer.
                raise OutcomeUnknownError(run.script.name) from error
            seconds = PATIENCE_SECONDS if run.patience_seconds is None else run.patience_seconds
            run.values[-1] = run.clock.deadline_ms(time.monotonic(), seconds)
            return await self._evaluate(run, is_again)

        try:
            return await self.link.persist(
                Kind.SCRIPT,
                run.script.name,
                send,
                started=started,
                patience_seconds=run.patience_seconds,
                words=run.values[:1],
            )
        except OutcomeUnknownError:
            deadline_ms = cast(int, run.values[-1])
            await asyncio.sleep(run.clock.seconds_until_past(deadline_ms, time.monotonic()))
            raise

    async def _evaluate(self, run: "_Run", is_again: bool, failure: exceptions.RedisError | None = None) -> Reply:
        script = run.script
        try:
            if failure is not None:
                raise failure
            return await self._write(script.name, ("EVALSHA", script.sha, run.key_count, *run.values), is_again)
        except exceptions.ResponseError as error:
            if outcome_of(error, Kind.SCRIPT).cause is not Cause.NO_SCRIPT:
                raise
            return await self._write(script.name, ("EVAL", script.source, run.key_count, *run.values), is_again)

    async def _send(self, pipeline: Pipeline, command: Sequence[str | int | bytes], is_again: bool) -> Reply:
        """Send a command with others; again on a connection of its own, lest it share their fate again and again."""
        if is_again:
            return await self.link.commands.execute_command(*command)
        return await pipeline.execute(*command)

    async def _write(self, what: str, command: Sequence[str | int | bytes], is_again: bool) -> Reply:
        """Send a write; with replicas, WAIT for them on the same connection, since it is that connection's writes."""
        if not self.replicas:
            return await self._send(self.link.scripts, command, is_again)
        pipeline = self.link.commands.pipeline(transaction=False)
        pipeline.execute_command(*command)
        pipeline.execute_command("WAIT", self.replicas, int(REPLICATION_SECONDS * 1000))
        reply, answered = await pipeline.execute(raise_on_error=False)
        if isinstance(reply, Exception):
            raise reply
        if isinstance(answered, Exception):
            self.link.renew(outcome_of(answered, Kind.WAIT).renew, time.monotonic())
            raise NotReplicatedError(what, self.replicas, 0) from answered
        if answered < self.replicas:
            raise NotReplicatedError(what, self.replicas, answered)
        return reply

    async def _read_clock(self, patience_seconds: float | None, words: Sequence[str | int | bytes]) -> ClockReading:
        """Return a reading of the server's clock, from which the deadline of a command with these words is counted."""
        asked_at = time.monotonic()
        if self._clock is None or not self._clock.is_fresh(asked_at):
            seconds, micros = await self.link.persist(
                Kind.READ,
                "TIME",
                lambda _: self.link.commands.execute_command("TIME"),
                patience_seconds=patience_seconds,
                words=words,
            )
            self._clock = ClockReading(int(seconds) * 1000 + int(micros) // 1000, asked_at, time.monotonic())
        return self._clock


@dataclass(slots=True)
class _Run:
    """One call of a script."""

    script: Script
    key_count: int
    #: Keys, arguments, and the deadline, which changes when the script came too late.
    values: list[str | int | bytes]
    clock: ClockReading
    #: That of a try already made.
    failure: exceptions.RedisError | None
    patience_seconds: float | None


def _patience_of(outcome: Outcome, was_reached: bool) -> float:
    """Return how long a command that failed so is tried; `was_reached` says whether the server ever answered."""
    match outcome.patience:
        case Patience.NONE:
            return 0.0
        case Patience.LOADING:
            return LOADING_PATIENCE_SECONDS
        case Patience.FULL:
            return min(FULL_PATIENCE_SECONDS, PATIENCE_SECONDS)
        case Patience.REFUSAL:
            return min(REFUSAL_PATIENCE_SECONDS, PATIENCE_SECONDS)
        case Patience.OUTAGE:
            return PATIENCE_SECONDS if was_reached else FIRST_PATIENCE_SECONDS
