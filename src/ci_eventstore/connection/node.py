"""Send commands and scripts, again if need be: the edge where redis-py's errors become ours."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass, field
from typing import cast

from redis import exceptions

from ci_eventstore.connection.deployments import Deployment
from ci_eventstore.connection.failures import note_unreached, outcome_of, tag_in
from ci_eventstore.connection.link import Link
from ci_eventstore.connection.outcomes import Cause, Kind, Outcome, Patience, Renew
from ci_eventstore.connection.replies import Reply, as_info, as_map, as_texts, checked_type, is_unicode
from ci_eventstore.connection.scripts import ClockReading, Script
from ci_eventstore.connection.way import Command, Counters, Target, Way, in_a_hurry
from ci_eventstore.errors import (
    MissingRightsError,
    NotReplicatedError,
    OutcomeUnknownError,
    ReadOnlyAccessError,
    StoreError,
    StoreUnavailableError,
)
from ci_eventstore.keys import replicated_key

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


class Sender:
    """Sends commands and scripts by a way, again and again if need be."""

    def __init__(self, way: Way, replicas: int = 0, *, is_read_only: bool = False) -> None:
        """With `is_read_only`, nothing is ever sent that writes."""
        self._way = way
        self._is_read_only = is_read_only
        #: How many replicas must have a write before it is acknowledged.
        self.replicas = replicas

    @property
    def is_closed(self) -> bool:
        """Whether nothing more is sent."""
        return self._way.is_closed

    async def read(self, *command: str | int | bytes) -> Reply:
        """Send a command that changes nothing, or does no harm if it is done twice; StoreUnavailableError."""
        if self._is_read_only and command[0] in WRITES:
            raise ReadOnlyAccessError(str(command[0]))
        return await self._way.persist(
            Kind.READ, str(command[0]), lambda target, _: target.alone(*command), words=command
        )

    async def read_many(self, commands: Sequence[Command]) -> list[Reply]:
        """Send several reads together and return their replies; other clients' commands may come between them.

        WRONG_TYPE is the reply for a key of another type.
        """
        return await self._pipeline(commands, is_transaction=False)

    async def read_at_once(self, commands: Sequence[Command]) -> list[Reply]:
        """Send several reads of one slot as a transaction: nothing comes between them; WRONG_TYPE as in `read_many`."""
        return await self._pipeline(commands, is_transaction=True)

    async def _pipeline(self, commands: Sequence[Command], *, is_transaction: bool) -> list[Reply]:
        async def send(target: Target, is_again: bool) -> list[Reply]:
            replies = await (target.transaction if is_transaction else target.many)(commands, alone=is_again)
            return [checked_type(reply) for reply in replies]

        if not commands:
            return []
        return cast(list[Reply], await self._way.persist(Kind.READ, "pipeline", send, words=commands[0]))

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
        if self._is_read_only and command[0] in WRITES:
            raise ReadOnlyAccessError(str(command[0]))
        # Again on a connection of its own, lest it share the fate of the others again and again.
        return await self._way.persist(
            Kind.READ,
            str(command[0]),
            lambda target, is_again: (target.alone if is_again else target.with_reads)(*command),
            words=command,
        )

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
        started, target = time.monotonic(), self._way.target
        if target.clock is None or not target.clock.is_fresh(started):
            await self._read_clock(patience_seconds, keys[:1])
            started, target = time.monotonic(), self._way.target
        clock, run = target.clock, None
        values: list[str | int | bytes] = [*keys, *arguments, 0]
        if clock is not None and not self.replicas and not self._way.is_closed and patience_seconds is None:
            # Fast path for almost every call; without it, creating a job is 10 % slower.
            values[-1] = deadline_ms = clock.deadline_ms(started, PATIENCE_SECONDS)
            try:
                reply = await target.with_scripts("EVALSHA", script.sha, len(keys), *values)
            except exceptions.RedisError as error:
                run = _Run(script, len(keys), values, started, None, clock, [(clock, deadline_ms)], error)
            else:
                self._way.was_reached = True
                return reply
        return await self._insist(run or _Run(script, len(keys), values, started, patience_seconds), target)

    async def _insist(self, run: "_Run", first: Target) -> Reply:
        """Run a script until there is an answer, or patience is over; it may have failed once, at the first target."""

        async def send(target: Target, is_again: bool) -> Reply:
            failure, run.failure = run.failure, None
            try:
                if failure is None or target is not first:
                    await self._keep_time(run, target)
                return await self._evaluate(run, target, is_again, failure)
            except exceptions.ResponseError as error:
                if outcome_of(error, Kind.SCRIPT).cause is not Cause.EXPIRED:
                    raise
            target.clock = None
            run.started = time.monotonic()
            try:
                await self._read_clock(run.patience_seconds, run.values[:1])
            except StoreUnavailableError as error:
                # An earlier try may have taken effect, and only lost its answer.
                raise OutcomeUnknownError(run.script.name) from error
            await self._keep_time(run, target)
            return await self._evaluate(run, target, is_again)

        try:
            return await self._way.persist(
                Kind.SCRIPT,
                run.script.name,
                send,
                started=run.started,
                patience_seconds=run.patience_seconds,
                words=run.values[:1],
            )
        except NotReplicatedError:
            # It took effect: nothing is left to come later.
            raise
        except OutcomeUnknownError:
            await asyncio.sleep(run.seconds_until_past(time.monotonic()))
            raise

    async def _evaluate(
        self, run: "_Run", target: Target, is_again: bool, failure: exceptions.RedisError | None = None
    ) -> Reply:
        script = run.script
        try:
            if failure is not None:
                raise failure
            return await self._write(run, target, ("EVALSHA", script.sha, run.key_count, *run.values), is_again)
        except exceptions.ResponseError as error:
            if outcome_of(error, Kind.SCRIPT).cause is not Cause.NO_SCRIPT:
                raise
            return await self._write(run, target, ("EVAL", script.source, run.key_count, *run.values), is_again)

    async def _write(self, run: "_Run", target: Target, command: Command, is_again: bool) -> Reply:
        """Send a write; with replicas, WAIT for them on the same connection, since it is that connection's writes.

        A call that is known already writes nothing: WAIT would wait for what the connection wrote before, if it did. So
        each writes a key, too, and replicas that have that have all that came before it, whoever wrote it. Where the
        user may not write that key, or the server is full, there is only the call's own write to wait for.
        """
        if not self.replicas:
            # Again on a connection of its own, lest it share the fate of the others again and again.
            return await (target.alone if is_again else target.with_scripts)(*command)
        sent_at = time.monotonic()
        tag = tag_in(run.values[0]) if run.key_count else None
        touch: list[Command] = [] if tag is None else [("SET", replicated_key(tag), 1)]
        wait = ("WAIT", self.replicas, int(REPLICATION_SECONDS * 1000))
        reply, *_, answered = await target.many([command, *touch, wait], alone=True)
        if isinstance(reply, Exception):
            raise reply
        if isinstance(answered, exceptions.RedisError):
            self._way.after(answered, outcome_of(answered, Kind.WAIT), target, sent_at)
            raise NotReplicatedError(run.script.name, self.replicas, 0) from answered
        if answered < self.replicas:
            raise NotReplicatedError(run.script.name, self.replicas, answered)
        return reply

    async def _keep_time(self, run: "_Run", target: Target) -> None:
        """Put the deadline into the time of the server that a script is sent to."""
        if target.clock is None:
            try:
                await _read_time(target)
            except exceptions.RedisError as error:
                # The script itself wasn't sent.
                note_unreached(error)
                raise
        if target.clock is not None and target.clock is not run.clock:
            run.count_from(target.clock)

    async def _read_clock(self, patience_seconds: float | None, words: Command) -> None:
        """Read the clock of the server to which the way leads."""

        async def send(target: Target, is_again: bool) -> None:
            if target.clock is None or not target.clock.is_fresh(time.monotonic()):
                await _read_time(target)

        await self._way.persist(Kind.READ, "TIME", send, patience_seconds=patience_seconds, words=words)


async def _read_time(target: Target) -> None:
    asked_at = time.monotonic()
    seconds, micros = await target.alone("TIME")
    target.clock = ClockReading(int(seconds) * 1000 + int(micros) // 1000, asked_at, time.monotonic())


class Node(Sender):
    """A server of one deployment: a pool for commands, another for listening."""

    def __init__(
        self, deployment: Deployment, counters: Counters, replicas: int = 0, *, is_read_only: bool = False
    ) -> None:
        """Nothing is connected yet; with `is_read_only`, nothing is ever sent that writes."""
        self.link = Link(deployment, patience_of, counters)
        super().__init__(self.link, replicas, is_read_only=is_read_only)
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

    async def is_there(self) -> bool:
        """Tell whether the server answers soon."""
        try:
            with in_a_hurry():
                await self.read("PING")
        except StoreUnavailableError:
            return False
        return True

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


@dataclass(slots=True)
class _Run:
    """One call of a script."""

    script: Script
    key_count: int
    #: Keys, arguments, and the deadline, which is in the time of the server that it is sent to.
    values: list[str | int | bytes]
    #: From when on the time to the deadline counts.
    started: float
    patience_seconds: float | None
    clock: ClockReading | None = None
    #: The deadlines that it was sent with, and by which clock.
    deadlines: list[tuple[ClockReading, int]] = field(default_factory=list)
    #: That of a try already made.
    failure: exceptions.RedisError | None = None

    def count_from(self, clock: ClockReading) -> None:
        """Set the deadline in the time of a server."""
        seconds = PATIENCE_SECONDS if self.patience_seconds is None else self.patience_seconds
        deadline_ms = clock.deadline_ms(self.started, seconds)
        self.values[-1], self.clock = deadline_ms, clock
        self.deadlines.append((clock, deadline_ms))

    def seconds_until_past(self, now: float) -> float:
        """Return how long to wait until no server executes it any more."""
        return max((clock.seconds_until_past(deadline, now) for clock, deadline in self.deadlines), default=0.0)


def patience_of(outcome: Outcome, was_reached: bool) -> float:
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
        case Patience.ELSEWHERE:
            return PATIENCE_SECONDS
        case Patience.OUTAGE:
            return PATIENCE_SECONDS if was_reached else FIRST_PATIENCE_SECONDS
