"""Which connection the pipeline sends on."""

import asyncio
from collections.abc import Sequence
from typing import Any, cast

import pytest
from redis.asyncio.connection import ConnectionPool

from ci_eventstore.connection import pipeline
from ci_eventstore.connection.exchange import Waiting
from ci_eventstore.connection.pipeline import Pipeline


class FakeConnection:
    async def disconnect(self, nowait: bool) -> None:
        """Close nothing."""


class FakePool:
    """Gives connections, and counts those that it hasn't got back."""

    def __init__(self) -> None:
        self.given = 0

    async def get_connection(self) -> FakeConnection:
        self.given += 1
        return FakeConnection()

    async def release(self, connection: FakeConnection) -> None:
        self.given -= 1


class FakeExchange:
    """Answers a little later with how many commands came together."""

    def __init__(self, connection: Any, *, is_lost: bool = False) -> None:
        self.connection = connection
        self.is_lost = is_lost
        self.on_their_way = 0

    def is_usable(self) -> bool:
        return not self.is_lost

    def is_idle(self) -> bool:
        return not self.is_lost and not self.on_their_way

    def send(self, waiting: Sequence[Waiting]) -> None:
        self.on_their_way += 1
        asyncio.get_running_loop().call_later(0.01, self.answer, waiting)

    def answer(self, waiting: Sequence[Waiting]) -> None:
        self.on_their_way -= 1
        for _, reply in waiting:
            reply.set_result(len(waiting))


@pytest.fixture
def lost(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether the next connections are lost before anything was sent on them; later ones aren't."""
    fates: list[bool] = []

    def exchange(connection: Any) -> FakeExchange:
        return FakeExchange(connection, is_lost=bool(fates) and fates.pop(0))

    monkeypatch.setattr(pipeline, "Exchange", exchange)
    return fates


async def test_a_connection_that_is_lost_at_once_is_replaced(lost: list[bool]) -> None:
    """What waits isn't forgotten, and the lost ones go back to the pool."""
    lost += [True, True]
    pool = FakePool()
    async with asyncio.timeout(5):
        assert await Pipeline(cast(ConnectionPool, pool)).execute("PING") == 1
    assert pool.given == 1


async def test_what_comes_in_one_turn_leaves_together(lost: list[bool]) -> None:
    """But for the first command, which doesn't wait for the others."""
    opened = Pipeline(cast(ConnectionPool, FakePool()))
    await opened.execute("PING")
    assert await asyncio.gather(*(opened.execute("PING") for _ in range(5))) == [1, 4, 4, 4, 4]
