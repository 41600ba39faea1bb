"""Work that is done at the same time ends together."""

import asyncio

import pytest

from ci_eventstore.cli.history import until_stopped
from ci_eventstore.errors import StoreUnavailableError
from ci_eventstore.tasks import together


async def test_results_come_in_the_order_of_the_works() -> None:
    """Whichever ends first."""
    is_first = asyncio.Event()

    async def wait() -> int:
        await is_first.wait()
        return 1

    async def be_quick() -> int:
        is_first.set()
        return 2

    assert await together([wait(), be_quick()]) == [1, 2]
    assert await together([]) == []


@pytest.mark.parametrize("is_cancelled", [False, True], ids=["an error", "cancelled"])
async def test_no_work_goes_on_after_the_others(is_cancelled: bool) -> None:
    """The first error is what is raised; the others have ended by then, however long that takes them."""
    ended, is_begun = 0, asyncio.Event()

    async def work() -> None:
        nonlocal ended
        try:
            is_begun.set()
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ended += 1
            raise StoreUnavailableError("a consequence")

    async def fail() -> None:
        await is_begun.wait()
        if is_cancelled:
            await asyncio.Event().wait()
        raise StoreUnavailableError("the cause")

    task = asyncio.create_task(together([work(), fail(), work()]))
    await is_begun.wait()
    if is_cancelled:
        task.cancel()
    with pytest.raises(asyncio.CancelledError if is_cancelled else StoreUnavailableError) as caught:
        await task
    assert ended == 2
    assert is_cancelled or str(caught.value) == "the cause"


async def test_what_ends_a_command_is_told() -> None:
    """One that goes on until it is stopped doesn't hide why it ended by itself."""

    async def fail() -> None:
        raise StoreUnavailableError("gone")

    with pytest.raises(StoreUnavailableError, match="gone"):
        await until_stopped(fail())
