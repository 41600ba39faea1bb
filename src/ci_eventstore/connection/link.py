"""The connections to one server, and the loop that sends a command until there is an answer."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import NamedTuple, cast
from weakref import WeakSet

from redis import exceptions
from redis.asyncio import Redis

from ci_eventstore.connection.connections import RenewablePool, client_of, sentinels_of
from ci_eventstore.connection.deployments import Deployment
from ci_eventstore.connection.failures import outcome_of, partition_of, translate, words_of
from ci_eventstore.connection.outage_log import OutageLog
from ci_eventstore.connection.outcomes import Kind, Outcome, Patience, Renew, Tries
from ci_eventstore.connection.pipeline import Pipeline
from ci_eventstore.connection.replies import Reply
from ci_eventstore.connection.subscription import Subscription
from ci_eventstore.errors import NotInitializedError


@dataclass(slots=True)
class Counters:
    """Numbers that only grow."""

    #: Events and facts that were appended to jobs' streams.
    appended_records: int = 0
    #: Writes under a claim that was no longer the job's.
    refused_stale_writes: int = 0
    #: Commands that were sent again, because they got no answer or a passing refusal.
    retries: int = 0
    #: Commands that failed for good.
    errors: int = 0


logger = logging.getLogger("ci_eventstore.connection")

COMMAND_CONNECTIONS = 32
LISTENING_CONNECTIONS = 1000
#: A refusal that lasts this long is mentioned in the log.
MENTIONED_SECONDS = 1.0

#: Returns how long to try a command that failed so, given whether the server has ever answered.
PatienceOf = Callable[[Outcome, bool], float]

#: How long a command is tried again whose caller can do without this server, and how long it waits for a reply.
HURRIED_PATIENCE_SECONDS = 1.0
HURRIED_REPLY_SECONDS = 5.0
#: For how long such a caller doesn't ask a server that gave no answer.
AWAY_SECONDS = 5.0


@dataclass(slots=True)
class _Hurry:
    """Is over when its block is, also for tasks that were begun there."""

    is_on: bool = True


_hurry: ContextVar[_Hurry | None] = ContextVar("hurry", default=None)


@contextmanager
def in_a_hurry() -> Iterator[None]:
    """Let commands fail soon: their caller asks several servers, and goes on without those that are away."""
    hurry = _Hurry()
    token = _hurry.set(hurry)
    try:
        yield
    finally:
        hurry.is_on = False
        _hurry.reset(token)


def _is_hurried() -> bool:
    hurry = _hurry.get()
    return hurry is not None and hurry.is_on


class _Sent(NamedTuple):
    """A command; one of its words has the hash tag of the partition that it is for."""

    kind: Kind
    what: str
    words: Sequence[str | int | bytes]


class Link:
    """A pool for commands, another for listening, and three connections that many commands share."""

    def __init__(self, deployment: Deployment, patience_of: PatienceOf, counters: Counters) -> None:
        self.deployment = deployment
        self.counters = counters
        sentinels = sentinels_of(deployment, self._follow)
        self.commands: Redis = client_of(deployment, COMMAND_CONNECTIONS, sentinels)
        self.listening: Redis = client_of(deployment, LISTENING_CONNECTIONS, sentinels)
        self.scripts = Pipeline(self.commands.connection_pool)
        self.reads = Pipeline(self.commands.connection_pool)
        #: For many reads at a time, which would keep those of followers waiting.
        self.bulk = Pipeline(self.commands.connection_pool)
        self.is_closed = False
        #: Whether the server has ever answered.
        self.was_reached = False
        #: Whether errors name the partition that a command is for, since other servers have others.
        self.names_partitions = False
        #: The last failure of a server that gave no answer, and until when callers in a hurry take it for theirs.
        self._away: tuple[exceptions.RedisError, float] | None = None
        self._patience_of = patience_of
        self._renewed_at = float("-inf")
        self._refusals = OutageLog(logger, "%s")
        self._subscriptions: WeakSet[Subscription] = WeakSet()

    async def close(self) -> None:
        """Close all connections."""
        self.is_closed = True
        for subscription in list(self._subscriptions):
            await subscription.close()
        await self.commands.aclose(close_connection_pool=True)
        await self.listening.aclose(close_connection_pool=True)
        self.deployment.release()

    def abandon(self) -> None:
        """Let go of all connections, whose event loop was closed: the server sees their end, nobody waits for it."""
        self.is_closed = True
        for client in (self.commands, self.listening):
            pool = client.connection_pool
            assert isinstance(pool, RenewablePool)
            pool.abandon()

    def subscription(
        self, on_message: Callable[[str, bytes], None], on_listening: Callable[[list[str]], None]
    ) -> Subscription:
        """Return a subscription that has no channels yet; it ends with this."""
        subscription = Subscription(self.listening.connection_pool, on_message, on_listening)
        self._subscriptions.add(subscription)
        return subscription

    async def persist(
        self,
        kind: Kind,
        what: str,
        send: Callable[[bool], Awaitable[Reply]],
        *,
        started: float | None = None,
        patience_seconds: float | None = None,
        words: Sequence[str | int | bytes] = (),
    ) -> Reply:
        """Send until there is an answer, or patience is over; `send` gets whether the command was sent before.

        With `patience_seconds`, no answer is waited for longer than that. One of the `words` has the hash tag of the
        partition that the command is for.
        """
        tries = Tries(time.monotonic() if started is None else started)
        ends_at = None if patience_seconds is None else tries.started + patience_seconds
        if _is_hurried() and (kind is Kind.READ or patience_seconds is not None):
            ends_at = self._hurry(_Sent(kind, what, words), ends_at)
        while True:
            if self.is_closed:
                raise NotInitializedError
            sent_at = time.monotonic()
            try:
                reply = await _within(ends_at, send(tries.failed > 0))
            except exceptions.RedisError as error:
                pause = self._pause_after(error, _Sent(kind, what, words), tries, sent_at, patience_seconds)
            else:
                self.was_reached, self._away = True, None
                return reply
            await asyncio.sleep(pause)

    def _hurry(self, sent: _Sent, ends_at: float | None) -> float:
        """Return until when a caller in a hurry waits for an answer; raise if the server gave none a moment ago.

        Nothing of the command was sent so far.
        """
        now = time.monotonic()
        if self._away is not None:
            error, until = self._away
            if now < until:
                raise self._failure(error, outcome_of(error, Kind.READ), sent) from error
            # Of those who come next, one finds out for all.
            self._away = error, now + AWAY_SECONDS
        return now + HURRIED_REPLY_SECONDS if ends_at is None else ends_at

    def _failure(self, error: Exception, outcome: Outcome, sent: _Sent, *, is_unknown: bool = False) -> Exception:
        """Return our error for one of redis-py's."""
        partition = partition_of(sent.words) if self.names_partitions else None
        return translate(error, outcome, sent.what, self.deployment.name, is_unknown=is_unknown, partition=partition)

    def _pause_after(
        self,
        error: exceptions.RedisError,
        sent: _Sent,
        tries: Tries,
        sent_at: float,
        patience_seconds: float | None,
    ) -> float:
        """Return how long to pause after a failed try; raise our error if there is no other one."""
        outcome, now = outcome_of(error, sent.kind), time.monotonic()
        self.renew(outcome.renew, sent_at)
        patience = self._patience_of(outcome, self.was_reached)
        if patience_seconds is not None:
            patience = min(patience, patience_seconds)
        if _is_hurried():
            patience = min(patience, HURRIED_PATIENCE_SECONDS)
        pause = tries.pause_after(outcome, now, patience)
        if pause is None:
            self.counters.errors += 1
            if outcome.patience is Patience.OUTAGE:
                self._away = error, now + AWAY_SECONDS
            is_unknown = sent.kind is not Kind.READ and tries.may_have_arrived
            raise self._failure(error, outcome, sent, is_unknown=is_unknown) from error
        self.counters.retries += 1
        logger.debug("sending again", extra={"command": sent.what, "error": words_of(error)})
        if outcome.patience in _SAID and now - tries.started > MENTIONED_SECONDS:
            self._refusals.failed(f"{self.deployment.name} refuses for the moment, trying again: {words_of(error)}")
        return pause

    def _follow(self) -> None:
        """Leave the server that isn't the primary any more."""
        self.renew(Renew.ALL, time.monotonic())

    def renew(self, renew: Renew, sent_at: float) -> None:
        """Make connections anew, unless that was done since the command left that asks for it."""
        if renew is Renew.NONE or sent_at < self._renewed_at:
            return
        self._renewed_at = time.monotonic()
        for client in (self.commands, self.listening):
            pool = client.connection_pool
            assert isinstance(pool, RenewablePool)
            pool.renew()
        self.scripts.renew()
        self.reads.renew()
        self.bulk.renew()
        if renew is Renew.ALL:
            for subscription in list(self._subscriptions):
                subscription.renew()


#: Refusals are mentioned; outages are by those whose calls fail.
_SAID = (Patience.REFUSAL, Patience.FULL, Patience.LOADING)


async def _within(ends_at: float | None, sending: Awaitable[Reply]) -> Reply:
    if ends_at is None:
        return await sending
    try:
        async with asyncio.timeout(max(0.0, ends_at - time.monotonic())):
            return await sending
    except TimeoutError:
        raise exceptions.TimeoutError("no answer in the time that there was") from None


async def try_each(link: Link, commands: Sequence[Sequence[str]]) -> list[Reply | exceptions.RedisError]:
    """Send several commands that do no harm, in one round trip; StoreUnavailableError."""

    async def send(is_again: bool) -> list[Reply]:
        pipeline = link.commands.pipeline(transaction=False)
        for command in commands:
            pipeline.execute_command(*command)
        replies = await pipeline.execute(raise_on_error=False)
        for reply in replies:
            if isinstance(reply, exceptions.RedisError) and outcome_of(reply, Kind.READ).is_passing:
                raise reply
        return replies

    return cast(list[Reply | exceptions.RedisError], await link.persist(Kind.READ, "pipeline", send))


async def try_listening(link: Link, channels: Sequence[str]) -> list[Reply | exceptions.RedisError]:
    """Listen to some channels for a moment, each for itself; StoreUnavailableError."""

    async def send(is_again: bool) -> list[Reply]:
        pool = link.listening.connection_pool
        connection = await pool.get_connection()
        replies = list[Reply]()
        try:
            for channel in channels:
                await connection.send_command("SUBSCRIBE", channel)
                try:
                    replies.append(await connection.read_response())
                except exceptions.ResponseError as error:
                    replies.append(error)
        finally:
            await connection.disconnect(nowait=True)
            await pool.release(connection)
        return replies

    return cast(list[Reply | exceptions.RedisError], await link.persist(Kind.READ, "SUBSCRIBE", send))
