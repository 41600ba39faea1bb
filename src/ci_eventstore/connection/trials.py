"""Try what a user may do on the server: each command's reply, or the error that the server replied instead."""

from collections.abc import Sequence
from typing import cast

from redis import exceptions

from ci_eventstore.connection.failures import outcome_of
from ci_eventstore.connection.link import Link
from ci_eventstore.connection.outcomes import Kind
from ci_eventstore.connection.replies import Reply


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
