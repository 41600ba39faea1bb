"""An erasure is stopped at each of its calls, and repeated: it ends the same."""

from contextlib import suppress
from typing import Any

import pytest

from ci_common.errors import UserNotFoundError
from ci_common.models import Job
from ci_eventstore.connection.nodes import Nodes
from ci_eventstore.history.erasing import Eraser
from ci_eventstore.repository import RedisJobRepository
from tests.integration.store.erasing import account, ended, erase, found_in_keys
from tests.integration.store.sealing import seal_job


class Stopped(BaseException):
    """Raised in place of a call, or of its answer."""


class StoppingNodes:
    """The nodes of a store, which stop whoever uses them at the n-th call, before it is sent or after its answer."""

    def __init__(self, nodes: Nodes, number: int, *, after: bool) -> None:
        self._nodes = nodes
        self._left = number
        self._after = after

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._nodes, name)
        if name not in ("read", "read_many", "read_together", "run"):
            return found

        async def call(*arguments: Any, **more: Any) -> Any:
            self._left -= 1
            if self._left == 0 and not self._after:
                raise Stopped
            answer = await found(*arguments, **more)
            if self._left == 0:
                raise Stopped
            return answer

        return call


@pytest.mark.slow  # Each call of an erasure is the last one once, and is or isn't done.
@pytest.mark.parametrize("after", [False, True], ids=["not sent", "without an answer"])
async def test_it_is_stopped_anywhere_and_repeated(repository: RedisJobRepository, server: Nodes, after: bool) -> None:
    """It ends the same: with nothing of the user."""
    for number in range(1, 1000):
        await server.read("FLUSHALL")
        await repository.initialize()
        await small_store(repository)
        eraser = Eraser(repository, "zebedee-id", settle_seconds=0)
        engine = repository.engine
        eraser._engine = Stand(engine, StoppingNodes(engine.nodes, number, after=after))  # type: ignore[assignment]
        was_stopped = False
        try:
            await eraser.erase()
        except Stopped:
            was_stopped = True
        with suppress(UserNotFoundError):
            await erase(repository)
        assert await found_in_keys(server) == []
        assert [user.id for user in await repository.list_users()] == ["bob"]
        assert await repository.verify() == []
        if not was_stopped:
            assert number > 20
            return


async def small_store(repository: RedisJobRepository) -> None:
    """Fill a store with one job of each kind that is erased in another way."""
    await account(repository)
    await ended(repository, "live")
    await ended(repository, "sealed")
    await seal_job(repository, "sealed")
    await repository.create_job(Job(id="waits", status="queued", user_id="zebedee-id", name="zebedee-build"))


class Stand:
    """An open store with other nodes."""

    def __init__(self, engine: Any, nodes: Any) -> None:
        self._engine = engine
        self.nodes = nodes

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)
