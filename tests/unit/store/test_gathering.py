"""What waits goes out together: turns, answers, errors, cancellation, an end that is waited for."""

import asyncio
from collections.abc import Sequence

import pytest

from ci_eventstore.events.lanes import Gathering, drain_all
from tests.waiting import wait_until


class Doubling(Gathering[int, int]):
    """Answers each number with its double, at most three in one call; can be held."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[list[int]] = []
        self.open = asyncio.Event()
        self.open.set()

    def count_together(self) -> int:
        return 3

    async def send(self, items: Sequence[int]) -> list[int]:
        self.calls.append(list(items))
        await self.open.wait()
        if 13 in items:
            raise ZeroDivisionError
        return [2 * item for item in items]


@pytest.fixture
async def doubling() -> Doubling:
    return Doubling()


async def test_each_is_given_its_own_answer(doubling: Doubling) -> None:
    """Those that wait go out together, in their order, as many as a call takes."""
    doubling.open.clear()
    waiting = [doubling.put(1)]
    await wait_until(lambda: bool(doubling.calls))
    waiting += [doubling.put(item) for item in (2, 3, 4, 5)]
    doubling.open.set()
    assert await asyncio.gather(*waiting) == [2, 4, 6, 8, 10]
    assert doubling.calls == [[1], [2, 3, 4], [5]]
    assert not doubling.is_busy


async def test_an_error_is_told_to_those_of_its_call(doubling: Doubling) -> None:
    """The next call goes out all the same, and whoever is cancelled before is left out of it."""
    waiting = [doubling.put(item) for item in (1, 13, 2, 3, 4)]
    waiting[3].cancel()
    found = await asyncio.gather(*waiting, return_exceptions=True)
    kinds = [ZeroDivisionError] * 3 + [asyncio.CancelledError, int]
    assert [type(one) for one in found] == kinds
    assert doubling.calls == [[1, 13, 2], [4]]


async def test_an_item_needs_no_task_where_nothing_waits(doubling: Doubling) -> None:
    """What comes meanwhile waits for it; where something waits already, it is that one's turn first."""
    doubling.open.clear()
    first = asyncio.create_task(doubling.do(1))
    await wait_until(lambda: bool(doubling.calls))
    assert doubling.sender is None
    second, third = doubling.put(2), asyncio.create_task(doubling.do(3))
    await asyncio.sleep(0)
    assert (doubling.calls, doubling.is_busy) == ([[1]], True)
    doubling.open.set()
    assert list(await asyncio.gather(first, second, third)) == [2, 4, 6]
    assert doubling.calls == [[1], [2, 3]]


async def test_whoever_sends_by_himself_and_fails_keeps_nobody_waiting(doubling: Doubling) -> None:
    """Its error, or its cancellation, is its own."""
    for item, kind in ((13, ZeroDivisionError), (1, asyncio.CancelledError)):
        doubling.open.clear()
        first = asyncio.create_task(doubling.do(item))
        await wait_until(lambda: doubling.is_busy)
        second = doubling.put(2)
        if item == 1:
            first.cancel()
        doubling.open.set()
        assert [type(one) for one in await asyncio.gather(first, second, return_exceptions=True)] == [kind, int]


async def test_an_end_waits_for_what_comes_meanwhile() -> None:
    """In all of them; with nothing that waits it is there at once."""
    gatherings = {"a": Doubling(), "b": Doubling()}
    await drain_all(gatherings)
    for one in gatherings.values():
        one.open.clear()
    waiting = [gatherings["a"].put(1)]
    await wait_until(lambda: bool(gatherings["a"].calls))
    drained = asyncio.create_task(drain_all(gatherings))
    await asyncio.sleep(0)
    waiting.append(gatherings["b"].put(2))
    gatherings["c"] = Doubling()
    gatherings["a"].open.set()
    await waiting[0]
    await asyncio.sleep(0.01)
    assert not drained.done()
    gatherings["b"].open.set()
    await drained
    assert waiting[1].result() == 4
