"""The connections to one server."""

import time
from collections.abc import Callable, Sequence
from typing import cast
from weakref import WeakSet

from redis import exceptions
from redis.asyncio import Redis

from ci_eventstore.connection.connections import RenewablePool, client_of, sentinels_of
from ci_eventstore.connection.deployments import Deployment
from ci_eventstore.connection.failures import outcome_of
from ci_eventstore.connection.outcomes import Kind, Outcome, Renew
from ci_eventstore.connection.pipeline import Pipeline
from ci_eventstore.connection.replies import Reply
from ci_eventstore.connection.subscription import OnRefused, Subscription
from ci_eventstore.connection.way import Command, Counters, PatienceOf, Target, Way

COMMAND_CONNECTIONS = 32
LISTENING_CONNECTIONS = 1000


class Link(Way, Target):
    """A pool for commands, another for listening, and three connections that many commands share."""

    def __init__(self, deployment: Deployment, patience_of: PatienceOf, counters: Counters) -> None:
        super().__init__(deployment.name, patience_of, counters)
        self.deployment = deployment
        sentinels = sentinels_of(deployment, self._follow)
        self.commands: Redis = client_of(deployment, COMMAND_CONNECTIONS, sentinels)
        self.listening: Redis = client_of(deployment, LISTENING_CONNECTIONS, sentinels)
        self.scripts = Pipeline(self.commands.connection_pool)
        self.reads = Pipeline(self.commands.connection_pool)
        #: For many reads at a time, which would keep those of followers waiting.
        self.bulk = Pipeline(self.commands.connection_pool)
        self._renewed_at = float("-inf")
        self._subscriptions: WeakSet[Subscription] = WeakSet()
        self.target = self
        self.alone = self.commands.execute_command
        self.with_reads = self.reads.execute
        self.with_scripts = self.scripts.execute

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
        self,
        on_message: Callable[[str, bytes], None],
        on_listening: Callable[[list[str]], None],
        on_refused: OnRefused | None = None,
    ) -> Subscription:
        """Return a subscription that has no channels yet; it ends with this."""
        subscription = Subscription(self.listening.connection_pool, on_message, on_listening, on_refused)
        self._subscriptions.add(subscription)
        return subscription

    def is_silent(self, seconds: float) -> bool:
        """Tell whether commands wait, and the server has said nothing to some of them for so long."""
        return any(pipeline.is_silent(seconds) for pipeline in (self.scripts, self.reads, self.bulk))

    async def many(self, commands: Sequence[Command], *, alone: bool) -> list[Reply]:
        """Send several commands together; alone, on a connection that nobody else uses meanwhile."""
        if not alone:
            return await self.bulk.execute_all(commands)
        pipeline = self.commands.pipeline(transaction=False)
        for command in commands:
            pipeline.execute_command(*command)
        # redis-py would put the command before the server's words.
        return await pipeline.execute(raise_on_error=False)

    async def transaction(self, commands: Sequence[Command], *, alone: bool) -> list[Reply]:
        """Send several commands with nothing between them."""
        return replies_of(await self.many([("MULTI",), *commands, ("EXEC",)], alone=alone))

    def after(
        self, error: exceptions.RedisError, outcome: Outcome, target: Target, sent_at: float
    ) -> tuple[Outcome, Target | None]:
        """Make connections anew if the address may lead to another server by now."""
        self.renew(outcome.renew, sent_at)
        return outcome, None

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


def replies_of(replies: Sequence[Reply]) -> list[Reply]:
    """Return the replies of a transaction, given those to MULTI, its commands and EXEC; the error that undid it."""
    *queued, found = replies
    if isinstance(found, Exception):
        raise next((reply for reply in queued if isinstance(reply, Exception)), found)
    return cast(list[Reply], found)


async def try_each(link: Link, commands: Sequence[Sequence[str]]) -> list[Reply | exceptions.RedisError]:
    """Send several commands that do no harm, in one round trip; StoreUnavailableError."""

    async def send(_: Target, is_again: bool) -> list[Reply]:
        pipeline = link.commands.pipeline(transaction=False)
        for command in commands:
            pipeline.execute_command(*command)
        replies = await pipeline.execute(raise_on_error=False)
        for reply in replies:
            if isinstance(reply, exceptions.RedisError) and outcome_of(reply, Kind.READ).is_passing:
                raise reply
        return replies

    return cast(list[Reply | exceptions.RedisError], await link.persist(Kind.READ, "pipeline", send))


async def try_listening(link: Link, commands: Sequence[Sequence[str]]) -> list[Reply | exceptions.RedisError]:
    """Listen to some channels for a moment, each by a command of its own; StoreUnavailableError."""

    async def send(_: Target, is_again: bool) -> list[Reply]:
        pool = link.listening.connection_pool
        connection = await pool.get_connection()
        replies = list[Reply]()
        try:
            for command in commands:
                await connection.send_command(*command)
                try:
                    replies.append(await connection.read_response())
                except exceptions.ResponseError as error:
                    replies.append(error)
        finally:
            await connection.disconnect(nowait=True)
            await pool.release(connection)
        return replies

    return cast(list[Reply | exceptions.RedisError], await link.persist(Kind.READ, "SUBSCRIBE", send))
