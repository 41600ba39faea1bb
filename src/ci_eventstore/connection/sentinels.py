"""Ask Sentinels which server is the primary, before each connection, and check that it takes itself for one."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from redis import exceptions

from ci_eventstore.connection.addresses import HostPort, shown_host
from ci_eventstore.connection.deployments import Deployment
from ci_eventstore.connection.failures import MisledError, note_reply, reply_of, words_of
from ci_eventstore.connection.replies import as_map

#: How long a Sentinel has for its answer, and then the server until it is connected and has told its role. A server
#: that stands still is asked no longer: meanwhile the Sentinels may have another one.
ANSWER_SECONDS, CONNECT_SECONDS = 2.0, 3.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What one Sentinel says."""

    sentinel: HostPort
    #: Where the server is; None if it doesn't know one of that name, or didn't answer.
    server: HostPort | None = None
    #: Grows with each failover: of two answers, the one with the higher number is newer.
    epoch: int = 0
    failure: exceptions.RedisError | None = None


def newest(answers: Sequence[Answer]) -> HostPort | None:
    """Return where the server is by the newest of some answers; None if none of them knows. Pure.

    A Sentinel that was cut off from the others goes on naming the primary that they have replaced.
    """
    known = [answer for answer in answers if answer.server is not None]
    return max(known, key=lambda answer: answer.epoch).server if known else None


def why_unknown(answers: Sequence[Answer], service: str, count: int) -> exceptions.RedisError:
    """Return the error for answers of `count` Sentinels none of which knows where the server is. Pure."""
    failures = [(answer, answer.failure) for answer in answers if answer.failure is not None]
    if 2 * (len(answers) - len(failures)) > count:
        return MisledError(f"its Sentinels know no server by the name {service!r}")
    for answer, failure in failures:
        reply = reply_of(failure)
        if reply is not None and "unknown command" in reply:
            return MisledError(f"{shown_host(*answer.sentinel)} is no Sentinel")
        if reply is not None:
            note_reply(failure, f"{reply} (says a Sentinel, which knows sentinel_username and sentinel_password alone)")
            return failure
    told = "; ".join(f"{shown_host(*answer.sentinel)}: {words_of(failure)}" for answer, failure in failures)
    error = exceptions.ConnectionError(f"too few Sentinels answer to know where the server is: {told}")
    error.__cause__ = failures[0][1] if failures else None
    return error


class Sentinels:
    """Those of one deployment, as the connections of one process ask them."""

    def __init__(
        self, deployment: Deployment, make_connection: Callable[[str, int], Any], on_move: Callable[[], None]
    ) -> None:
        """`on_move` is called when they name another server than before."""
        self._each = deployment.addresses
        self._service = deployment.service
        self._make_connection = make_connection
        self._on_move = on_move
        self._asking = asyncio.Lock()
        #: Where the server was last, and when the Sentinels were asked for that.
        self._server: HostPort | None = None
        self._asked_at = float("-inf")

    async def lead(self, connection: Any, connect: Callable[[], Awaitable[None]]) -> None:
        """Have a connection lead to the primary; redis-py's errors, after which it isn't connected."""
        if connection.is_connected:
            return
        try:
            connection.host, connection.port = server = await self._find()
            async with asyncio.timeout(CONNECT_SECONDS):
                await connect()
                role = await _role_of(connection)
            where = shown_host(*server)
            if role not in ("master", ""):
                raise exceptions.ConnectionError(
                    f"{where} is a {role}, and its Sentinels don't name another server yet"
                )
            if server != self._server:
                raise exceptions.ConnectionError(f"{where} isn't the primary any more")
        except TimeoutError:
            await connection.disconnect(nowait=True)
            raise exceptions.TimeoutError(f"{shown_host(connection.host, connection.port)} doesn't answer") from None
        except BaseException:
            await connection.disconnect(nowait=True)
            raise

    async def _find(self) -> HostPort:
        """Return where the server is now; those who ask at the same time share an answer."""
        came_at = time.monotonic()
        async with self._asking:
            if self._server is None or self._asked_at < came_at:
                asked_at = time.monotonic()
                answers = await self._ask_all()
                server = newest(answers)
                if server is None:
                    raise why_unknown(answers, self._service, len(self._each))
                was_moved = self._server not in (None, server)
                self._server, self._asked_at = server, asked_at
                if was_moved:
                    self._on_move()
            return self._server

    async def _ask_all(self) -> list[Answer]:
        """Return what the Sentinels say, as soon as most of them have said something."""
        answers = list[Answer]()
        async with asyncio.TaskGroup() as tasks:
            asked = [tasks.create_task(self._ask(each)) for each in self._each]
            for answer in asyncio.as_completed(asked):
                answers.append(await answer)
                if 2 * sum(answer.failure is None for answer in answers) > len(asked):
                    break
            for task in asked:
                task.cancel()
        return answers

    async def _ask(self, sentinel: HostPort) -> Answer:
        connection = self._make_connection(*sentinel)
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                await connection.connect()
                await connection.send_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._service)
                found = await connection.read_response()
                if found is None:
                    return Answer(sentinel)
                await connection.send_command("SENTINEL", "MASTER", self._service)
                epoch = as_map(await connection.read_response()).get("config-epoch", "0")
            return Answer(sentinel, (found[0].decode(), int(found[1])), int(epoch))
        except TimeoutError:
            return Answer(sentinel, failure=exceptions.TimeoutError("no answer"))
        except exceptions.RedisError as error:
            return Answer(sentinel, failure=error)
        finally:
            await connection.disconnect(nowait=True)


async def _role_of(connection: Any) -> str:
    """Return what a server takes itself for; "" if it doesn't tell the connection's user."""
    await connection.send_command("HELLO")
    try:
        return as_map(await connection.read_response()).get("role", "")
    except exceptions.ResponseError as error:
        if (reply_of(error) or "").startswith("NOPERM"):
            return ""
        raise
